"""Run all benchmarks, and write the results and the machine to a Markdown file.

    python benchmarks/run_all.py --output BENCHMARKS.md

The output of each script becomes rows of one table: its headings give the benchmark, and the
lines below them the measurements. Absolute times depend on the machine; ratios are from one run.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import click

HERE = Path(__file__).parent

# Options of each script for a full run, and for a quick test.
SCRIPTS: dict[str, tuple[str, str]] = {
    "hostile": ("--quick", "--quick --only flips"),
    "decode": ("", "--rounds 1 --seconds 2"),
    "extract": ("", "--rounds 1 --task vggish-wav"),
    "musicnn": ("", "--seconds 10 --repeats 1"),
    "pipeline": ("", "--rounds 1 --task end-to-end --clips 128"),
    "predict": ("", "--clips 8"),
    "scheduler": ("", "--shards 500"),
    "schemes": ("", "--rounds 1"),
    "teachers": ("--features musicnn", "--features musicnn --draws 1 --share 10"),
    "train": ("", "--rounds 1 --task conreg"),
}


def machine() -> Iterator[tuple[str, str]]:
    """Properties of the machine and the software, by name."""
    import torch

    yield "processor", _processor()
    yield "cores", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "memory", f"{memory / 2**30:.0f} GiB"
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    yield "GPU", ", ".join(gpus) or "none"
    yield "system", platform.platform(terse=True)
    yield "Python", platform.python_version()
    for name in ("featreg", "torch", "numpy", "h5py", "dask"):
        yield name, metadata.version(name)
    commit = ["git", "describe", "--always", "--dirty"]
    yield "commit", subprocess.run(commit, cwd=HERE, capture_output=True, text=True).stdout.strip()
    yield "load at the start", f"{os.getloadavg()[0]:.1f} processes"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.findall(r"^model name\s*: (.+)$", info.read_text() if info.is_file() else "", re.M)
    flags = info.read_text() if info.is_file() else ""
    wide = [name for name in ("avx2", "avx512f", "amx_bf16") if re.search(rf"\b{name}\b", flags)]
    return f"{found[0] if found else platform.processor()} ({', '.join(wide) or 'no AVX2'})"


def rows(name: str, output: str) -> Iterator[tuple[str, str]]:
    """Benchmark and measurement for every line that a script printed."""
    title = name
    headed = re.search(r"^\s+\S", output, re.MULTILINE)
    for line in filter(str.strip, output.splitlines()):
        words = " ".join(line.split())
        if headed and not line.startswith(" "):
            title = f"{name}: {words}"
        else:
            yield title, words


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, type=click.Choice(list(SCRIPTS)), help="May repeat.")
@click.option("--quick", is_flag=True, help="One short round of each, to see that it works.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Markdown file.")
def main(only: Sequence[str], quick: bool, output: Path | None) -> None:
    """Run the benchmarks, and write their results as a table.

    Example: python benchmarks/run_all.py --quick
    """
    about = list(machine())
    measured: list[tuple[str, str]] = []
    failed = []
    for name in only or SCRIPTS:
        options = SCRIPTS[name][quick].split()
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        click.echo(f"{name}.py {' '.join(options)}".strip(), err=True)
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            failed.append(name)
            reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
            measured.append((name, f"failed: {reason}"))
        measured += rows(name, done.stdout)
        measured.append((name, f"(the whole script took {time.perf_counter() - begin:.0f} s)"))
    kind = " A quick look: the figures mean little." if quick else ""
    text = (
        f"# Benchmarks\n\nWritten by `make bench`.{kind} What a ratio is beside, and what each "
        "figure is, says the head of `benchmarks/NAME.py`.\n\n"
        f"{table(('machine', ''), about)}\n{table(('benchmark', 'measured'), measured)}"
    )
    if output:
        output.write_text(text)
    else:
        click.echo(text)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
