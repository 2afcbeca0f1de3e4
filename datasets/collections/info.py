"""Description of a dataset and of its downloads."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Content, Task


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Description of a dataset; every dataset module defines one as ``INFO``.

    Attributes
    ----------
    name
        Name on the command line, and of the folder in the working folder.
    title
        Name in publications.
    task
        ``multi-label`` (any number of classes per clip) or ``single-label``.
    content
        ``music`` or ``env`` (environmental sounds); selects the OpenL3 weights.
    classes
        Class names in the order of every label vector.
    clips
        Published number of clips in the training, validation and test split.
    licence, citation
        License and reference of the audio and its labels.
    needs
        How to get the files: what `prep download` downloads and what the user has to provide.
    metric
        Name of the metric that selects the best epoch; higher is better.
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
    """A published file of a dataset.

    Attributes
    ----------
    url
        Address of the file.
    checksum
        ``md5:...``, ``sha256:...`` or ``git-blob-sha1:...``; empty if none was published.
    size
        Size in bytes; None if unknown.
    """

    url: str
    checksum: str = ""
    size: int | None = None

    @property
    def name(self) -> str:
        """Name of the file in the dataset's folder."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip or tar.gz archive, possibly split into parts, and the members to unpack.

    Attributes
    ----------
    parts
        Parts of the archive in order; a single one if it was not split.
    member
        Regular expression that matches the names of the members to unpack; group 1 is the path
        relative to `folder`.
    folder
        Folder of the members, relative to the dataset's folder.
    files
        Number of members to unpack; once they are all there, the archive is not needed any more.
    download_bytes, unpacked_bytes
        Disk space of the archive and of the members, in bytes, rounded up.
    password
        Published password of an encrypted zip file.
    """

    parts: tuple[Remote, ...]
    member: str
    folder: str
    files: int
    download_bytes: int
    unpacked_bytes: int
    password: str = ""
