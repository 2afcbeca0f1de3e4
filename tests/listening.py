"""What a page of ``train errors`` contains, and runs with predictions made by hand."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pandas as pd
import soundfile as sf
from made_up import rewrite_report

from featreg.train.evaluation.run_errors import ClipList, RunErrors
from featreg.train.evaluation.scored_clips import ScoredClips
from featreg.train.training.run_dir import RunDir


@dataclass
class Shown:
    """A clip on the page, in the section with the heading `section`."""

    section: str
    text: str = ""
    audio: list[str] = field(default_factory=list)
    image: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """Parser of a page; `clips` are those shown, and `open` the elements that are not closed."""

    VOID = frozenset(("meta", "img", "br", "link", "input"))

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.clips, self.open, self.section = path, [], [], ""
        self.clips: list[Shown]
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "h2":
            self.section = ""
        if values.get("class") == "card":
            self.clips.append(Shown(self.section))
        if tag == "audio":
            assert "controls" in values
            self.clips[-1].audio.append(values["src"] or "")
        if tag == "img":
            assert values["alt"]
            self.clips[-1].image.append(values["src"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self.open:
            self.section += data
        elif "li" in self.open:
            self.clips[-1].text += data

    def content(self, url: str) -> bytes:
        """The bytes behind a data URI, or in a file beside the page."""
        if url.startswith("data:"):
            return base64.b64decode(url.partition(";base64,")[2], validate=True)
        return (self.path.parent / unquote(url)).read_bytes()

    def samples(self, shown: Shown) -> np.ndarray:
        """The audio of the player of a clip, int16."""
        [url] = shown.audio
        samples, rate = sf.read(io.BytesIO(self.content(url)), dtype="int16")
        assert rate == 16000
        return samples


def audio_of(folder: Path) -> dict[str, np.ndarray]:
    """The audio of every clip in a folder of aligned shards."""
    found = {}
    for path in folder.glob("*.h5"):
        with h5py.File(path) as shard:
            ends, names = shard["audio_offset"][()], shard["clip_id"].asstr()[()]
            for name, first, last in zip(names, ends, ends[1:], strict=False):
                found[name] = shard["audio"][first:last]
    return found


def listed_by_hand(
    ids: list[str], samples: list[np.ndarray], classes: tuple[str, str, str]
) -> RunErrors:
    """A list of mistakes: the first class is predicted (0.7), and the label is the last one."""
    count = len(ids)
    clips = ScoredClips(
        np.array(ids),
        np.array(["test"] * count),
        np.array([[0.7, 0.2, 0.1]] * count),
        np.array([[0, 0, 1]] * count, np.uint8),
        np.ones((count, 3), np.uint8),
        [lambda each=each: each for each in samples],
    )
    predicted = np.array([[1, 0, 0]] * count, np.uint8)
    score, about = np.full(count, 0.7), np.zeros(count, int)
    mistakes = ClipList("mistake", clips, predicted, score, about, count, count)
    return RunErrors("run<b>", "toy&", "test", classes, (), 16000, [mistakes])


def predict_by_hand(
    run: RunDir,
    ids: list[str],
    probability: np.ndarray,
    label: np.ndarray,
    mask: np.ndarray,
    **report: object,
) -> None:
    """Replace the predictions of a run's test clips, and their labels."""
    classes = run.read_json("config.json")["data"]["classes"]
    table = pd.DataFrame(probability, columns=classes, index=ids)
    table.to_csv(run.path / "predictions.csv", index_label="clip_id", float_format="%.6f")
    np.savez(
        run.path / "embeddings.npz",
        clip_id=np.array(ids),
        embedding=np.zeros((len(ids), 2), np.float32),
        label=label.astype(np.uint8),
        label_mask=mask.astype(np.uint8),
    )
    rewrite_report(run, **report)
