"""Location of trained weights on this machine.

Weights are searched in this order: the file given with ``--weights``; the folder given by
``FEATREG_WEIGHTS``; this package; the user's cache; the published address. Files of other formats
than safetensors are converted on first use; the converted file is kept in the cache, and its name
contains the hash of the source.
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
    """Parse options ``NAME=FILE`` to ``{name: file}``.

    Raises
    ------
    UsageError
        If an option has another form, its name is unknown, or its file does not exist.
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
            raise UsageError(f"--weights {assignment}: file not found")
    return overrides


def locate(name: str, overrides: Mapping[str, Path]) -> Path:
    """The safetensors file with the weights `name`, downloaded and converted if necessary.

    Parameters
    ----------
    name
        Name of the weights, a key of `WEIGHTS`.
    overrides
        Files to use instead of the published ones, by name or by family.

    Raises
    ------
    UsageError
        If there are no weights of this name.
    FeatregError
        If the file cannot be downloaded, differs from the published one, or does not contain
        these weights.
    """
    weights = known(name)
    given = _overriding(weights, overrides) or _in_folder(weights)
    if given:
        return adopt(weights, given)
    return _in_place(weights) or _obtain(weights)


def is_here(name: str, overrides: Mapping[str, Path]) -> bool:
    """Whether `locate` would find these weights without a download."""
    weights = known(name)
    return bool(_overriding(weights, overrides) or whereabouts(weights))


def whereabouts(weights: Weights) -> str | None:
    """Description of the location of `weights`; None if they have to be downloaded."""
    if path := _in_folder(weights):
        return f"in FEATREG_WEIGHTS: {path}"
    if path := _in_place(weights):
        return f"{'shipped' if path == weights.shipped else 'cached'}: {path}"
    if path := _put_by_hand(weights):
        return f"converted on first use: {path}"
    return None


def adopt(weights: Weights, file: Path, output: Path | None = None) -> Path:
    """Convert `file` to a safetensors file, unless it is one already.

    The file may differ from the published one, for example if the user trained the network. This
    is printed, and every shard stores the hash of the weights.

    Parameters
    ----------
    weights
        Weights that the file contains.
    file
        File in any published format of these weights, or a safetensors file.
    output
        Path of the converted file; in the cache if None.
    """
    if not (file.is_file() or file.is_dir()):
        raise FeatregError(f"{file}: expected a file or folder with weights, found neither")
    if file.suffix == ".safetensors" and output is None:
        check_weights(weights.name, file)
        return file
    source = next((p.checksum for p in weights.published if p.checksum and _is(p, file)), None)
    if source is None:
        source = Checksum("sha256", source_sha256(file))
        say(f"{weights.name}: {file} is not a published file ({source}); using it nevertheless")
    target = output or _conversion(weights, source)
    if output or not target.is_file():
        convert(weights.name, file, target)
    return target


def _overriding(weights: Weights, overrides: Mapping[str, Path]) -> Path | None:
    """The file that the user gave for `weights`, if any."""
    return overrides.get(weights.name) or overrides.get(weights.family)


def _in_folder(weights: Weights) -> Path | None:
    """The file with `weights` in the folder ``FEATREG_WEIGHTS``, if any."""
    if not (folder := os.environ.get("FEATREG_WEIGHTS")):
        return None
    if not Path(folder).is_dir():
        raise FeatregError(f"FEATREG_WEIGHTS={folder}: no such folder")
    names = (f"{weights.name}.safetensors", *(p.file for p in weights.published), weights.unpacked)
    return next((Path(folder, n) for n in names if n and Path(folder, n).exists()), None)


def _in_place(weights: Weights) -> Path | None:
    """The file in this package, or the converted file in the cache, if any."""
    candidates = (weights.shipped, *(_published_conversion(weights, p) for p in weights.published))
    return next((path for path in candidates if path.is_file()), None)


def _conversion(weights: Weights, source: Checksum) -> Path:
    return cache() / f"{weights.name}-{source.value[:16]}.safetensors"


def _published_conversion(weights: Weights, published: Published) -> Path:
    if published.checksum:
        return _conversion(weights, published.checksum)
    return cache() / f"{weights.name}-{Path(published.file).stem}.safetensors"


def _put_by_hand(weights: Weights) -> Path | None:
    """The published file in the cache, where the user may put it by hand."""
    candidates = ((p, cache() / p.file) for p in weights.published)
    return next((file for published, file in candidates if _is(published, file)), None)


def _is(published: Published, file: Path) -> bool:
    """Whether `file` has the published hash, if there is one."""
    return file.is_file() and (published.checksum is None or published.checksum.matches(file))


def _obtain(weights: Weights) -> Path:
    """Download the published file, convert it, and delete it afterwards."""
    folder = cache()
    remedy = (
        "set XDG_CACHE_HOME to another folder for weights, or FEATREG_WEIGHTS to a folder with them"
    )
    with locked(folder / f".{weights.name}.lock", remedy):
        if found := _in_place(weights):  # another process was faster
            return found
        if file := _put_by_hand(weights):
            return adopt(weights, file)
        published = weights.published[0]
        if published.url is None:
            raise FeatregError(
                f"{weights.name}: {published.file} cannot be downloaded automatically; run "
                f"`{published.source}` and `prep weights convert {weights.name} {published.file}`"
            )
        file = fetch(published.url, folder / published.file, checksum=published.checksum)
        if published.checksum:
            path = adopt(weights, file)
        else:
            path = _published_conversion(weights, published)
            convert(weights.name, file, path)
            say(
                f"{weights.name}: no hash of {file.name} is published, so the download is not "
                f"verified; its sha256 {source_sha256(file)} is recorded in {path}"
            )
        file.unlink()
        return path
