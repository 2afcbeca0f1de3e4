"""``prep weights``: list, fetch, convert and verify trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import Commands, warn


@click.group(cls=Commands)
def weights() -> None:
    """List, fetch, convert and verify trained weights.

    Weights are downloaded on first use; these commands download them in advance. featreg
    first searches the folder FEATREG_WEIGHTS. FEATREG_WEIGHTS_URL names a mirror with the
    published file names.

    \b
    Example:
        prep weights fetch openl3-mel256-music
    """


@weights.command("list")
def list_() -> None:
    """Print every name with its location, license, source, size and hash.

    \b
    Example:
        prep weights list
    """
    from ..weights.cache import whereabouts
    from ..weights.registry import WEIGHTS

    for known in WEIGHTS.values():
        click.echo(f"{known.name:20} {whereabouts(known) or 'missing'}; license {known.licence}")
        for item in known.published:
            click.echo(f"    {item.source}")
            checksum = item.checksum or "no published hash; the first download is recorded"
            click.echo(f"        about {item.megabytes:g} MB, {checksum}")


@weights.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="Fetch all weights that have an address.")
def fetch(names: tuple[str, ...], everything: bool) -> None:
    """Download weights in advance, for example for machines without a network.

    \b
    Example:
        prep weights fetch vggish vggish_pca
    """
    from ..weights.cache import locate
    from ..weights.registry import WEIGHTS, known

    if everything == bool(names):
        raise UsageError("prep weights fetch: expected names, or --all")
    if everything:
        names = tuple(name for name in WEIGHTS if known(name).published[0].url)
    for name in names:
        known(name)  # raise an error for a wrong name before the first download
    _each(names, lambda name: click.echo(f"{name:20} {locate(name, {})}"))


@weights.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Safetensors file to write.  [default: in the user's cache, where extraction finds it]",
)
def convert(name: str, file: Path, output: Path | None) -> None:
    """Convert a published FILE to the safetensors file that extraction reads.

    FILE is a TensorFlow checkpoint of VGGish, a .pth of torchvggish, the .npz of VGGish's
    PCA, a Keras .h5 or .h5.gz of OpenL3, the wheel of musicnn, or a .pt of EfficientAT.

    \b
    Example:
        prep weights convert musicnn-msd musicnn-0.1.0-py3-none-any.whl --output msd.safetensors
    """
    from ..weights.cache import adopt
    from ..weights.registry import known

    click.echo(adopt(known(name), file, output))


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Check local weights against their hashes, and VGGish with its published self-check.

    The self-check compares the mean and standard deviation of VGGish's embeddings of a sine
    with the published values.

    \b
    Example:
        prep weights verify
    """
    from ..weights.cache import locate, whereabouts
    from ..weights.convert import check_content
    from ..weights.registry import WEIGHTS, known
    from ..weights.self_check import vggish_self_check

    present = [name for name in names or WEIGHTS if whereabouts(known(name))]
    if missing := set(names) - set(present):
        fetch = "download them with prep weights fetch"
        raise FeatregError(f"weights not found: {', '.join(sorted(missing))}; {fetch}")

    def check(name: str) -> None:
        path = locate(name, {})
        click.echo(f"{name:20} {check_content(path)}: {path}")

    _each(present, check)
    if {"vggish", "vggish_pca"} <= set(present):
        for line in vggish_self_check(locate("vggish", {}), locate("vggish_pca", {})):
            click.echo(f"{'self-check':20} {line}")


def _each(names: Iterable[str], action: Callable[[str], None]) -> None:
    """Run `action` for every name; report failures and raise at the end if there were any."""
    failed = []
    for name in names:
        try:
            action(name)
        except FeatregError as error:
            warn(f"{name}: {error}")
            failed.append(name)
    if failed:
        raise FeatregError(f"failed: {', '.join(failed)}")
