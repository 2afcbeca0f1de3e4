"""Rows that a clip's length and the feature's timing do not make are found, and no others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_shards import HEADER

from featreg.datasets.shards.native import NativeHeader, native_writer
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.base import Extractor
from featreg.extract.extractors.registry import FEATURES, extractor_class
from featreg.extract.inspection.verify import faults

CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("audio", {}),
    ("vggish", {}),
    ("openl3", {}),
    ("openl3", {"center": False}),
    ("openl3", {"hop": 0.5}),
    ("openl3", {"hop": 1.0}),
    ("efficientat", {"model": "mn04"}),
    ("efficientat", {"model": "mn04", "output": "pooled"}),
    ("musicnn", {}),
    ("musicnn", {"hop": 0.016}),
    ("musicnn", {"hop": 4.0}),
]


def own(name: str, choice: dict[str, Any]) -> Extractor:
    found = extractor_class(name)
    return found(found.Config(**choice), {})


def header_like(extractor: Extractor) -> NativeHeader:
    """Of one value a row: the rows are counted, not looked at."""
    return replace(
        HEADER, feature=extractor.name, timing=extractor.timing, sample_rate=extractor.sample_rate
    )


def wrong(path: Path, header: NativeHeader, clips: dict[str, tuple[int, float]]) -> list[str]:
    """Faults of a shard with so many rows and seconds a clip."""
    with native_writer(path, replace(header, dim=1)) as shard:
        for clip_id, (rows, seconds) in clips.items():
            shard.append(clip_id, np.zeros((rows, 1), np.float32), seconds, "")
    return faults(path)


def test_every_feature_of_featregs_own_is_among_them() -> None:
    assert {name for name, _ in CHOICES} == set(FEATURES)


@pytest.mark.parametrize(("name", "choice"), CHOICES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_an_extractor_gives_passes(
    name: str, choice: dict[str, Any], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    extractor = own(name, choice)
    heard_at = data.draw(st.sampled_from([8000, 16000, 22050, 44100, 48000]))
    decoded = data.draw(st.integers(2, heard_at * 20))
    seconds = decoded / heard_at
    # Resampling may round a length either way.
    exact = seconds * extractor.sample_rate
    samples = data.draw(st.sampled_from([int(np.floor(exact)), int(np.ceil(exact))]))
    rows = extractor.frames(max(1, samples))
    path = tmp_path_factory.mktemp("rows") / "x.h5"
    assert wrong(path, header_like(extractor), {"a": (rows, seconds)}) == []


@pytest.mark.parametrize(("name", "choice"), CHOICES[1:])
@pytest.mark.parametrize("seconds", [7.3, 29.12])
def test_lost_frames_are_found(
    name: str, choice: dict[str, Any], seconds: float, tmp_path: Path
) -> None:
    """Frames whose window reaches beyond the clip's end may be missing without notice."""
    extractor = own(name, choice)
    frames = extractor.frames(round(seconds * extractor.sample_rate))
    lost = max(3, math.ceil(extractor.timing.window_s / 2 / extractor.timing.hop_s) + 1)
    clips = {"whole": (frames, seconds), "short": (frames - lost, seconds), "tail": (1, 60.0)}
    if frames < lost + 2:
        del clips["short"]
    (fault,) = wrong(tmp_path / "x.h5", header_like(extractor), clips)
    assert f"short has {frames - lost} " in fault if "short" in clips else "tail has 1 " in fault
    assert f"{extractor.timing.hop_s:g} s" in fault
    others = len(clips) - 2
    assert fault.endswith(f"{others} more") == (others > 0)


def test_rows_of_nothing_are_found(tmp_path: Path) -> None:
    extractor = own("vggish", {})
    clips = {"a": (extractor.frames(16000 * 5) + 2, 5.0)}
    (fault,) = wrong(tmp_path / "x.h5", header_like(extractor), clips)
    assert "a has 7 frames for 5.00 s" in fault


def test_samples_of_the_audio_are_counted(tmp_path: Path) -> None:
    header = header_like(own("audio", {}))
    assert wrong(tmp_path / "x.h5", header, {"a": (16001, 1.0)}) == []
    assert "a has 15990 frames" in wrong(tmp_path / "x.h5", header, {"a": (15990, 1.0)})[0]


@given(rows=st.integers(1, 400))
@example(rows=100)
@settings(max_examples=40, deadline=None)
def test_a_feature_from_outside_is_held_to_what_extraction_let_pass(
    rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its padding is its own affair; a wrong hop is wrong by a factor."""
    header = replace(HEADER, feature="chroma", timing=FrameTiming(0.1, 0.2, 0.0))
    found = wrong(tmp_path_factory.mktemp("rows") / "x.h5", header, {"a": (rows, 10.0)})
    assert bool(found) == (abs(rows - 100) > 15)
