"""Pre-trained audio features, aligned in time, and small classifiers trained with them.

The public names, imported when they are first used, so that ``import featreg`` stays light:

============================== ===================================================================
`load_extractor`               audio in, embeddings of a pre-trained model and their times out
`AlignedDataset`               audio, aligned features and labels as a torch dataset
`ConReg`, `DisReg`             losses that shape an embedding by pre-trained features
`Hint`, `DistanceCorrelation`, further losses of this kind, beyond the paper
`RKD`, `Scores`
`load_model`                   a trained classifier: probabilities and embeddings of any audio
`FeatregError`                 base class of the errors: `UsageError` for an argument that cannot
                               be used, `ClipError` for a clip that cannot be processed
============================== ===================================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .datasets.version import __version__

if TYPE_CHECKING:
    from .datasets.base import ClipError, FeatregError, UsageError
    from .extract.load_extractor import load_extractor
    from .train.data.aligned_dataset import AlignedDataset
    from .train.deploy.classifier import load_model
    from .train.regularizers.conreg import ConReg
    from .train.regularizers.dcor import DistanceCorrelation
    from .train.regularizers.disreg import DisReg
    from .train.regularizers.hint import Hint
    from .train.regularizers.rkd import RKD
    from .train.regularizers.scores import Scores

__all__ = [
    "RKD",
    "AlignedDataset",
    "ClipError",
    "ConReg",
    "DisReg",
    "DistanceCorrelation",
    "FeatregError",
    "Hint",
    "Scores",
    "UsageError",
    "__version__",
    "load_extractor",
    "load_model",
]

_MODULES = {
    "AlignedDataset": "train.data.aligned_dataset",
    "ClipError": "datasets.base",
    "ConReg": "train.regularizers.conreg",
    "DisReg": "train.regularizers.disreg",
    "DistanceCorrelation": "train.regularizers.dcor",
    "FeatregError": "datasets.base",
    "Hint": "train.regularizers.hint",
    "RKD": "train.regularizers.rkd",
    "Scores": "train.regularizers.scores",
    "UsageError": "datasets.base",
    "load_extractor": "extract.load_extractor",
    "load_model": "train.deploy.classifier",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
