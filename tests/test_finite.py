"""Nothing that is not finite is stored: the clip fails by name, and no other clip changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from kit import tone, write
from loudness import Loudness, LoudnessConfig
from safetensors.torch import save_file
from weight_files import OPENL3

from featreg.datasets.base import ClipError, FeatregError
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.base import Array, Extractor, Quantization, Signal
from featreg.extract.extractors.batching import Batcher
from featreg.extract.extractors.musicnn import Musicnn, MusicnnConfig
from featreg.extract.extractors.openl3 import OpenL3, OpenL3Config
from featreg.extract.extractors.vggish import Vggish, VggishConfig
from featreg.extract.weights.layouts import layout


def deliver_all(extractor: Extractor, signals: dict[str, Signal]) -> dict[str, Array | ClipError]:
    """What a batcher makes of clips that share batches, by clip."""
    found: dict[str, Array | ClipError] = {}
    batcher = Batcher(extractor, found.__setitem__)
    for key, signal in signals.items():
        try:
            batcher.push(key, signal)
        except ClipError as error:
            found[key] = error
    batcher.flush()
    return found


class Half(Loudness):
    """Stores what float16 may not hold."""

    dtype = np.float16


class Steps(Loudness):
    """Stores whole numbers, which cannot say that a value was NaN."""

    dtype = np.uint8
    quantization = Quantization(1 / 255)

    def quantize(self, values: Array) -> Array:
        return (values.clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("frame", [0, 4, 5, 12])  # of 13, in batches of 5
@pytest.mark.parametrize(
    ("extractor_type", "value"),
    [
        (Loudness, 2e37),  # its square overflows in the network
        (Loudness, np.nan),
        (Half, 300.0),  # 300 squared over 4,000 samples fits; the square of 3e5 does not
        (Half, 3e5),
        (Steps, 2e37),
        (Steps, np.inf),
    ],
)
def test_a_frame_that_is_not_finite_fails_its_clip_alone(
    extractor_type: type[Loudness], value: float, frame: int
) -> None:
    extractor = extractor_type(LoudnessConfig(), {})
    signals = {f"{n}": tone(n / 2, 8000, seed=n)[:, 0] for n in (2, 1, 13, 3, 7)}
    signals["13"][frame * 4000 + 17] = value
    found = deliver_all(extractor, signals)
    assert found.keys() == signals.keys()
    failed = {key for key, each in found.items() if isinstance(each, ClipError)}
    assert failed == (set() if value == 300.0 else {"13"})
    for key in failed:
        words = f"loudness: frame {frame} (at {0.25 + frame / 2:.3f} s)"
        assert words in str(found[key])
        with pytest.raises(ClipError):
            extractor.extract(signals[key])
    for key in found.keys() - failed:
        np.testing.assert_array_equal(found[key], extractor.extract(signals[key]))


def test_several_bad_clips_are_told_apart() -> None:
    extractor = Loudness(LoudnessConfig(), {})
    signals = {f"{n}": tone(n / 2, 8000, seed=n)[:, 0] for n in (2, 1, 4, 3, 7)}
    for key in ("1", "3", "7"):
        signals[key][-1] = 3e38
    found = deliver_all(extractor, signals)
    for key, outcome in found.items():
        if key in ("1", "3", "7"):
            assert f"frame {int(key) - 1} " in str(outcome)
        else:
            np.testing.assert_array_equal(outcome, extractor.extract(signals[key]))


@pytest.mark.parametrize("shape", [(4, 2), (6, 2), (5, 3), (5,)])
def test_a_network_that_loses_frames_is_named(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loudness, "network", lambda self, inputs: np.zeros(shape))
    with pytest.raises(FeatregError, match=r"loudness: .*\(5, 2\).* found \("):
        Loudness(LoudnessConfig(), {}).extract(tone(2.5, 8000)[:, 0])


def test_a_clip_without_frames_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loudness, "frames", lambda self, samples: samples // 4000)
    signals = {"short": tone(0.2, 8000)[:, 0], "long": tone(1.0, 8000)[:, 0]}
    found = deliver_all(Loudness(LoudnessConfig(), {}), signals)
    assert isinstance(found["short"], ClipError)
    assert len(found["long"]) == 2  # type: ignore[arg-type]


def random_weights(name: str, path: Path, change: dict[str, float] | None = None) -> Path:
    """A file of small random arrays of the right shapes; `change` puts a value into some."""
    generator = torch.Generator().manual_seed(0)
    arrays = {
        key: 0.05 * torch.rand(shape, generator=generator) for key, shape in layout(name).items()
    }
    for key, value in (change or {}).items():
        arrays[key].view(-1)[-1] = value
    save_file(arrays, path)
    return path


@pytest.mark.parametrize(
    ("extractor_type", "config", "name", "precision"),
    [
        (Vggish, VggishConfig("raw"), "vggish", "float32"),
        (OpenL3, OpenL3Config(), OPENL3, "float32"),
        (OpenL3, OpenL3Config(), OPENL3, "bfloat16"),
        (Musicnn, MusicnnConfig(), "musicnn-msd", "float32"),
    ],
)
def test_values_that_are_not_finite_stay_in_their_frame_of_a_batch(
    extractor_type: type[Extractor],
    config: Any,
    name: str,
    precision: Any,
    tmp_path: Path,
) -> None:
    weights = {name: random_weights(name, tmp_path / f"{name}.safetensors")}
    extractor = extractor_type(config, weights, precision=precision)
    frames = 6
    samples = (0.1 * tone(7.0, extractor.sample_rate)[:, 0]).astype(np.float32)
    inputs = np.array(extractor.inputs(samples, 0, extractor.frames(len(samples)))[:frames])
    expected = extractor.network(inputs)
    assert np.isfinite(expected).all()
    others = np.arange(len(inputs)) != 2
    for value in (np.nan, np.inf, 3e38):
        changed = inputs.copy()
        changed[2] = value
        found = extractor.network(changed)
        np.testing.assert_array_equal(found[others], expected[others])
    np.testing.assert_array_equal(extractor.network(inputs), expected)  # nothing is left behind


OUTSIDE = """
import numpy as np
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.custom import WholeClip

