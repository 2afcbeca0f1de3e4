"""``model.safetensors``: the weights of a model, and everything needed to use them.

A safetensors file with the metadata ``format`` ("featreg-model"), ``version``, ``card`` (the
fields of `Card` as JSON) and ``sha256`` (checksum of card and weights). A model that was trained
with a regularizer has the same card as a baseline: it needs no features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from featreg.datasets.audio.decode import Resampler
from featreg.datasets.base import FeatregError, Task
from featreg.datasets.shards.aligned import AlignedHeader
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.config import Config
from ..data.crops import Scaling
from ..models.base import Tagger
from ..models.probe import Probe
from ..models.registry import build_encoder, build_tagger
from ..training.build import encoder_options
from ..training.run_files import damaged

FORMAT, VERSION = "featreg-model", "2"


@dataclass(frozen=True, slots=True)
class Card:
    """Description of a model: its network, input and output.

    Attributes
    ----------
    name
        Name of the run that trained it.
    encoder, encoder_options
        A name in ``models.registry.ENCODERS``, and its keyword arguments; for a probe, ``none``
        and the keyword arguments of `models.probe.Probe`.
    fusion
        A name in ``models.registry.FUSIONS``, or ``probe``.
    classes, task
        Class names and kind of task.
    sample_rate
        Sample rate of the input, in Hz.
    samples
        Length of a chunk, in samples.
    chunks
        Number of chunks per clip whose probabilities are averaged.
    resolution_s
        Seconds per aligned frame; chunks start at frame boundaries, as in evaluation.
    notes
        Sentences to print beside every result.
    features
        Description of each feature that the model needs at inference, from the aligned
        shards: the extractor's ``request`` (``NAME=SCHEME:SOURCE`` or ``MODULE:CLASS``, absent
        for the features of featreg), ``settings``, ``weights_sha256``, ``sample_rate``, ``dim``
        and time grid. Empty, and not written, if the model needs only audio.
    mode
        Mode of the alignment of the features, a name in ``resample_frames.MODES``; not written
        without features.
    feature_mean, feature_std
        Standardization of the aligned features, one number per dimension; empty for none, and
        not written without features.
    resampler
        Resampler of the training audio, a name in ``datasets.audio.decode.RESAMPLERS``.
    """

    name: str
    encoder: str
    encoder_options: Mapping[str, Any]
    fusion: str
    classes: tuple[str, ...]
    task: Task
    sample_rate: int
    samples: int
    chunks: int
    resolution_s: float
    notes: tuple[str, ...] = ()
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resampler: Resampler = "soxr_hq"
    mode: str = ""
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, name: str, config: Config, header: AlignedHeader, scaling: Scaling | None = None
    ) -> Card:
        """Return the card of the model of `config`, trained on shards with `header`.

        `scaling` is the standardization of the features, if there is one.
        """
        needed = config.features if config.fusion != "none" else ()
        if not needed:
            scaling = None
        options = encoder_options(config.recipe, header.audio_rate)
        return cls(
            name=name,
            encoder=config.recipe.encoder,
            encoder_options=options,
            fusion=config.fusion,
            classes=header.classes,
            task=cast(Task, header.task),
            sample_rate=header.audio_rate,
            samples=options["samples"],
            chunks=config.recipe.chunks,
            resolution_s=header.resolution_s,
            notes=header.notes,
            features={feature: dict(header.features[feature]) for feature in needed},
            resampler=header.audio_settings.get("resampler", "soxr_hq"),
            mode=header.mode if needed else "",
            feature_mean=tuple(scaling.mean.tolist()) if scaling else (),
            feature_std=tuple(scaling.std.tolist()) if scaling else (),
        )

    def to_json(self) -> str:
        """Return the card as JSON, which `from_json` reads."""
        values = dataclasses.asdict(self)
        if not self.features:
            for key in ("features", "mode", "feature_mean", "feature_std"):
                del values[key]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Return the card that `to_json` wrote."""
        values = json.loads(text)
        for key in ("classes", "notes", "feature_mean", "feature_std"):
            values[key] = tuple(values.get(key, ()))
        return cls(**values)

    @property
    def feature_dim(self) -> int:
        """B_F, total dimensions of the features."""
        return sum(int(feature["dim"]) for feature in self.features.values())

    @property
    def frame_samples(self) -> int:
        """Hop of the aligned frames, in samples of audio."""
        return round(self.resolution_s * self.sample_rate)

    @property
    def method(self) -> str:
        """The method as in messages, such as ``--fusion concat``."""
        return "a probe" if self.fusion == "probe" else f"--fusion {self.fusion}"

    def build(self) -> Tagger:
        """Build the model with newly initialized weights."""
        if self.fusion == "probe":
            return Probe(self.feature_dim, len(self.classes), **self.encoder_options)
        encoder = build_encoder(self.encoder, **self.encoder_options)
        return build_tagger(self.fusion, encoder, self.feature_dim, len(self.classes))


def write_model(path: Path, tagger: Tagger, card: Card) -> None:
    """Write weights and card, atomically."""
    weights = {name: values.contiguous().cpu() for name, values in tagger.state_dict().items()}
    text = card.to_json()
    checksum = _checksum(text, weights)
    metadata = {"format": FORMAT, "version": VERSION, "card": text, "sha256": checksum}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, metadata))  # save_file sets mode 600


def read_model(path: Path) -> tuple[Tagger, Card]:
    """The model that `write_model` wrote, on the CPU, in evaluation mode.

    Raises
    ------
    FeatregError
        If the file is missing, broken, or of another format or version.
    """
    if not path.is_file():
        raise FeatregError(f"{path}: no such file; `train run` resumes an unfinished run")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises many kinds
        raise damaged(path, f"not a readable safetensors file ({error})") from None
    found = (metadata.get("format", "no format"), metadata.get("version", "?"))
    if found != (FORMAT, VERSION):
        raise FeatregError(
            f"{path}: expected {FORMAT} version {VERSION}, found {found[0]} version {found[1]}; "
            "use the featreg that wrote it, or train again with --fresh"
        )
    text = metadata.get("card", "")
    if metadata.get("sha256") != _checksum(text, weights):
        raise damaged(path, "damaged or changed since it was written (wrong checksum)")
    try:
        card = Card.from_json(text)
        with torch.random.fork_rng(devices=[]):  # initialization draws random numbers
            tagger = card.build()
        tagger.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise damaged(path, f"its weights do not fit its description ({reason})") from None
    return tagger.eval(), card


def _checksum(card: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the card and of the names, types, shapes and values of the weights."""
    digest = hashlib.sha256(card.encode())
    for name, values in sorted(weights.items()):
        digest.update(f"\n{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
