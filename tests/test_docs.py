"""Every command in the README and the documentation is one that can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from command_lines import BENCHMARKS, check_make, find, logical_lines, parse
from pages import PAGES, ROOT, blocks

MAKEFILE = (ROOT / "Makefile").read_text()


def unfenced(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Command lines in a page's blocks and in its paragraphs of code."""
    shell = [block.body for block in blocks(page) if block.kind == "sh"]
    indented = re.findall(r"^ {4}(?=\S)(.*(?:\\\n.*)*)", unfenced(page), re.MULTILINE)
    return list(logical_lines("\n".join([*shell, *indented])))


def named(page: Path) -> list[str]:
    """Command lines within sentences, which may leave a part to the reader."""
    return re.findall(r"`((?:prep|train|make|docker|python) [^`]+)`", unfenced(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_can_be_typed(page: Path) -> None:
    added = "".join(block.body for block in blocks(page) if block.kind == "diff")
    for line in [*commands(page), *named(page)]:
        words = find(line)
        if line.startswith("make "):
            check_make(line, MAKEFILE)
        if words is None or "..." in words or "|" in line:
            continue
        if len(words) < 2 and words[0] in ("prep", "train"):  # the command as such
            continue
        try:
            parse(words)
        except click.UsageError as error:
            # A page that adds a choice may use it.
            if any(f'"{word}"' in added for word in words):
                continue
            # SECONDS, or another word in capitals, stands for what the reader puts there.
            if isinstance(error, click.BadParameter) and any(word.isupper() for word in words):
                continue
            if line in commands(page) or isinstance(error, click.NoSuchOption):
                pytest.fail(f"{line}: {error}")


OPENING = [
    "prep extract --dataset mtat --features vggish,openl3",
    "prep align --resolution 0.1",
    "train run --reg conreg",
]


def test_lines_name_their_dataset_beside_that_of_the_demo() -> None:
    """Whoever ran `make demo` has two datasets in ./featreg-work, and must say which is meant."""
    readme = commands(ROOT / "README.md")
    first = readme.index(OPENING[0])
    assert readme[first : first + 3] == OPENING
    del readme[first : first + 3]
    assert "add `--dataset mtat`" in (ROOT / "README.md").read_text().replace("\n", " ")
    for page in PAGES:
        if page.name == "troubleshooting.md":  # it shows what happens
            continue
        for line in readme if page.name == "README.md" else commands(page):
            words = find(line) or []
            if words[:2] in (["prep", "align"], ["train", "run"], ["train", "choose-alpha"]):
                assert "--dataset" in words, f"{page.name}: {line}"


def test_commands_are_found_wherever_they_stand() -> None:
    assert "prep align --resolution 0.1" in commands(ROOT / "README.md")
    assert "prep weights list" in named(ROOT / "docs" / "tutorial.md")
    found = [line for page in PAGES for line in commands(page)]
    assert len([line for line in found if find(line)]) > 50


@pytest.mark.parametrize(
    "line",
    [
        "python benchmarks/nowhere.py",
        "python benchmarks/extract.py --task nonsense",
        "python benchmarks/pipeline.py --speed 3",
        "make nonsense",
        "make demo nonsense",
        "make PYTHON=python3.12",
        "make NONSENSE=1 test",
    ],
)
def test_what_cannot_be_typed_is_refused(line: str) -> None:
    with pytest.raises(click.UsageError):
        check_make(line, MAKEFILE) if line.startswith("make ") else parse(find(line) or [])


def test_benchmarks_and_make_are_found_in_sentences() -> None:
    found = [line for page in PAGES for line in named(page)]
    assert len([line for line in found if line.startswith("python benchmarks/")]) > 8
    assert len([line for line in found if line.startswith("make ")]) > 5


def test_what_benchmarks_say_of_themselves_can_be_typed() -> None:
    lines = [
        line
        for script in sorted(BENCHMARKS.glob("*.py"))
        for line in re.findall(r"^ +(?:Example: )?(python benchmarks/.*)", script.read_text(), re.M)
    ]
    assert len(lines) > 8
    for line in lines:
        parse(find(line) or [])


def test_extras_are_installed_from_the_repository_and_are_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", declared.partition("\n[")[0], re.MULTILINE)
    sources = [
        path for room in ("datasets", "extract", "train") for path in ROOT.glob(f"{room}/**/*.py")
    ]
    named = set()
    for path in [*PAGES, *sources]:
        text = path.read_text()
        assert not re.search(r"featreg\[\w", text), f"{path}: no package index has featreg"
        named |= set(re.findall(r"'\.\[(\w+)\]'", text))
    assert {"onnx", "resampy", "tensorboard", "tensorflow"} <= named <= set(extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_pointed_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in contents, page.name
