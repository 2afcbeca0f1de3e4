"""What a dataset's module says about it before a single file is read."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Content, Task


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One dataset in words; every dataset module holds one as ``INFO``.

    Attributes
    ----------
    name
        On the command line, and the folder in the working folder.
    title
        As it is called in print.
    task
        ``multi-label`` (any number of classes a clip) or ``single-label``.
    content
        ``music`` or ``env``: which OpenL3 weights suit the material.
    classes
        Class names in the order of every label vector.
    clips
        Published number of clips in the training, validation and test split.
    licence, citation
        Of the audio and its labels.
    needs
        How the files come here: what `prep download` fetches and what the user brings.
    metric
        Key of the metric that selects the best epoch; higher is better.
    """

    name: str
    title: str
    task: Task
    content: Content
    classes: tuple[str, ...]
    clips: tuple[int, int, int]
    licence: str
    citation: str
    needs: str
    metric: str = "pr_auc"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of a dataset and the address it was published at.

    Attributes
    ----------
    url
        Its address.
    checksum
        ``md5:...``, ``sha256:...`` or ``git-blob-sha1:...``; empty if none was published.
    size
        In bytes, None if unknown.
    """

    url: str
    checksum: str = ""
    size: int | None = None

    @property
    def name(self) -> str:
        """File name in the dataset's folder."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip or tar.gz file, possibly cut into parts, and what of it is wanted.

    Attributes
    ----------
    parts
        The pieces in order; one where the archive was not cut.
    member
        Regular expression that the wanted members' names match; its group 1 is the path
        below `folder`.
    folder
        Where the members go, relative to the dataset's folder.
    files
        Members wanted; once so many are there, the archive is not needed any more.
    download_bytes, unpacked_bytes
        Room that is needed, rounded up.
    password
        Of an encrypted zip file, as published.
    """

    parts: tuple[Remote, ...]
    member: str
    folder: str
    files: int
    download_bytes: int
    unpacked_bytes: int
    password: str = ""
