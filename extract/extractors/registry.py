"""The available features, and their specification by command-line options."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from featreg.datasets.base import Content, Dataset, UsageError
from featreg.datasets.console import warn

from .base import Extractor, Precision
from .feature_options import parse_model, parse_names, parse_settings, parse_values

# Imported on demand, because the modules import torch.
FEATURES: dict[str, tuple[str, str]] = {
    "audio": (".waveform", "Waveform"),
    "vggish": (".vggish", "Vggish"),
    "openl3": (".openl3", "OpenL3"),
    "musicnn": (".musicnn", "Musicnn"),
    "efficientat": (".efficientat", "EfficientAT"),
}

# Classes of the features NAME=SCHEME:SOURCE, a model from elsewhere under a name of the user's.
SCHEMES: dict[str, tuple[str, str]] = {
    "hear": (".hear", "Hear"),
    "onnx": (".onnx", "Onnx"),
    "ts": (".torchscript", "TorchScript"),
    "tflite": (".litert", "LiteRT"),
    "hf": (".huggingface", "HuggingFace"),
}

# Entry points by which installed packages add features; the value of each is MODULE:CLASS.
PLUGINS = "featreg.extractors"

# Features whose networks run on the convolutions of `conv.winograd`.
WINOGRAD = ("vggish", "openl3")

# The audio signal, the input of the classifier, is always extracted with the other features.
AUDIO = "audio"

# Source of OpenL3 for each choice of ``--backend``.
BACKENDS = {"torch": "", "openl3": "featreg.extract.extractors.openl3_package:OpenL3Package"}

# Source of a feature whose frames are in a folder; others are MODULE:CLASS and SCHEME:SOURCE.
FOLDER = "folder"


def known_features() -> list[str]:
    """Names of the features of featreg and of installed packages."""
    return list(dict.fromkeys((*FEATURES, *entry_points(group=PLUGINS).names)))


def extractor_class(name: str, source: str = "") -> type[Extractor]:
    """Class of the extractor of a feature.

    Parameters
    ----------
    name
        Name of the feature.
    source
        ``MODULE:CLASS``, ``SCHEME:SOURCE`` or `FOLDER` for a custom feature; empty for one of
        `FEATURES`.

    Raises
    ------
    UsageError
        If there is no such feature.
    """
    if source == FOLDER:
        from .npy_folder import folder_class

        return folder_class(name)
    scheme, _, place = source.partition(":")
    if source and scheme not in SCHEMES:
        from .custom import load_class

        return load_class(source)
    if not source and name not in FEATURES:
        raise UsageError(
            f"--features {name}: no such feature; expected one of {', '.join(known_features())}, "
            "MODULE:CLASS for a class of your own, NAME=SCHEME:SOURCE for a model (schemes: "
            f"{', '.join(SCHEMES)}), or any name for a folder of .npy files with "
            f"--set {name}.folder=DIR and --set {name}.hop=SECONDS"
        )
    module, attribute = SCHEMES[scheme] if source else FEATURES[name]
    found: type[Extractor] = getattr(importlib.import_module(module, __package__), attribute)
    if source:  # the name belongs to the request: two features may use the same class
        attributes = {"name": name, "scheme": scheme, "source": place}
        found = type(found.__name__, (found,), {**attributes, "__module__": found.__module__})
    return found


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Specification of a feature, from which any process can create the extractor.

    Attributes
    ----------
    name
        Name of the feature.
    config
        Instance of the extractor's `Config`. For a user's class, its fields as pairs of name and
        value, so that a Dask scheduler does not have to import the class.
    weights
        Pairs of a name and a safetensors file. Missing weights are omitted, which is possible if
        the feature is only planned.
    device, precision
        See `Extractor`.
    source
        See `extractor_class`.
    learnt
        Pairs of an attribute and its value, from `Extractor.learn`. If there are none, the
        extractor learns them when it is created.
    """

    name: str
    config: Any
    weights: tuple[tuple[str, Path], ...] = ()
    device: str = "cpu"
    precision: Precision = "float32"
    source: str = ""
    learnt: tuple[tuple[str, Any], ...] = ()

    def extractor(self) -> Extractor:
        """The extractor, created once per process."""
        return _build(self)


def build_extractors(specs: Sequence[FeatureSpec], threads: int = 1) -> list[Extractor]:
    """The extractors, created once per process, for `threads` threads of torch."""
    for spec in specs:
        extractor_class(spec.name, spec.source)  # imports torch, if the feature needs it
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return [spec.extractor() for spec in specs]


# Extractors that have learnt, and are about to be taken by `_build`.
_planned: dict[FeatureSpec, Extractor] = {}


@cache
def _build(spec: FeatureSpec) -> Extractor:
    return _planned.pop(spec, None) or _create(spec)


def _create(spec: FeatureSpec) -> Extractor:
    found, config = extractor_class(spec.name, spec.source), spec.config
    with _named_faults(spec.name, spec.source):
        if isinstance(config, tuple):
            config = found.Config(**dict(config))
        extractor = found(config, dict(spec.weights), spec.device, spec.precision)
        extractor.learnt = spec.learnt or tuple(extractor.learn().items())
        for key, value in extractor.learnt:
            setattr(extractor, key, value)
    return extractor


def _named_faults(name: str, source: str) -> AbstractContextManager[None]:
    """Context that converts errors of a user's class or model; see `custom.named_faults`."""
    if ":" not in source:
        return nullcontext()
    from .custom import named_faults

    return named_faults(f"{name}={source}" if source.partition(":")[0] in SCHEMES else source)


