"""The demo dataset: short pieces for 1 to 4 instruments, made for featreg and shipped with it.

Folder::

    ROOT/index.csv       path, clip_id, split, font, score, one column (0 or 1) per class
    ROOT/*.ogg           about 6 s each; Ogg Vorbis, mono or stereo, 22.05 or 44.1 kHz

The task is to recognize the instrument families. ``tools/demo/compose_scores.py`` composes the
scores; ``tools/demo/render_clips.py`` renders them with FluidSynth, room acoustics and background
noise. No score occurs in two splits. Training and validation use one General MIDI soundfont, Fluid
(R3). Each test score is rendered twice: with the instruments of the training split, and with others
of the same families from a soundfont that does not occur in training, MuseScore General (an alto
saxophone becomes a soprano or a baritone). The two halves of the test split therefore differ in
sound only; the column ``font`` identifies them.

MuseScore General descends from Fluid (R3) and shares many samples with it. The presets of the
unseen half are chosen such that no note uses a sample of a preset of the seen half (see
``tools/demo/render_clips.py``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..base import SPLITS, Clip, Dataset, FeatregError
from .completeness import few, names_in
from .csv_rows import damaged, read_rows
from .info import DatasetInfo

INDEX = "index.csv"

CLASSES = (
    *("bass", "brass", "drums", "flute", "guitar", "mallets"),
    *("organ", "piano", "saxophone", "strings", "synth", "voice"),
)

COLUMNS = ("path", "clip_id", "split", "font", "score", *CLASSES)

INFO = DatasetInfo(
    name="demo",
    title="featreg demo",
    task="multi-label",
    content="music",
    classes=CLASSES,
    clips=(160, 36, 80),
    licence="MIT, as the rest of featreg; the soundfonts' notices are in demo_clips/LICENSE.md",
    citation="composed and rendered by featreg's own scripts; cite featreg",
    needs="nothing: the clips come with featreg",
)


def default_root() -> Path:
    """The folder of clips that is part of this package."""
    return Path(__file__).parent / "demo_clips"


def read(root: Path) -> Dataset:
    """The clips and their instruments, in the order of the index.

    Raises
    ------
    FeatregError
        If `root` has no index, or its index was not written by ``tools/demo/render_clips.py``.
    """
    index = root / INDEX
    if not index.is_file():
        found = few(sorted(names_in(root))) or "nothing"
        raise FeatregError(
            f"{root}: expected {INDEX} and the demo clips, found {found}; omit --root to use "
            "the clips that come with featreg"
        )
    rows = read_rows(index, ",", len(COLUMNS))
    line, header = next(rows, (1, []))
    if tuple(header) != COLUMNS:
        raise damaged(index, line, 1, ",".join(COLUMNS), ",".join(header) or "an empty file")
    clips = []
    for line, (path, clip_id, split, _font, _score, *cells) in rows:
        if split not in SPLITS:
            raise damaged(index, line, "split", ", ".join(SPLITS), repr(split))
        if not {*cells} <= {"0", "1"}:
            raise damaged(index, line, CLASSES[0], "0 or 1 in every class", ",".join(cells))
        label = np.array([cell == "1" for cell in cells], np.uint8)
        clips.append(Clip(clip_id, root / path, split, label, np.ones_like(label)))
    return Dataset(INFO.name, CLASSES, tuple(clips), INFO.task, INFO.content)
