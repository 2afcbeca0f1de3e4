"""``prep features``: describe features and the models that compute them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from featreg.datasets.base import UsageError

if TYPE_CHECKING:
    from ..extractors.base import Extractor

# Duration of the noise on which the cost is measured, in seconds.
MEASURED_S = 30


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the cost on this machine, for features whose weights are present.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FEATURE.KEY=VALUE",
    help="Setting of a feature; may be repeated.",
)
def features(names: tuple[str, ...], measure: bool, assignments: tuple[str, ...]) -> None:
    """List features: dimension, hop, sample rate, training data, license, weights.

    NAME is any request of prep extract --features; the default is all features of featreg and of
    installed packages. The first weights are those of the settings, the others are those of other
    settings. The cost is the processor time per hour of audio, without decoding, measured with one
    thread on 30 s of noise.

    \b
    Example:
        prep features
        prep features efficientat --measure --set efficientat.model=mn04
        prep features speech=hf:facebook/wav2vec2-base
    """
    from ..extractors.feature_options import parse_settings
    from ..extractors.registry import find_sources, known_features

    settings = parse_settings(assignments)
    sources = find_sources(names or known_features(), settings)
    for name in settings:
        if name not in sources:
            raise UsageError(f"--set {name}.…: {name} is not among {', '.join(sources)}")
    for name, source in sources.items():
        _describe(name, source, settings.get(name, {}), measure)


def _describe(name: str, source: str, settings: Mapping[str, str], measure: bool) -> None:
    """Print the description of a feature."""
    from ..extractors.registry import build_extractors, make_config, make_spec
    from ..weights.cache import whereabouts
    from ..weights.registry import WEIGHTS

    config = make_config(name, settings, source=source)
    spec = make_spec(name, source, config, {}, "cpu", "float32", fetch=False)
    (extractor,) = build_extractors([spec])
    dimensions = "1 dimension" if extractor.dim == 1 else f"{extractor.dim} dimensions"
    click.echo(
        f"{click.style(name, bold=True)}: {dimensions} every {extractor.timing.hop_s:g} s, "
        f"from audio at {extractor.sample_rate:,} Hz"
    )
    lines = []
    if needed := [WEIGHTS[each] for each in extractor.weight_names(extractor.config)]:
        families = {each.family for each in needed}
        others = [each for each in WEIGHTS.values() if each.family in families]
        lines += [
            ("trained on", needed[0].trained_on),
            ("citation", needed[0].citation),
            ("license", needed[0].licence),
            *(
                ("weights", f"{each.name}, {each.published[0].megabytes:g} MB, {where}")
                for each in dict.fromkeys([*needed, *others])
                for where in [whereabouts(each) or "not present"]
            ),
        ]
    if measure and not extractor.missing_weights:
        seconds = f"{core_seconds(extractor):,.1f} core seconds per hour of audio"
        lines.append(("cost", seconds))
    for title, text in lines:
        click.echo(f"  {title:<10} {text}")


def core_seconds(extractor: Extractor) -> float:
    """Measured processor time of an extractor per hour of audio, in seconds."""
    import numpy as np

    count = MEASURED_S * extractor.sample_rate
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, count).astype(np.float32)
    extractor.extract(noise[: extractor.sample_rate])  # loads the network
    begin = time.process_time()
    extractor.extract(noise)
    return (time.process_time() - begin) * 3600 / MEASURED_S
