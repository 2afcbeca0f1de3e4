"""The page of ``train errors``: clips to listen to, with their spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment

from featreg.datasets.console import counted
from featreg.datasets.shards.atomic_file import atomic_path
from featreg.datasets.shards.csv_table import write_csv

from ..evaluation.run_errors import ClipList, Key, RunErrors
from .clip_media import Media, clip_media
from .errors_table import errors_table

SHOWN = 3
"""Number of most probable classes that are shown of a clip."""

_TITLES = {
    "mistake": "Most confident mistakes",
    "false positive": "Most confident false positives",
    "false negative": "Most confident false negatives",
    "uncertain": "Least certain clips",
    "to label": "Clips to label next",
}
_ENTROPY = (
    "Ranked by the entropy of the prediction relative to its maximum: 0 is certain and 1 is "
    "undecided. With several classes per clip, it is the mean of the classes' binary entropies."
)
_THRESHOLDS = (
    "A class is predicted if its probability reaches its threshold, which was chosen on the "
    "validation split. Clips are ranked by the distance of the probability from the threshold, "
    "relative to the largest distance possible. Classes that are not annotated are ignored."
)
_CRITERIA = {
    "mistake": "Clips whose most probable class is not their label, ranked by its probability.",
    "false positive": f"Clips with a predicted class that is not among their labels. {_THRESHOLDS}",
    "false negative": f"Clips with a label that is not predicted. {_THRESHOLDS}",
    "uncertain": _ENTROPY,
    "to label": f"Clips without labels. {_ENTROPY} Labelling the least certain clips first is "
    "uncertainty sampling (Settles 2009, “Active learning literature survey”, section 3.1; the "
    "mean over classes is from Esuli and Sebastiani 2009, “Active learning strategies for "
    "multi-label text classification”).",
}


@dataclass(frozen=True, slots=True)
class Card:
    """What the page shows of a clip; `classes` has names, probabilities and labels."""

    clip_id: str
    split: str
    outcome: str
    classes: Sequence[tuple[str, float, str]]
    media: Media


@dataclass(frozen=True, slots=True)
class Section:
    """What the page shows of a list."""

    title: str
    criterion: str
    counts: str
    cards: Sequence[Card]


def write_listening_page(path: Path, found: RunErrors, embed_limit: float) -> list[Path]:
    """Write the page PAGE.html and the table PAGE.csv.

    Parameters
    ----------
    path
        The page.
    found
        The lists of clips.
    embed_limit
        Maximum size of the audio in the page, in bytes. If it is larger, all audio is written to
        WAV files in the folder PAGE-audio instead.

    Returns
    -------
    Paths of the page, the table and the folder of audio files, if there is one.

    Raises
    ------
    FeatregError
        If the audio of a clip is damaged, or a file cannot be written.
    """
    folder, table = path.with_name(f"{path.stem}-audio"), path.with_suffix(".csv")
    media = clip_media(found.lists, found.rate, folder, embed_limit)
    beside = any(each.file for each in media.values())
    write_csv(errors_table(found, media), table)
    template = files(__package__).joinpath("listening_page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(template).render(
        found=found,
        folder=folder.name if beside else "",
        table=table.name,
        sections=[_section(found, each, media) for each in found.lists],
    )
    with atomic_path(path) as temporary:
        # A name may contain bytes that are not UTF-8.
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
    return [path, table, folder] if beside else [path, table]


def _section(found: RunErrors, each: ClipList, media: Mapping[Key, Media]) -> Section:
    among = counted(each.among, "clip")
    if not each.found:
        counts = f"None among {among}."
    elif each.found == each.among:
        counts = f"Shown: {len(each.keys)} of {among}."
    else:
        counts = f"Shown: {len(each.keys)} of {each.found:,}, among {among}."
    cards = [
        Card(
            clip_id,
            split,
            _outcome(found, each, row),
            _classes(found, each, row),
            media[split, clip_id],
        )
        for row, (split, clip_id) in enumerate(each.keys)
    ]
    return Section(_TITLES[each.kind], _CRITERIA[each.kind], counts, cards)


def _outcome(found: RunErrors, each: ClipList, row: int) -> str:
    """Return why a clip is in its list."""
    about = each.classes[row]
    if about < 0:
        return f"entropy {each.score[row]:.3f}"
    name, value = found.classes[about], f"{each.clips.probability[row, about]:.3f}"
    if found.thresholds:
        value += f", threshold {found.thresholds[about]:.3f}"
    if each.kind == "false negative":
        return f"{name} not predicted ({value})"
    labels = found.names(each.clips.label[row] * each.clips.label_mask[row])
    return f"{name} predicted ({value}), labelled {', '.join(labels) or 'with no class'}"


def _classes(found: RunErrors, each: ClipList, row: int) -> list[tuple[str, float, str]]:
    """Return the most probable classes, the labels, and the class that the score is about."""
    p, mask = each.clips.probability[row], each.clips.label_mask[row]
    label = each.clips.label[row] * mask
    shown = []
    for place, k in enumerate(np.argsort(-p, kind="stable").tolist()):
        if place < SHOWN or label[k] or k == each.classes[row]:
            unknown = mask.any() and not mask[k]
            text = "label" if label[k] else "not annotated" if unknown else ""
            shown.append((found.classes[k], float(p[k]), text))
    return shown
