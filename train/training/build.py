"""Construction of encoder, objective, devices and precision from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from featreg.datasets.base import FeatregError, UsageError

from ..config.config import Config
from ..config.presets import Recipe
from ..data.aligned_set import AlignedSet, Clips
from ..models.base import Encoder
from ..models.mask import mask_spectrogram
from ..models.registry import build_encoder, build_tagger
from ..regularizers.base import Regularizer
from ..regularizers.combination import Combination
from ..regularizers.registry import build_regularizer, parts_of
from .class_weights import class_weights
from .objective import Objective
from .pretraining import Pretraining


def crop_samples(recipe: Recipe, audio_rate: int) -> int:
    """Return the length of a crop, in samples."""
    return round(recipe.crop_s * audio_rate)


def encoder_options(recipe: Recipe, audio_rate: int) -> dict[str, Any]:
    """Return the keyword arguments of the recipe's encoder."""
    samples = crop_samples(recipe, audio_rate)
    return {"width": recipe.width, "samples": samples, **recipe.encoder_options}


def encoder_of(config: Config, audio_rate: int) -> Encoder:
    """Build the encoder of a configuration, initialized from torch's global generator.

    Raises
    ------
    FeatregError
        If the encoder's sample rate differs from `audio_rate`.
    """
    recipe = config.recipe
    encoder = build_encoder(recipe.encoder, **encoder_options(recipe, audio_rate))
    if encoder.sample_rate != audio_rate:
        raise FeatregError(
            f"--encoder {recipe.encoder} expects audio at {encoder.sample_rate} Hz, but the "
            f"aligned audio of {config.dataset}/{config.aligned} has {audio_rate} Hz"
        )
    if recipe.mask:
        mask_spectrogram(encoder, recipe.mask)
    return encoder


def build_objective(
    config: Config,
    aligned: AlignedSet,
    weights: Mapping[str, Tensor] | None = None,
    labelled: Clips | None = None,
) -> Objective:
    """Build the model and losses of a configuration.

    Parameters
    ----------
    config
        The configuration; the initial weights depend on its seed.
    aligned
        The data.
    weights
        Initial weights of the encoder, if they do not depend on the seed.
    labelled
        Training clips from whose labels the weights of the classes are computed; required if the
        recipe has these.
    """
    torch.manual_seed(config.seed)
    recipe, header, dim = config.recipe, aligned.header, aligned.dim(config.features)
    encoder = encoder_of(config, header.audio_rate)
    tagger = build_tagger(config.fusion, encoder, dim, len(header.classes))
    if weights:
        encoder.load_state_dict(weights)
    # After the model, so that a baseline and a regularized run have the same initial weights.
    regularizer, alpha = _weighted_regularizer(config, dim, encoder.dim)
    balanced = class_weights(labelled, aligned.task) if labelled and recipe.class_weights else None
    return Objective(
        tagger,
        regularizer,
        alpha,
        aligned.task,
        config.unlabelled_batch,
        soft=recipe.mixup > 0,
        smoothing=recipe.label_smoothing,
        weights=balanced,
    )


def _weighted_regularizer(
    config: Config, dim: int, embedding_dim: int
) -> tuple[Regularizer | None, float]:
    """Return a configuration's regularizer and its weight, which is 1 for a combination."""
    parts = [build_regularizer(name, dim, embedding_dim) for name in parts_of(config.reg)]
    found = [part for part in parts if part is not None]
    if len(found) > 1:
        return Combination(found, config.alphas), 1.0
    return (found[0] if found else None), config.alpha


def build_pretraining(config: Config, aligned: AlignedSet) -> Pretraining:
    """Build the encoder and regularizer of a pretraining; the weights depend on its seed."""
    torch.manual_seed(config.seed)
    encoder = encoder_of(config, aligned.header.audio_rate)
    dim = aligned.dim(config.features)
    regularizer, alpha = _weighted_regularizer(config, dim, encoder.dim)
    if regularizer is None:
        raise UsageError("--reg none: pretraining needs a regularizer, such as hint")
    return Pretraining(encoder, regularizer, alpha)


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    UsageError
        If ``cuda`` is requested but not available.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch found no GPU; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return ``float32`` or ``bf16-mixed``.

    ``auto`` becomes ``bf16-mixed`` if the hardware supports bfloat16.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch do not have `get_capabilities`.
        supported: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = supported.get("avx512_bf16") or supported.get("amx_bf16")
    return "bf16-mixed" if fast else "float32"


def require_gpus(devices: int, available: int) -> None:
    """Check that the GPUs for a run are available.

    Raises
    ------
    UsageError
        If `devices` is greater than `available`.
    """
    if devices > available:
        found = "1 GPU is" if available == 1 else f"{available} GPUs are"
        raise UsageError(f"--devices {devices}: only {found} available")


def build_fabric(config: Config, device: str) -> Fabric:
    """Return a Fabric with the devices and precision of a configuration.

    Several devices use distributed data parallel (DDP).

    Raises
    ------
    UsageError
        If not enough GPUs are available, or torchrun started another number of processes.
    """
    if device == "cuda":
        require_gpus(config.devices, torch.cuda.device_count())
    return Fabric(
        accelerator=device,
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        precision="bf16-mixed" if config.recipe.precision == "bf16-mixed" else "32-true",
        plugins=[_launcher(config.devices)],
    )


def _launcher(devices: int) -> ClusterEnvironment:
    """Return the launcher of the other devices' processes: torchrun if used, else device 0.

    Lightning's own detection would treat any Slurm job as a launcher and its tasks as devices;
    here the number of devices depends on ``--devices`` only.
    """
    if devices == 1 or not TorchElasticEnvironment.detect():
        return LightningEnvironment()
    launcher = TorchElasticEnvironment()
    if launcher.world_size() != devices:
        raise UsageError(
            f"--devices {devices}: torchrun started {launcher.world_size()} processes; start one "
            "process per device, on one machine"
        )
    return launcher
