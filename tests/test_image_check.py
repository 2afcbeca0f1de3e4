"""What `make image-check` reads and types, as far as can be told without building the image."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from command_lines import find, parse
from images import DEPLOY, ROOT, VOLUMES

sys.path.insert(0, str(ROOT / "tools"))
import image_check

SCRIPT = ROOT / "tools" / "image_check.py"
LISTED = """\
:env:.find-links='{folder}/wheels'
global.cert='{folder}/all.crt'
global.constraint='{folder}/constraints.txt'
global.extra-index-url='\\nfile://{folder}/index/simple\\nfile://{folder}/missing/simple'
global.find-links='{folder}/old'
"""


def test_the_target_is_named_where_contributors_look() -> None:
    makefile, page = (ROOT / "Makefile").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    assert re.search(r"^image-check: .* ## .*\n\t.*/python tools/image_check.py$", makefile, re.M)
    assert "    make image-check " in page
    assert not re.search(r"^test: .*image-check", makefile, re.M), "it takes minutes, and root"


def test_package_sources_of_pip_are_passed_on_and_nothing_else() -> None:
    conf = ConfigParser()
    conf.read_string(image_check.pip_conf(LISTED.format(folder="/a")))
    assert dict(conf["global"]) == {
        "find-links": "/a/wheels",  # the environment comes before the configuration file
        "cert": "/a/all.crt",
        "extra-index-url": "file:///a/index/simple file:///a/missing/simple",
    }


def test_local_package_sources_are_mounted(tmp_path: Path) -> None:
    for name in ("wheels", "index/simple"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "all.crt").touch()
    conf = image_check.pip_conf(LISTED.format(folder=tmp_path))
    # An index refers to the files beside it.
    expected = [tmp_path / "wheels", tmp_path / "all.crt", tmp_path / "index"]
    assert image_check.local_sources(conf) == expected
    assert not image_check.local_sources("[global]\nindex-url = https://host/simple\n")


def test_the_demo_is_executed_in_the_working_folder_of_the_image() -> None:
    lines = image_check.demo_lines((ROOT / "Makefile").read_text())
    assert [words[:2] for words in lines] == [
        ["prep", "extract"],
        ["prep", "align"],
        *2 * [["train", "run"]],
        ["train", "compare"],
    ]
    assert {str(parse(words)["work"]) for words in lines} == {"/work"}


@pytest.mark.parametrize("name", ["scheduler", "worker", "prep", "train"])
def test_services_are_started_as_the_compose_file_says(name: str) -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]
    folders = {"FEATREG_DATA": "/a", "FEATREG_WORK": "/b", "FEATREG_CACHE": "/c"}
    options = image_check.service_options(service, folders)
    environment = [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    mounts = ["--volume=/a:/data", "--volume=/b:/work", "--volume=/c:/cache"]
    assert options == ["--user=1000:1000", *environment, *mounts]


def test_what_it_types_can_be_typed() -> None:
    text = SCRIPT.read_text().replace("{address}", "--scheduler tcp://scheduler:8786")
    lines = re.findall(r'"(prep embed .*)"', text)
    lines += [" ".join(words) for words in re.findall(r'start\("(\w+)", f?"(.+)"\)', text)]
    assert len(lines) == 4
    for line in lines:
        parse(find(line) or [])
    assert all(f'"{path}"' in text for path in VOLUMES)


def test_it_says_what_it_requires(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "root" in done.stderr
    assert "buildah, debootstrap" in done.stderr
