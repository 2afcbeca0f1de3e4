"""Files of a model of the Hugging Face Hub, or in a folder."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from featreg.datasets.base import UsageError

CONFIG = "config.json"
FRONT_END = "preprocessor_config.json"
# In the order in which transformers prefers them.
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def package(name: str) -> Any:
    """Import transformers or huggingface_hub.

    Raises
    ------
    UsageError
        If the extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"needs the package {error.name}: run `pip install '.[hf]'` in featreg's repository"
        ) from None


def pinned(source: str) -> str:
    """Source that denotes the same files in every process.

    Parameters
    ----------
    source
        ``MODEL_ID`` or ``MODEL_ID@REVISION``, or a folder.

    Returns
    -------
    Absolute path of the folder, or ``MODEL_ID@COMMIT``. The files are then on this machine.

    Raises
    ------
    UsageError
        If there is no such folder, model or revision, or the model cannot be downloaded.
    """
    package("transformers")
    if (folder := Path(source).expanduser()).is_dir():
        return str(folder.absolute())
    model, _, revision = source.partition("@")
    return f"{model}@{_download(model, revision or None).name}"


def folder_of(source: str) -> Path:
    """Folder with the files of a source returned by `pinned`, downloaded if they are not here."""
    if (folder := Path(source)).is_dir():
        return folder
    model, _, commit = source.partition("@")
    return _cached(model, commit) or _download(model, commit)


def weight_files(folder: Path) -> list[Path]:
    """Files with weights in a folder; those of one format.

    Raises
    ------
    UsageError
        If there are none.
    """
    for pattern in WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    raise UsageError(f"{folder}: expected weights ({' or '.join(WEIGHTS)}), found none")


def _cached(model: str, revision: str | None) -> Path | None:
    """Folder of a model that was downloaded before."""
    hub = package("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if (folder / CONFIG).is_file() else None


def _download(model: str, revision: str | None) -> Path:
    """Download a model unless it is here; the folder is named after the commit."""
    hub = package("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    address = f"https://huggingface.co/{model}"
    try:
        files = hub.HfApi().list_repo_files(model, revision=revision)
        patterns = [name for name in WEIGHTS if any(map(_regex(name).fullmatch, files))]
        return Path(
            hub.snapshot_download(
                model, revision=revision, allow_patterns=["*.json", "*.py", *patterns[:1]]
            )
        )
    except errors.GatedRepoError:
        reason = f"access must be requested at {address}; then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = (
            f"no such model at {address}; check the name, or log in with `hf auth login` if it is "
            "private"
        )
    except errors.RevisionNotFoundError:
        reason = f"the model has no revision {revision}; {address}/commits lists them"
    except errors.HFValidationError:
        reason = (
            "expected a folder, or the id of a model on huggingface.co such as "
            "facebook/wav2vec2-base; found neither"
        )
    except Exception as error:
        # Without a network: what was downloaded before. The exceptions are those of the HTTP
        # client, which differs between versions of huggingface_hub.
        if folder := _cached(model, revision):
            return folder
        reason = (
            f"huggingface.co cannot be reached ({type(error).__name__}); download the model on a "
            f"machine with a network (`hf download {model}`) and give its folder"
        )
    raise UsageError(reason)


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