def make_specs(
    dataset: Dataset,
    features: str,
    assignments: Sequence[str],
    overrides: Sequence[str],
    device: str,
    precision: Precision,
    backend: str = "torch",
    fetch: bool = True,
) -> tuple[FeatureSpec, ...]:
    """Specifications of the features for the options of ``prep extract``, the audio first.

    Parameters
    ----------
    dataset
        Dataset, whose content determines defaults; see `make_config`.
    features, assignments, overrides
        Values of the options ``--features``, ``--set`` and ``--weights``.
    device, precision
        See `Extractor`.
    backend
        Implementation of OpenL3, one of `BACKENDS`.
    fetch
        Whether to download missing weights; otherwise they are omitted.

    Raises
    ------
    UsageError
        If a feature, a setting or a value is unknown, or the weights were trained on the same
        dataset, so that its test clips would not be unseen.
    """
    from ..weights.cache import parse_overrides

    settings = parse_settings(assignments)
    sources = {AUDIO: "", **find_sources(parse_names(features), settings)}
    if BACKENDS[backend]:
        if "openl3" not in sources:
            raise UsageError(f"--backend {backend}: openl3 is not in --features {features}")
        sources["openl3"] = BACKENDS[backend]
    for name in settings:
        if name not in sources:
            raise UsageError(f"--set {name}.…: {name} is not in --features {features}")
    files = parse_overrides(overrides)
    specs = []
    for name, source in sources.items():
        with _named_faults(name, source):
            config = make_config(name, settings.get(name, {}), dataset.content, source)
            if extractor_class(name, source).trained_on(config) == dataset.name:
                raise UsageError(
                    f"{name} with these settings was trained on {dataset.name}, so the test clips "
                    "are not unseen; select other weights with --set"
                )
            specs.append(make_spec(name, source, config, files, device, precision, fetch))
            if source:
                from .custom import check_complete

                check_complete(f"--features {features}", specs[-1].extractor())
    _build.cache_clear()  # the workers compute: free the networks that had to be loaded to learn
    if device == "cpu" and any(sources.get(name) == "" for name in WINOGRAD):
        import torch

        from ..conv.grouped_matmul import why_slow

        if why := why_slow(getattr(torch, precision)):
            warn(why)
    return tuple(specs)


def make_spec(
    name: str,
    source: str,
    config: Any,
    files: Mapping[str, Path],
    device: str,
    precision: Precision,
    fetch: bool = True,
) -> FeatureSpec:
    """Specification of a feature, with the paths of its weights.

    Parameters
    ----------
    name, source, config
        See `FeatureSpec`.
    files
        Weights to use instead of the published ones, by name or family.
    device, precision
        See `Extractor`.
    fetch
        Whether to download missing weights; otherwise they are omitted.
    """
    from ..weights.cache import is_here, locate

    weights = tuple(
        (key, locate(key, files))
        for key in extractor_class(name, source).weight_names(config)
        if fetch or is_here(key, files)
    )
    if ":" not in source:
        return FeatureSpec(name, config, weights, device, precision, source)
    pairs = tuple((each.name, getattr(config, each.name)) for each in fields(config))
    spec = FeatureSpec(name, pairs, weights, device, precision, source)
    extractor = _create(spec)
    spec = replace(spec, learnt=extractor.learnt)
    _planned[spec] = extractor  # its network is loaded
    spec.extractor()
    _planned.clear()
    return spec


def find_sources(asked: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Name and source of each feature in `asked`, in order.

    Raises
    ------
    UsageError
        If a feature is unknown, or a name is in use or invalid.
    """
    sources: dict[str, str] = {}
    for word in asked:
        name, source = word, ""
        if model := parse_model(word, SCHEMES):
            name, scheme, place = model
            try:
                found = extractor_class(name, f"{scheme}:{place}")
                source = f"{scheme}:{found.resolve(place)}"
            except (UsageError, ImportError) as error:
                raise UsageError(f"--features {word}: {error}") from None
        elif ":" in word:
            name, source = extractor_class("", word).name, word
        elif word not in FEATURES and "folder" in settings.get(word, {}):
            source = FOLDER
        elif word not in FEATURES and (plugin := entry_points(group=PLUGINS, name=word)):
            source = next(iter(plugin)).value
            if (own := extractor_class("", source).name) != word:
                own_name = f"the class {source} of an installed package has the name {own!r}"
                raise UsageError(f"--features {word}: {own_name}")
        else:
            extractor_class(word)
        if name in sources:
            raise UsageError(f"--features: {name} is given twice")
        if source:
            from .custom import check_name

            check_name(f"--features {word}", name, FEATURES)
        sources[name] = source
    return sources


def make_config(
    name: str, values: Mapping[str, str], content: Content = "music", source: str = ""
) -> Any:
    """The `Config` of a feature.

    Parameters
    ----------
    name, source
        See `extractor_class`.
    values
        Settings given by ``--set``, by key.
    content
        Default of OpenL3's ``content_type``.

    Raises
    ------
    UsageError
        If a key or value is unknown; the message lists the valid ones.
    """
    config = extractor_class(name, source).Config
    chosen = parse_values(name, config, values)
    if "content_type" in (each.name for each in fields(config)):
        chosen.setdefault("content_type", content)
    if source == FOLDER:
        from .npy_folder import complete

        return complete(name, config(**chosen))
    return config(**chosen)
