"""Encoder weights of a finished run, from which another run starts (``--init``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.config import Config
from ..models.base import Encoder
from .find_runs import find_run
from .run_dir import ENCODER, RunDir

_PREFIX = "encoder."


def write_encoder(folder: Path, encoder: Encoder) -> None:
    """Write ``encoder.safetensors``, with the names that the weights have in a model's file."""
    weights = {_PREFIX + name: x.contiguous().cpu() for name, x in encoder.state_dict().items()}
    with atomic_path(folder / ENCODER) as temporary:
        temporary.write_bytes(save(weights))


def find_initial(work: Path, wanted: str) -> tuple[str, str]:
    """Return the name of a finished run, and the SHA-256 of the file with its encoder.

    Parameters
    ----------
    work
        The working folder.
    wanted
        Name of a run in WORK/runs, or its folder.

    Returns
    -------
    Name (the folder, if it is not in WORK/runs), SHA-256.

    Raises
    ------
    FeatregError
        If the run is not finished.
    UsageError
        If there is no such run.
    """
    run = find_run(work, wanted)
    if not run.finished:
        raise FeatregError(f"--init {wanted}: {run.path} is not finished; finish this run first")
    inside = (work / "runs" / run.name / "config.json").is_file()
    name = run.name if inside else str(run.path)
    return name, str(run.read_json("report.json")["files"].get(_file(run)))


def initial_weights(config: Config, work: Path, audio_rate: int) -> Mapping[str, Tensor]:
    """Return the encoder weights from which a run starts; empty without ``--init``.

    Parameters
    ----------
    config
        Configuration of the run.
    work
        The working folder.
    audio_rate
        Sample rate of the run's audio, in Hz.

    Raises
    ------
    FeatregError
        If the weights are damaged, or are not those of the configuration.
    UsageError
        If the other run has another encoder or sample rate.
    """
    if not config.init:
        return {}
    run = find_run(work, config.init)
    recipe, other = config.recipe, run.config().recipe
    for name, expected, found in (
        ("encoder", recipe.encoder, other.encoder),
        ("width", recipe.width, other.width),
        ("encoder options", dict(recipe.encoder_options), dict(other.encoder_options)),
        ("sample rate", audio_rate, run.read_json("config.json")["data"].get("audio_rate")),
    ):
        if expected != found:
            raise UsageError(
                f"--init {config.init}: its {name} is {found}, but that of this run is {expected}; "
                "use the same settings, or another run"
            )
    if run.read_json("report.json")["files"].get(_file(run)) != config.init_sha256:
        raise FeatregError(
            f"--init {config.init}: this run was trained again in the meantime; use --fresh"
        )
    weights = load(run.read_output(_file(run)))
    found = {k.removeprefix(_PREFIX): x for k, x in weights.items() if k.startswith(_PREFIX)}
    if not found:
        raise UsageError(f"--init {config.init}: its model has no encoder; use another run")
    return found


def _file(run: RunDir) -> str:
    return ENCODER if run.pretraining else "model.safetensors"
