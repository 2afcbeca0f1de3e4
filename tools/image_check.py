"""Build the container image without a container engine and use it: ``make image-check``.

For root on Debian with buildah and debootstrap. buildah builds the Dockerfile with ``DEVICE=cpu``
and the package sources that pip is configured to use here; TORCH_CPU_INDEX in the environment
replaces torch's own index. The base is Debian's own Python, installed by debootstrap in place of
the official Python image, unless ``--python`` names a version of the latter. Then, without a
network, as the image's own user and with a read-only /data:

- ``prep doctor``, ``prep embed`` on files in /data, and the lines of ``make demo``, of which the
  extraction and the last training are interrupted, as by ``docker stop``, and resumed;
- the services of ``deploy/compose.yaml`` as processes: a scheduler, 2 workers, ``prep``, ``train``.

Everything lies in a temporary folder (in TMPDIR, 8 GB at most), which is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "datasets" / "collections" / "demo_clips"
DEBIAN = "debian"  # --python: the base is made here
INTERRUPTED = 130  # exit status of our commands after SIGINT
# Those of pip's settings that say where packages come from.
_SOURCES = re.compile(
    r"\.(index-url|extra-index-url|no-index|find-links|trusted-host|proxy|cert|default-timeout)='(.*)'"
)


def pip_conf(listed: str) -> str:
    """Text of a pip.conf with the package sources among the output of ``pip config list``."""
    found: dict[str, str] = {}
    for name, value in _SOURCES.findall(listed):
        found.setdefault(name, value.replace("\\n", " "))  # the environment's are listed first
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in found.items()), ""])


def local_sources(conf: str) -> list[Path]:
    """Existing local paths that a pip.conf names; of an index, the folder with its files too."""
    paths = [Path(path) for path in re.findall(r" (?:file://)?(/\S+)", conf)]
    return [path.parent if path.name == "simple" else path for path in paths if path.exists()]


def demo_lines(makefile: str) -> list[list[str]]:
    """Commands of ``make demo``, with the working folder of the image."""
    (recipe,) = re.findall(r"^demo:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [
        line.split()
        for line in recipe.replace("$(VENV)/bin/", "").replace("$(WORK)", "/work").splitlines()
    ]


def service_options(service: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    """Options of ``buildah run`` for the user, environment and folders of a Compose service."""

    def fill(text: str) -> str:
        return re.sub(r"\$\{(\w+):-(.*?)\}", lambda match: variables.get(*match.groups()), text)

    environment = service.get("environment", {}).items()
    return [
        f"--user={fill(service['user'])}",
        *(f"--env={name}={value}" for name, value in environment),
        *(f"--volume={fill(folder)}" for folder in service["volumes"]),
    ]


def buildah(folder: Path, *words: str | Path) -> list[str]:
    """Command line of buildah with its storage in `folder`."""
    storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=vfs"]
    return ["buildah", *storage, *map(str, words)]


def output(command: Sequence[str]) -> str:
    """What a command that must succeed prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_base(folder: Path) -> None:
    """Store an image with Debian's Python under the name that the Dockerfile starts from."""
    container = output(buildah(folder, "from", "scratch"))
    root = Path(output(buildah(folder, "mount", container)))
    packages = "--include=ca-certificates,python3,python3-pip"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", root], check=True)
    root.chmod(0o755)
    (root / "usr/bin/python").symlink_to("python3")
    for path in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # the official one has none
        path.unlink()
    for path in [*root.glob("var/cache/apt/*"), *root.glob("var/lib/apt/lists/*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    image = f"python:{DEBIAN}-slim-bookworm"
    subprocess.run(buildah(folder, "commit", "--quiet", "--rm", container, image), check=True)


def build(folder: Path, python: str) -> None:
    """Build the image and make the container ``used`` of it."""
    if python == DEBIAN:
        make_base(folder)
    conf = folder / "pip.conf"
    conf.write_text(pip_conf(output([sys.executable, "-m", "pip", "config", "list"])))
    mounts = {conf: "/etc/pip.conf", **{path: path for path in local_sources(conf.read_text())}}
    options = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    options += [f"--build-arg=PYTHON={python}", "--build-arg=DEVICE=cpu"]
    options += ["--build-arg=TORCH_CPU_INDEX"]  # of the environment, else the Dockerfile's
    command = buildah(folder, "bud", "--isolation=chroot", "--tag=featreg:cpu", *options, ROOT)
    subprocess.run(command, check=True)
    print(output(buildah(folder, "images")), flush=True)
    image = ("--pull-never", "--add-host=scheduler:127.0.0.1", "--name=used", "featreg:cpu")
    output(buildah(folder, "from", *image))
    # The image's volumes can take the place of folders that are mounted there (buildah 1.28).
    volumes = [f"--volume={path}-" for path in ("/data", "/work", "/cache")]
    output(buildah(folder, "config", *volumes, "used"))


class Command:
    """A command that runs in the container, with options of ``buildah run``."""

    def __init__(self, folder: Path, words: Sequence[str], options: Sequence[str]) -> None:
        print("$", *words, flush=True)
        self.words, self._began = words, time.monotonic()
        self._pid = folder / "pids" / str(time.monotonic_ns())
        # buildah does not pass signals on to the process in the container.
        with_pid = ("sh", "-c", 'echo $$ >"$0" && exec "$@"', f"/pids/{self._pid.name}")
        options = ["--isolation=chroot", f"--volume={self._pid.parent}:/pids", *options]
        self.process = subprocess.Popen(buildah(folder, "run", *options, "used", *with_pid, *words))

    def interrupt(self) -> None:
        """Send SIGINT, as ``docker stop`` does."""
        os.kill(int(self._pid.read_text()), signal.SIGINT)

    def end(self, expected: int) -> None:
        """Wait until the command ends, with the `expected` exit status."""
        status = self.process.wait()
        if status != expected:
            sys.exit(f"{' '.join(self.words)}: exit status {status}, expected {expected}")
        print(f"  {time.monotonic() - self._began:.0f} s", flush=True)


def interrupt_once(
    folder: Path, words: Sequence[str], options: Sequence[str], pattern: str
) -> None:
    """Interrupt a command once a file in /work is written; the same command must then go on."""
    command = Command(folder, words, options)
    while not (found := list((folder / "work").glob(pattern))):
        if command.process.poll() is not None:
            sys.exit(f"{' '.join(words)}: ended before it could be interrupted")
        time.sleep(0.1)
    command.interrupt()
    command.end(INTERRUPTED)
    before = {path: path.read_bytes() for path in found}
    Command(folder, words, options).end(0)
    for path, content in before.items():
        if not path.read_bytes().startswith(content):
            sys.exit(f"{path}: written again after the interruption")


def use_as_container(folder: Path) -> None:
    """Execute the lines of the demo and others, as ``docker run`` does."""
    options = [f"--volume={folder}/{name}:/{name}" for name in ("work", "cache")]
    options.append(f"--volume={folder}/data:/data:ro")
    Command(folder, ["sh", "-c", "[ $(id -u) = 1000 ] && ! touch /data/x"], options).end(0)
    Command(folder, ["prep", "doctor"], options).end(0)
    embed = "prep embed /data --features musicnn --output embeddings"
    Command(folder, embed.split(), options).end(0)
    for words in demo_lines((ROOT / "Makefile").read_text()):
        if words[:2] == ["prep", "extract"]:
            interrupt_once(folder, words, options, "demo/native/musicnn/*.h5")
        elif words[-1] == "conreg":
            interrupt_once(folder, words, options, "runs/demo-conreg*/metrics.csv")
        else:
            Command(folder, words, options).end(0)


def use_as_services(folder: Path) -> None:
    """Execute the commands of the Compose file on its scheduler and two workers."""
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    places = {"DATA": "data", "WORK": "compose", "CACHE": "cache"}
    variables = {f"FEATREG_{name}": f"{folder}/{path}" for name, path in places.items()}

    def start(name: str, line: str = "") -> Command:
        words = [*services[name].get("entrypoint", []), *services[name].get("command", [])]
        options = service_options(services[name], variables)
        return Command(folder, [*words, *line.split()], options)

    cluster = [start(name) for name in ("scheduler", "worker", "worker")]
    address = "--scheduler tcp://scheduler:8786"
    start("prep", f"extract --dataset demo --features musicnn {address}").end(0)
    start("prep", f"align --dataset demo --resolution 0.1 {address}").end(0)
    start("train", "run --dataset demo --reg conreg --epochs 2").end(0)
    for command in reversed(cluster):
        command.interrupt()
        command.end(0)


def use(folder: Path) -> None:
    """Use the image, with no network but that of the machine with itself."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in ("data", "work", "cache", "compose", "pids"):
        (folder / name).mkdir()
        os.chown(folder / name, 1000, 1000)
    for path in sorted(CLIPS.glob("*.ogg"))[:2]:
        shutil.copy(path, folder / "data")
    use_as_container(folder)
    use_as_services(folder)


def check(python: str) -> None:
    """Build and use the image, each in namespaces of its own, so that nothing stays behind."""
    missing = [name for name in ("buildah", "debootstrap", "ip") if not shutil.which(name)]
    if os.getuid() or missing:
        needed = f"root on Debian, with {', '.join(missing)}" if missing else "root"
        sys.exit(f"the image cannot be built here: it requires {needed}")
    again = [sys.executable, __file__, "--python", python]
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with tempfile.TemporaryDirectory(prefix="image-check-") as folder:
        environment = {**os.environ, "TMPDIR": folder}
        for command in (
            [*alone, *again, "--build", folder],
            [*alone, "--net", *again, "--use", folder],
        ):
            if status := subprocess.run(command, env=environment).returncode:
                sys.exit(status)
    print("the image works")


def main() -> None:
    """Do what the command line says; the hidden options name the folder for one of the parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    text = "version of the official Python image; debian: Debian's Python (default)"
    parser.add_argument("--python", metavar="VERSION", default=DEBIAN, help=text)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.build, arguments.python)
    elif arguments.use:
        use(arguments.use)
    else:
        check(arguments.python)


if __name__ == "__main__":
    main()
