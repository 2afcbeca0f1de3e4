"""Loading of converted weights, with a check that all values are finite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from featreg.datasets.base import FeatregError

from .checkpoints import named_damage

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "download or convert these weights again"


def load_weights(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The arrays of a safetensors file by name.

    Raises
    ------
    FeatregError
        If the file is missing or damaged, or an array has a value that is not finite.
    """
    from safetensors.torch import load_file

    with named_damage(path, "a safetensors file"):
        arrays: dict[str, Tensor] = load_file(path)
    for key, values in arrays.items():
        check_finite(f"{path}: {key}", values.numpy(), REMEDY)
    return {key: values.to(device) for key, values in arrays.items()}


def check_file(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each array of a safetensors file, whose values must be finite float32 numbers.

    The file is read one array at a time.

    Raises
    ------
    FeatregError
        If the file is damaged, or an array is of another type or not finite.
    """
    shapes = {}
    with named_damage(path, "a safetensors file"), safe_open(path, "np") as file:
        for key in file.keys():  # noqa: SIM118  # it is no mapping
            part = file.get_slice(key)
            if part.get_dtype() != "F32":
                raise FeatregError(
                    f"{path}: {key}: expected float32 numbers (F32), found {part.get_dtype()}; "
                    "`prep weights convert NAME FILE` converts them"
                )
            check_finite(f"{path}: {key}", file.get_tensor(key), REMEDY)
            shapes[key] = tuple(part.get_shape())
    return shapes


def check_finite(what: str, values: npt.NDArray[Any], remedy: str) -> None:
    """Check that an array has no NaN or infinite values.

    Raises
    ------
    FeatregError
        If it has; the message begins with `what` and ends with `remedy`.
    """
    if not (finite := np.isfinite(values)).all():
        raise FeatregError(
            f"{what}: {values.size - np.count_nonzero(finite):,} of {values.size:,} values are not "
            f"finite (NaN or infinite, as float32); {remedy}"
        )
