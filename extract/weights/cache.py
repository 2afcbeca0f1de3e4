"""Which trained weights there are, and where each of them is on this machine.

Looked for in this order: the file given with ``--weights``; the folder that
``FEATREG_WEIGHTS`` names; this package; the user's cache; the published address. What is
not a safetensors file is converted on first use, and the conversion stays in the cache,
under a name that holds the hash of what it was made from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pooch

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections.fetch import Checksum, fetch
from featreg.datasets.console import say
from featreg.datasets.locks import locked

from .convert import check_weights, convert, source_sha256
from .registry import WEIGHTS, Published, Weights, known


def cache() -> Path:
    """The user's folder for downloaded and converted weights."""
    return Path(pooch.os_cache("featreg")) / "weights"


def parse_overrides(assignments: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` options as ``{name: file}``.

    Raises
    ------
    UsageError
        If the form is another, the name unknown, or there is no such file.
    """
    names = sorted({weights.family for weights in WEIGHTS.values()} | WEIGHTS.keys())
    overrides = {}
    for assignment in assignments:
        name, _, file = assignment.partition("=")
        if name not in names or not file:
            raise UsageError(
                f"--weights {assignment}: expected NAME=FILE, NAME one of {', '.join(names)}"
            )
        overrides[name] = Path(file).expanduser()
        if not overrides[name].exists():
            raise UsageError(f"--weights {assignment}: there is no such file")
    return overrides


def locate(name: str, overrides: Mapping[str, Path]) -> Path:
    """The safetensors file with the weights `name`, fetched and converted if need be.

    Parameters
    ----------
    name
        A key of `WEIGHTS`.
    overrides
        Files that take the place of the published ones, by name or by family.

    Raises
    ------
    UsageError
        If there are no weights of this name.
    FeatregError
        If the file cannot be had, is not what was published, or does not hold these
        weights.
    """
    weights = known(name)
    given = _overriding(weights, overrides) or _in_folder(weights)
    if given:
        return adopt(weights, given)
    return _in_place(weights) or _obtain(weights)


def is_here(name: str, overrides: Mapping[str, Path]) -> bool:
    """Whether `locate` would find these weights without fetching them."""
    weights = known(name)
    return bool(_overriding(weights, overrides) or whereabouts(weights))


def whereabouts(weights: Weights) -> str | None:
    """Where `weights` are, in words; None where they would have to be fetched."""
    if path := _in_folder(weights):
        return f"in FEATREG_WEIGHTS: {path}"
    if path := _in_place(weights):
        return f"{'shipped' if path == weights.shipped else 'cached'}: {path}"
    if path := _put_by_hand(weights):
        return f"converted on first use: {path}"
    return None


def adopt(weights: Weights, file: Path, output: Path | None = None) -> Path:
    """`file` as a safetensors file: itself if it is one, else its conversion.

    The file need not be the published one: people train their own. A line says so, and
    the hash of what was used goes into every shard.

    Parameters
    ----------
    weights
        What the file holds.
    file
        In any published format of these weights, or a safetensors file.
    output
        Where the conversion goes; None keeps it in the cache.
    """
    if not (file.is_file() or file.is_dir()):
        raise FeatregError(f"{file}: expected a file or folder with weights, found neither")
    if file.suffix == ".safetensors" and output is None:
        check_weights(weights.name, file)
        return file
    source = next((p.checksum for p in weights.published if p.checksum and _is(p, file)), None)
    if source is None:
        source = Checksum("sha256", source_sha256(file))
        say(f"{weights.name}: {file} is not a published file ({source}); using it as it is")
    target = output or _conversion(weights, source)
    if output or not target.is_file():
        convert(weights.name, file, target)
    return target


def _overriding(weights: Weights, overrides: Mapping[str, Path]) -> Path | None:
    """The file that the user gave for `weights`, if any."""
    return overrides.get(weights.name) or overrides.get(weights.family)


def _in_folder(weights: Weights) -> Path | None:
    """The file in the folder ``FEATREG_WEIGHTS`` that holds `weights`, if there is one."""
    if not (folder := os.environ.get("FEATREG_WEIGHTS")):
        return None
    if not Path(folder).is_dir():
        raise FeatregError(f"FEATREG_WEIGHTS={folder}: there is no such folder")
    names = (f"{weights.name}.safetensors", *(p.file for p in weights.published), weights.unpacked)
    return next((Path(folder, n) for n in names if n and Path(folder, n).exists()), None)


def _in_place(weights: Weights) -> Path | None:
    """The shipped file, or the conversion of a published one in the cache, if there is one."""
    candidates = (weights.shipped, *(_published_conversion(weights, p) for p in weights.published))
    return next((path for path in candidates if path.is_file()), None)


def _conversion(weights: Weights, source: Checksum) -> Path:
    return cache() / f"{weights.name}-{source.value[:16]}.safetensors"


def _published_conversion(weights: Weights, published: Published) -> Path:
    if published.checksum:
        return _conversion(weights, published.checksum)
    return cache() / f"{weights.name}-{Path(published.file).stem}.safetensors"


def _put_by_hand(weights: Weights) -> Path | None:
    """The published file in the cache, where a message told the user to put it."""
    candidates = ((p, cache() / p.file) for p in weights.published)
    return next((file for published, file in candidates if _is(published, file)), None)


def _is(published: Published, file: Path) -> bool:
    """Whether `file` has the published hash, if there is one."""
    return file.is_file() and (published.checksum is None or published.checksum.matches(file))


def _obtain(weights: Weights) -> Path:
    """Fetch the published file, convert it, and keep the conversion only."""
    folder = cache()
    remedy = (
        "XDG_CACHE_HOME names another place for weights, FEATREG_WEIGHTS a folder that has them"
    )
    with locked(folder / f".{weights.name}.lock", remedy):
        if found := _in_place(weights):  # another process was faster
            return found
        if file := _put_by_hand(weights):
            return adopt(weights, file)
        published = weights.published[0]
        if published.url is None:
            raise FeatregError(
                f"{weights.name}: {published.file} has no address to be fetched from; run "
                f"`{published.source}` and `prep weights convert {weights.name} {published.file}`"
            )
        file = fetch(published.url, folder / published.file, checksum=published.checksum)
        if published.checksum:
            path = adopt(weights, file)
        else:
            path = _published_conversion(weights, published)
            convert(weights.name, file, path)
            say(
                f"{weights.name}: no hash of {file.name} is known that it could be compared "
                f"with; fetched sha256 {source_sha256(file)}, recorded in {path}"
            )
        file.unlink()
        return path
