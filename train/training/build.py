"""From a configuration to what it describes: model, objective, devices."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from featreg.datasets.base import FeatregError, UsageError

from ..config.presets import Config, Recipe
from ..data.aligned_set import AlignedSet
from ..models.base import Encoder
from ..models.registry import build_encoder, build_tagger
from ..regularizers.registry import build_regularizer
from .objective import Objective


def crop_samples(recipe: Recipe, audio_rate: int) -> int:
    """Length of a crop."""
    return round(recipe.crop_s * audio_rate)


def encoder_options(recipe: Recipe, audio_rate: int) -> dict[str, Any]:
    """Keyword arguments of the recipe's encoder."""
    samples = crop_samples(recipe, audio_rate)
    return {"width": recipe.width, "samples": samples, **recipe.encoder_options}


def encoder_of(config: Config, audio_rate: int) -> Encoder:
    """The encoder of a configuration, with fresh weights from the global generator.

    Raises
    ------
    FeatregError
        If it hears audio of another rate.
    """
    recipe = config.recipe
    encoder = build_encoder(recipe.encoder, **encoder_options(recipe, audio_rate))
    if encoder.sample_rate != audio_rate:
        raise FeatregError(
            f"--encoder {recipe.encoder} hears {encoder.sample_rate} Hz, but the aligned audio of "
            f"{config.dataset}/{config.aligned} has {audio_rate} Hz"
        )
    return encoder


def build_objective(config: Config, aligned: AlignedSet) -> Objective:
    """The model and losses of a configuration; the weights depend on its seed alone."""
    torch.manual_seed(config.seed)
    header, dim = aligned.header, aligned.dim(config.features)
    encoder = encoder_of(config, header.audio_rate)
    tagger = build_tagger(config.fusion, encoder, dim, len(header.classes))
    # Drawn after the model, so that a plain and a regularized run start from equal weights.
    regularizer = build_regularizer(config.reg, dim, encoder.dim)
    return Objective(tagger, regularizer, config.alpha, aligned.task)


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda``, from ``auto`` or either.

    Raises
    ------
    UsageError
        If cuda is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str, device: str) -> str:
    """``float32`` or ``bf16-mixed``; ``auto`` is the latter where bfloat16 is in hardware."""
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known: dict[str, bool] = getattr(
            torch.cpu, "get_capabilities", dict
        )()  # older torch does not tell
        fast = known.get("avx512_bf16") or known.get("amx_bf16")
    return "bf16-mixed" if fast else "float32"


def require_gpus(devices: int, there: int) -> None:
    """See that a run has the GPUs that it asks for.

    Raises
    ------
    UsageError
        If `devices` are more than are `there`.
    """
    if devices > there:
        raise UsageError(f"--devices {devices}: {there} GPU here; ask for no more")


def build_fabric(config: Config, device: str) -> Fabric:
    """Devices and precision of a configuration; several devices by distributed data parallel.

    Raises
    ------
    UsageError
        If there are fewer GPUs, or torchrun started another number of processes.
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
    """Who starts the processes of the other devices: torchrun if it did, else device 0's.

    Left to guess, Lightning takes any Slurm job for a launcher, and its tasks for devices;
    here ``--devices`` alone says how many there are.
    """
    if devices == 1 or not TorchElasticEnvironment.detect():
        return LightningEnvironment()
    launcher = TorchElasticEnvironment()
    if launcher.world_size() != devices:
        raise UsageError(
            f"--devices {devices}: torchrun started {launcher.world_size()} processes; start one "
            "for each device, on one machine"
        )
    return launcher
