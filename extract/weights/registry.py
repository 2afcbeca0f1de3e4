"""Published trained weights: addresses, hashes and licenses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from featreg.datasets.base import UsageError
from featreg.datasets.collections.fetch import Checksum


@dataclass(frozen=True, slots=True)
class Published:
    """A published file of trained weights.

    Attributes
    ----------
    file
        Name of the file.
    source
        Address of the file, or the command that downloads it if it has no permanent address.
    checksum
        Published hash; None if there is none, in which case the hash of the first download is
        recorded.
    megabytes
        Approximate size.
    """

    file: str
    source: str
    checksum: Checksum | None
    megabytes: float

    @property
    def url(self) -> str | None:
        """Address to download from, on the user's mirror if there is one; None if unknown."""
        if mirror := os.environ.get("FEATREG_WEIGHTS_URL"):
            return f"{mirror.rstrip('/')}/{self.file}"
        return self.source if self.source.startswith("https://") else None


@dataclass(frozen=True, slots=True)
class Weights:
    """Trained weights of a feature.

    Attributes
    ----------
    name
        Name of the weights.
    family
        Alternative name for ``--weights``: ``openl3`` stands for any OpenL3 weights.
    licence
        License of the weights.
    published
        Published files with the same values in different formats; the first one is downloaded.
    trained_on
        Training data.
    citation
        Reference to cite.
    unpacked
        Name of the published file after another package has unpacked it.
    """

    name: str
    family: str
    licence: str
    published: tuple[Published, ...]
    trained_on: str
    citation: str
    unpacked: str = ""

    @property
    def shipped(self) -> Path:
        """Path of the weights in this package, if they are part of it."""
        return (
            Path(__file__).parents[1] / "extractors" / f"{self.name.replace('-', '_')}.safetensors"
        )


_VGGISH_PAPER = (
    'S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017'
)
_OPENL3_PAPER = (
    'A. L. Cramer, H.-H. Wu, J. Salamon, J. P. Bello, "Look, listen, and learn more: design '
    'choices for deep audio embeddings", ICASSP 2019'
)
_MUSICNN_PAPER = (
    'J. Pons, X. Serra, "musicnn: pre-trained convolutional neural networks for music audio '
    'tagging", ISMIR 2019 (late-breaking demo)'
)
_EFFICIENTAT_PAPER = (
    'F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via '
    'transformer-to-CNN knowledge distillation", ICASSP 2023'
)
_AUDIOSET = "https://storage.googleapis.com/audioset"
_YOUTUBE = "videos of YouTube with labels for whole videos (a forerunner of YouTube-8M)"
_TORCHVGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"
_OPENL3 = "https://github.com/marl/openl3/raw/models"
_OPENL3_BLOBS = {
    "linear-music": "4e2e61beb17865481c8b8791c72eac8307e2753a",
    "linear-env": "7837407f033f3564c7e8d53fc4a4241fe160478b",
    "mel128-music": "73ff29de441865318c4b3a3f98c40763c4773e7c",
    "mel128-env": "8c3dfee140f7776373841e5938a3e76c54f28942",
    "mel256-music": "15e483646fa3d4091a463f0affbb706e6bbbb098",
    "mel256-env": "34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc",
}
_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"
_AUDIOSET_TAGS = "AudioSet (527 classes of sound), taught by an ensemble of transformers"
# Mean average precision on AudioSet in thousandths, which is part of the file name, and megabytes.
_EFFICIENTAT_FILES = {
    "mn04": (432, 4.1),
    "mn05": (443, 5.8),
    "mn10": (471, 20),
    "mn20": (478, 72),
    "mn30": (482, 157),
    "mn40": (484, 274),
}
_EFFICIENTAT_CHECKSUMS = {
    "mn04": "sha256:899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
}
_MUSICNN_WHEEL = Published(
    "musicnn-0.1.0-py3-none-any.whl",
    "pip download --no-deps musicnn==0.1.0",
    Checksum.parse("sha256:f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"),
    29,
)


def _published(address: str, checksum: str, megabytes: float) -> Published:
    return Published(address.rpartition("/")[2], address, Checksum.parse(checksum), megabytes)


def _openl3(variant: str, blob: str) -> Weights:
    file = f"openl3_audio_{variant.replace('-', '_')}-v0_4_0.h5"
    source = _published(f"{_OPENL3}/{file}.gz", f"git-blob-sha1:{blob}", 17)
    videos = "music" if variant.endswith("music") else "environmental sounds"
    trained_on = f"AudioSet videos of {videos}, by audio-visual correspondence, without labels"
    return Weights(
        f"openl3-{variant}", "openl3", "CC BY 4.0", (source,), trained_on, _OPENL3_PAPER, file
    )


def _efficientat(model: str, precision: int, megabytes: float) -> Weights:
    address = f"{_EFFICIENTAT}/{model}_as_mAP_{precision}.pt"
    source = _published(address, _EFFICIENTAT_CHECKSUMS.get(model, ""), megabytes)
    return Weights(
        f"efficientat-{model}", "efficientat", "MIT", (source,), _AUDIOSET_TAGS, _EFFICIENTAT_PAPER
    )


def _musicnn(model: str, trained_on: str) -> Weights:
    name, folder = f"musicnn-{model.lower()}", f"{model}_musicnn"
    return Weights(name, "musicnn", "ISC", (_MUSICNN_WHEEL,), trained_on, _MUSICNN_PAPER, folder)


_ALL = (
    Weights(
        "vggish",
        "vggish",
        "Apache-2.0",
        (
            _published(  # first, because it is read without TensorFlow
                f"{_TORCHVGGISH}/vggish-10086976.pth",
                "sha256:10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
                289,
            ),
            _published(
                f"{_AUDIOSET}/vggish_model.ckpt", "md5:d1c7011e6366aa34176bb05c705e31a8", 289
            ),
        ),
        _YOUTUBE,
        _VGGISH_PAPER,
    ),
    Weights(
        "vggish_pca",
        "vggish_pca",
        "Apache-2.0",
        (
            _published(
                f"{_AUDIOSET}/vggish_pca_params.npz", "md5:c80cae691033abe7c7ecd11ea39fc834", 0.1
            ),
            _published(f"{_TORCHVGGISH}/vggish_pca_params-970ea276.pth", "sha256:970ea276", 0.1),
        ),
        _YOUTUBE,
        _VGGISH_PAPER,
    ),
    *(_openl3(variant, blob) for variant, blob in _OPENL3_BLOBS.items()),
    *(_efficientat(model, *facts) for model, facts in _EFFICIENTAT_FILES.items()),
    _musicnn("MSD", "Million Song Dataset (50 tags of music)"),
    _musicnn("MTT", "MagnaTagATune (50 tags of music)"),
)
WEIGHTS: dict[str, Weights] = {weights.name: weights for weights in _ALL}


def known(name: str) -> Weights:
    """The weights called `name`.

    Raises
    ------
    UsageError
        If there are no weights of this name.
    """
    if name not in WEIGHTS:
        raise UsageError(f"{name}: no such weights; expected one of {', '.join(WEIGHTS)}")
    return WEIGHTS[name]
