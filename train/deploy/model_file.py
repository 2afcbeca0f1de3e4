"""``model.safetensors``: the weights of a model, and all that it takes to use them.

A safetensors file whose metadata hold, as strings, ``format`` ("featreg-model"),
``version``, ``card``: the fields of `Card` as JSON, and ``sha256``: the checksum of card
and weights. Of a model that was trained with
a regularizer it says what it says of the plain model: nothing about features.
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

from ..config.presets import Config
from ..models.base import Tagger
from ..models.registry import build_encoder, build_tagger
from ..training.build import encoder_options
from ..training.run_files import damaged

FORMAT, VERSION = "featreg-model", "2"


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is, hears, and says.

    Attributes
    ----------
    name
        Of the run that trained it.
    encoder, encoder_options
        A name in ``models.registry.ENCODERS``, and its keyword arguments.
    fusion
        A name in ``models.registry.FUSIONS``.
    classes, task
        What its outputs mean.
    sample_rate
        Of the audio it hears, in Hz.
    samples
        Length of a piece of audio that it judges.
    chunks
        Pieces of a clip, whose probabilities are averaged.
    resolution_s
        Seconds a row: pieces start at borders of rows, as in evaluation.
    notes
        Sentences that must stand beside every result.
    features
        What the aligned shards say of each feature beside the audio that it needs;
        empty, and not written, for a model that hears audio alone.
    resampler
        What brought the audio to `sample_rate`: a name in ``datasets.audio.RESAMPLERS``.
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

    @classmethod
    def of(cls, name: str, config: Config, header: AlignedHeader) -> Card:
        """The card of the model that `config` describes, on shards with `header`."""
        needed = config.features if config.fusion != "none" else ()
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
        )

    def to_json(self) -> str:
        """As JSON; `from_json` reads it back."""
        values = dataclasses.asdict(self)
        if not self.features:
            del values["features"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card that `to_json` wrote."""
        values = json.loads(text)
        values.update(classes=tuple(values["classes"]), notes=tuple(values["notes"]))
        return cls(**values)

    def build(self) -> Tagger:
        """The model, with fresh weights."""
        encoder = build_encoder(self.encoder, **self.encoder_options)
        dim = sum(int(feature["dim"]) for feature in self.features.values())
        return build_tagger(self.fusion, encoder, dim, len(self.classes))

    def require_audio_alone(self, purpose: str) -> None:
        """Refuse a model that needs more than audio.

        Parameters
        ----------
        purpose
            What it was to be used for, for the message.

        Raises
        ------
        FeatregError
            If it needs features.
        """
        if self.features:
            raise FeatregError(
                f"{self.name}: --fusion {self.fusion} needs the features "
                f"{'+'.join(self.features)} beside the audio, {purpose} has audio alone; use a "
                "model trained with --reg, or `train eval` on aligned shards"
            )


def write_model(path: Path, tagger: Tagger, card: Card) -> None:
    """Write weights and card, atomically."""
    weights = {name: values.contiguous().cpu() for name, values in tagger.state_dict().items()}
    text = card.to_json()
    checksum = _checksum(text, weights)
    metadata = {"format": FORMAT, "version": VERSION, "card": text, "sha256": checksum}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, metadata))  # save_file would let nobody else read it


def read_model(path: Path) -> tuple[Tagger, Card]:
    """The model that `write_model` wrote, on the CPU, in evaluation mode.

    Raises
    ------
    FeatregError
        If the file is missing, broken, or of another format or version.
    """
    if not path.is_file():
        raise FeatregError(f"{path}: no such file; is the run finished? (`train run` goes on)")
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
        with torch.random.fork_rng(devices=[]):  # fresh weights would draw from the caller's
            tagger = card.build()
        tagger.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise damaged(path, f"its weights do not fit its description ({reason})") from None
    return tagger.eval(), card


def _checksum(card: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a card and of the names, types, shapes and values of weights."""
    digest = hashlib.sha256(card.encode())
    for name, values in sorted(weights.items()):
        digest.update(f"\n{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
