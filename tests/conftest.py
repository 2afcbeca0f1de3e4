"""What every test file may ask for: the reference numbers, and the shared data where it is."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

HERE = Path(__file__).parent

# Read when a test first imports torch: test processes, one a core, share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Mapping[str, npt.NDArray[np.float32]]]:
    """Outputs of a published implementation by name: ``reference("vggish")``."""

    def load(name: str) -> Mapping[str, npt.NDArray[np.float32]]:
        with np.load(HERE / "reference" / f"{name}_reference.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def seeded() -> ModuleType:
    """The module that drew the parameters and signals of the references."""
    spec = importlib.util.spec_from_file_location("seeded", HERE / "reference" / "seeded.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real labels and a real clip, which are not part of the project; skips without them."""
    folder = HERE.parents[1] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder shared/ with real data is not here")
    return folder
