"""``prep weights``: what trained weights there are, and bringing, converting, checking them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import Commands, warn


@click.group(cls=Commands)
def weights() -> None:
    """Trained weights: list, fetch, convert, verify.

    They come on first use; these commands bring them beforehand, and say what is here.
    FEATREG_WEIGHTS names a folder in which to look for them first, and
    FEATREG_WEIGHTS_URL a mirror that holds them under their published names.

    \b
    Example:
        prep weights fetch openl3-mel256-music
    """


@weights.command("list")
def list_() -> None:
    """Print every name with its state, size, licence, source and hash.

    \b
    Example:
        prep weights list
    """
    from ..weights.cache import whereabouts
    from ..weights.registry import WEIGHTS

    for known in WEIGHTS.values():
        click.echo(f"{known.name:20} {whereabouts(known) or 'missing'}; licence {known.licence}")
        for item in known.published:
            click.echo(f"    {item.source}")
            checksum = item.checksum or "no published hash: recorded at the first fetch"
            click.echo(f"        about {item.megabytes:g} MB, {checksum}")


@weights.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="All that have an address.")
def fetch(names: tuple[str, ...], everything: bool) -> None:
    """Bring weights here before they are needed, such as to a machine without a network.

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
        known(name)  # a wrong name ends it before the first download
    _each(names, lambda name: click.echo(f"{name:20} {locate(name, {})}"))


@weights.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Safetensors file to write.  [default: one in the user's cache, found from then on]",
)
def convert(name: str, file: Path, output: Path | None) -> None:
    """Convert FILE, as its authors published it, to the safetensors file that extraction reads.

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
    """Check the weights that are here against their hashes, and VGGish by its own numbers.

    The self-check of VGGish is the one published with it: the mean and deviation of its
    embeddings of a sine.

    \b
    Example:
        prep weights verify
    """
    from ..weights.cache import locate, whereabouts
    from ..weights.convert import check_content
    from ..weights.registry import WEIGHTS, known
    from ..weights.self_check import vggish_self_check

    here = [name for name in names or WEIGHTS if whereabouts(known(name))]
    if missing := set(names) - set(here):
        fetch = "prep weights fetch brings them"
        raise FeatregError(f"not here: {', '.join(sorted(missing))}; {fetch}")

    def check(name: str) -> None:
        path = locate(name, {})
        click.echo(f"{name:20} {check_content(path)}: {path}")

    _each(here, check)
    if {"vggish", "vggish_pca"} <= set(here):
        for line in vggish_self_check(locate("vggish", {}), locate("vggish_pca", {})):
            click.echo(f"{'self-check':20} {line}")


def _each(names: Iterable[str], action: Callable[[str], None]) -> None:
    """Do all, name what fails as it fails, and fail in the end if any did."""
    failed = []
    for name in names:
        try:
            action(name)
        except FeatregError as error:
            warn(f"{name}: {error}")
            failed.append(name)
    if failed:
        raise FeatregError(f"failed: {', '.join(failed)}")
