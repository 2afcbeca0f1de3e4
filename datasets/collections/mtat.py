"""MagnaTagATune: 25,863 clips of music, 29 s each, with tags from a listening game.

Folder::

    ROOT/annotations_final.csv       clip_id, 188 tags (0 or 1), mp3_path
    ROOT/mp3/0/*.mp3 ... mp3/f/*.mp3 (or ROOT/0 ... ROOT/f)

Published comparisons use the 50 most frequent tags, without merging synonyms. The folder of a
clip determines its split: 0 to b training, c validation, d to f test; no song occurs in two
splits. Three files, all in the training split, are empty as published. By default, clips without
any of the 50 tags are omitted:

=================  ==========  ==============  ========  ======
clips              training    validation      test      total
=================  ==========  ==============  ========  ======
with a tag         15,244      1,529           4,332     21,105
all                18,706      1,825           5,329     25,860
=================  ==========  ==============  ========  ======

The often quoted total of 21,108 counts the three empty files.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..base import Clip, Dataset, Split
from .completeness import check_complete, names_in, wrong_root
from .csv_rows import damaged, read_rows
from .info import Archive, DatasetInfo, Remote

LABEL_FILE = "annotations_final.csv"
KNOWN_BAD = ("35644", "55753", "57881")
ALL_CLIPS = (18_706, 1_825, 5_329)

SPLIT_OF_FOLDER: dict[str, Split] = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "valid",
    **dict.fromkeys("def", "test"),
}

# Ordered by their number among all 25,863 clips, the most frequent first.
TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast"),
    *("piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male"),
    *("singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman"),
    *("male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice"),
    *("new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice"),
    *("weird", "country", "female voice", "metal", "choral"),
)

INFO = DatasetInfo(
    name="mtat",
    title="MagnaTagATune",
    task="multi-label",
    content="music",
    classes=TAGS,
    clips=(15_244, 1_529, 4_332),
    licence="CC BY-NC-SA 1.0 (recordings of Magnatune)",
    citation=(
        "E. Law, K. West, M. Mandel, M. Bay, J. S. Downie, "
        '"Evaluation of algorithms using games: the case of music tagging", ISMIR 2009'
    ),
    needs="`prep download mtat` downloads all of it (3 GB)",
)

_ADDRESS = "https://mirg.city.ac.uk/datasets/magnatagatune/"
DOWNLOADS = (
    Remote(_ADDRESS + LABEL_FILE, "git-blob-sha1:496918feac773267a6badccd11ade3c520a0f69b"),
    Archive(
        # No checksums were published; each member carries a CRC-32, checked on unpacking.
        parts=tuple(Remote(f"{_ADDRESS}mp3.zip.00{part}") for part in (1, 2, 3)),
        member=r"(?:^|/)([0-9a-f]/[^/]+\.mp3)$",
        folder="mp3",
        files=25_863,
        download_bytes=3_100_000_000,
        unpacked_bytes=3_100_000_000,
    ),
)


def read(root: Path, *, all_clips: bool = False, allow_missing: bool = False) -> Dataset:
    """The clips and their tags, in the order of the annotations.

    Parameters
    ----------
    root
        Folder with the layout described above.
    all_clips
        Include the clips that have none of the 50 tags.
    allow_missing
        Use the clips that are present; `Dataset.notes` states their number.

    Raises
    ------
    FeatregError
        If `root` does not contain the dataset, the annotations are damaged, or the clips differ
        from the published ones.
    """
    audio = root / "mp3" if (root / "mp3").is_dir() else root
    present = {folder: names_in(audio / folder) for folder in SPLIT_OF_FOLDER}
    if not (root / LABEL_FILE).is_file() or not any(present.values()):
        raise wrong_root(INFO, root, f"{LABEL_FILE} and the folders mp3/0 to mp3/f with mp3s")

    annotations, counts = _read_annotations(root / LABEL_FILE)
    clips, missing = [], []
    for clip_id, mp3_path, label in annotations:
        if clip_id in KNOWN_BAD or not (all_clips or label.any()):
            continue
        folder, _, name = mp3_path.partition("/")
        if name not in present[folder]:
            missing.append(mp3_path)
            continue
        split = SPLIT_OF_FOLDER[folder]
        clips.append(Clip(clip_id, audio / mp3_path, split, label, np.ones_like(label)))

    other = _other_top_tags(counts)
    also = [f"{LABEL_FILE} is not the published one: {other}"] if other else []
    published = replace(INFO, clips=ALL_CLIPS) if all_clips else INFO
    notes = check_complete(published, clips, missing, allow_missing, also)
    return Dataset("mtat", TAGS, tuple(clips), known_bad=KNOWN_BAD, notes=notes)


_Annotation = tuple[str, str, npt.NDArray[np.uint8]]


def _read_annotations(path: Path) -> tuple[list[_Annotation], dict[str, int]]:
    """Id, path and label of every clip, and the number of clips of each tag."""
    rows = read_rows(path, "\t")
    line, header = next(rows, (1, []))
    if header[:1] != ["clip_id"] or header[-1:] != ["mp3_path"] or not {*TAGS} <= {*header}:
        expected = "the columns clip_id, the tags (the top 50 among them), mp3_path"
        raise damaged(path, line, 1, expected, ", ".join(header[:3]) or "an empty file")
    top = [header.index(tag) - 1 for tag in TAGS]
    counts = np.zeros(len(header) - 2, np.int64)
    annotations: list[_Annotation] = []
    seen: set[str] = set()
    for line, (clip_id, *cells, mp3_path) in rows:
        if not clip_id.isdecimal() or clip_id in seen:
            expected = "a unique number"
            raise damaged(path, line, "clip_id", expected, repr(clip_id))
        if not re.fullmatch(r"[0-9a-f]/[^/]+\.mp3", mp3_path):
            raise damaged(path, line, "mp3_path", "a path like c/name.mp3", repr(mp3_path))
        if cells.count("0") + cells.count("1") != len(cells):
            at = next(i for i, cell in enumerate(cells) if cell not in ("0", "1"))
            raise damaged(path, line, header[at + 1], "0 or 1", repr(cells[at]))
        seen.add(clip_id)
        values = np.array([cell == "1" for cell in cells], np.uint8)
        counts += values
        annotations.append((clip_id, mp3_path, values[top]))
    return annotations, dict(zip(header[1:-1], counts.tolist(), strict=True))


def _other_top_tags(counts: dict[str, int]) -> str:
    """Difference of the 50 most frequent tags from the published ones; empty if there is none."""
    last = min(TAGS, key=counts.__getitem__)
    for tag, count in counts.items():
        if tag not in TAGS and count > counts[last]:
            return f"'{tag}' ({count} clips) is more frequent than '{last}' ({counts[last]})"
    return ""