class Level(WholeClip):
    sample_rate = 16000
    dim = 2
    timing = FrameTiming(0.1, 0.1, 0.05)

    def compute(self, signal):
        rows = np.ones((12, 2))
        if len(signal) > 16000 * 1.25:
            rows[3, 1] = self.value
        return rows
"""
# Feature, its type, and a value that the type cannot hold.
VALUES = [
    ("nan32", "float32", "np.nan"),
    ("large32", "float32", "1e39"),
    ("large16", "float16", "7e4"),
    ("large8", "uint8", "256"),
    ("nan8", "uint8", "np.nan"),
    ("low16", "int16", "-32769"),
]


def run(folder: Path, *options: object, **environment: str) -> Result:
    """``prep extract`` of the clips in a folder."""
    rows = [f"{path.stem},{path.name},train,a\n" for path in sorted(folder.glob("*.wav"))]
    (folder / "clips.csv").write_text("clip_id,path,split,labels\n" + "".join(rows))
    line = ["extract", "--dataset", folder / "clips.csv", "--work", folder / "work"]
    line += ["--workers", 1, "--allow-missing", *options]
    return CliRunner(env=environment).invoke(prep, [str(word) for word in line])


def test_what_cannot_be_stored_fails_by_name_and_the_rest_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_sample = tone(1.2, 16000)
    one_sample[5000] = 2e37
    noise = np.random.default_rng(0).standard_normal(one_sample.shape)
    clips = {
        "good": tone(1.2, 16000),
        "one_sample": one_sample,
        "loud": (0.1 * noise * 1e30).astype(np.float32),
        "long": tone(1.3, 16000),  # for which the user's features return a wrong value
    }
    for name, samples in clips.items():
        write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
        array = np.ones((12, 3))
        array[7, 1] = np.inf if name == "long" else 1
        np.save(tmp_path / f"{name}.npy", array)
    code = OUTSIDE + "".join(
        f"class C{k}(Level):\n    name, dtype, value = {name!r}, np.{dtype}, {value}\n"
        for k, (name, dtype, value) in enumerate(VALUES)
    )
    (tmp_path / "levels_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    random_weights("musicnn-msd", tmp_path / "musicnn-msd.safetensors")
    own = [f"levels_of_mine:C{k}" for k in range(len(VALUES))]
    features = ",".join(["musicnn", "made", *own])
    folder = ["--set", f"made.folder={tmp_path}", "--set", "made.hop=0.1"]
    done = run(
        tmp_path, "--features", features, *folder, "--max-failures", 3,
        FEATREG_WEIGHTS=str(tmp_path),
    )  # fmt: skip
    assert done.exit_code == 0, done.output

    work = tmp_path / "work" / "clips"
    failures = pd.read_csv(work / "failures.csv")
    assert set(failures.clip_id) == {"one_sample", "loud", "long"}
    reasons = " ".join(failures[failures.clip_id == "long"].reason)
    for name, dtype, _ in VALUES:
        assert name in reasons
        if dtype.startswith("float"):
            assert f"{name}: frame 3 (at 0.350 s)" in reasons
    assert "made: frame 7 (at 0.750 s)" in reasons
    for path in (work / "native").glob("*/*.h5"):
        with native_shard(path) as shard:
            feature = shard.header.feature
            assert "good" in shard.clip_ids
            assert ("long" in shard.clip_ids) == (feature in ("audio", "musicnn"))
            assert all(np.isfinite(shard.values(clip)).all() for clip in shard.clip_ids)
            if feature == "musicnn":
                assert set(shard.clip_ids) == {"good", "long"}
    verified = CliRunner().invoke(prep, ["verify", str(work)])
    assert verified.exit_code == 0, verified.output


def test_weights_that_are_not_finite_extract_nothing(tmp_path: Path) -> None:
    random_weights(OPENL3, tmp_path / f"{OPENL3}.safetensors", {"conv3.bias": np.nan})
    write(tmp_path / "a.wav", tone(1.2, 16000), 16000)
    done = run(tmp_path, "--features", "openl3", FEATREG_WEIGHTS=str(tmp_path))
    assert done.exit_code == 1
    assert "conv3.bias" in done.output
    assert not list(tmp_path.glob("work/*/native/*/*.h5"))


def test_weights_that_change_after_they_were_checked_are_refused_when_they_are_read(
    tmp_path: Path,
) -> None:
    bad = random_weights("musicnn-msd", tmp_path / "m.safetensors", {"front.norm.weight": np.inf})
    with pytest.raises(FeatregError, match=r"m\.safetensors: front\.norm\.weight: 1 of "):
        Musicnn(MusicnnConfig(), {"musicnn-msd": bad}).extract(tone(1.0, 16000)[:, 0])
