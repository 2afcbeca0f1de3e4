"""The public names of `featreg`: light to import, and equal to what the commands compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit import make_clip, tone, write
from safetensors.torch import save_file
from weight_files import pca

import featreg
from featreg.datasets.base import Dataset
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors.registry import FeatureSpec, make_config, make_spec
from featreg.extract.extractors.vggish import Network
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, make_plan
from featreg.extract.pipeline.run import run_extraction

ROOT = Path(__file__).parents[1]


def python(program: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_featreg_is_light() -> None:
    program = "import sys, featreg; print(*sys.modules)"
    heavy = {"numpy", "torch", "h5py", "soundfile", "dask", "pandas", "click"}
    assert not heavy & set(python(program, ROOT).split())


def test_every_public_name_is_there() -> None:
    assert set(dir(featreg)) == set(featreg.__all__)
    assert len(set(featreg.__all__)) == len(featreg.__all__)
    for name in featreg.__all__:
        value = getattr(featreg, name)
        assert name == "__version__" or value.__name__ == name
        assert getattr(featreg, name) is value
    with pytest.raises(AttributeError, match="nonsense"):
        featreg.nonsense  # noqa: B018
    assert not hasattr(featreg, "__wrapped__")


def test_a_clone_in_the_current_folder_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "featreg").symlink_to(ROOT)
    found = python("import featreg; print(featreg.__file__)", tmp_path, PYTHONPATH=str(ROOT))
    assert Path(found.strip()) == ROOT / "featreg" / "__init__.py"


@pytest.fixture(scope="module")
def vggish_files(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeded weights of VGGish and of its PCA."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(Network().state_dict(), folder / "vggish.safetensors")
    arrays = {name: torch.from_numpy(values) for name, values in pca(seeded).items()}
    save_file(
        {
            "eigen_vectors": arrays["pca_eigen_vectors"].contiguous(),
            "means": arrays["pca_means"][:, 0].contiguous(),
        },
        folder / "pca.safetensors",
    )
    return {"vggish": folder / "vggish.safetensors", "vggish_pca": folder / "pca.safetensors"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("audio")
    return [
        write(folder / "stereo.wav", tone(2.3, 44100, 2), 44100),
        write(folder / "mono.flac", tone(1.1, 22050, seed=1), 22050),
        write(folder / "long.ogg", tone(3.1, 48000, seed=2), 48000),
    ]


def test_values_and_times_are_those_of_the_shards(
    files: list[Path], vggish_files: dict[str, Path], tmp_path: Path
) -> None:
    specs = (
        FeatureSpec("audio", make_config("audio", {})),
        make_spec("vggish", "", make_config("vggish", {}), vggish_files, "cpu", "float32"),
        make_spec("musicnn", "", make_config("musicnn", {}), {}, "cpu", "float32"),
    )
    request, folder = Request(specs), DatasetDir(tmp_path / "three")
    dataset = Dataset("three", ("low", "high"), tuple(make_clip(path) for path in files))
    plan = make_plan(dataset, folder, request)
    assert not run_extraction(dataset, folder, ["vggish"], plan, Workers(0, 1)).failed
    for name, weights in (("audio", None), ("vggish", vggish_files), ("musicnn", None)):
        extractor = featreg.load_extractor(name, weights=weights)
        found = extractor(files)
        [path] = folder.path.rglob(f"native/{name}/*.h5")
        with native_shard(path) as shard:
            header = shard.header
            assert (header.dim, header.sample_rate) == (extractor.dim, extractor.sample_rate)
            assert (header.feature, header.timing.hop_s) == (extractor.name, extractor.hop_s)
            assert header.settings.items() >= extractor.settings.items()
            for file, (embeddings, times) in zip(files, found, strict=True):
                assert (embeddings.dtype, times.dtype) == (np.float32, np.float64)
                np.testing.assert_array_equal(embeddings, shard.values(file.stem))
                np.testing.assert_array_equal(times, header.timing.centers(len(times)))
        # 1e-5: float32 sums of other batches
        if name != "vggish":
            np.testing.assert_allclose(extractor(files[0])[0], found[0][0], atol=1e-5)


@pytest.fixture(scope="module")
def loudness() -> Any:
    return featreg.load_extractor("loudness:Loudness", gain=2)


def test_a_setting_is_a_number_or_its_text(loudness: Any) -> None:
    assert loudness.settings["gain"] == 2.0
    assert featreg.load_extractor("loudness:Loudness", gain="2").settings == loudness.settings


def test_a_file_and_its_array_give_the_same(loudness: Any, tmp_path: Path) -> None:
    samples = tone(1.7, 44100, 2)
    path = write(tmp_path / "float.wav", samples, 44100, subtype="FLOAT")
    expected, times = loudness(path)
    assert (expected.shape, times.tolist()) == ((3, 2), [0.25, 0.75, 1.25])
    for same in (str(path), samples, samples.tolist(), torch.from_numpy(samples)):
        if isinstance(same, list):
            same = np.array(same)
        np.testing.assert_array_equal(loudness(same, 44100)[0], expected)
    mono = samples.mean(axis=1)
    for same in (mono, mono[:, None], mono.astype(np.float64)):
        np.testing.assert_allclose(loudness(same, 44100)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "subtype"), [("int16", "PCM_16"), ("int32", "PCM_32")])
def test_integers_are_scaled_as_in_files(
    dtype: str, subtype: str, loudness: Any, tmp_path: Path
) -> None:
    scale = np.iinfo(dtype).max
    samples = (tone(1.0, 8000) * scale).astype(dtype)
    path = write(tmp_path / "integers.wav", samples, 8000, subtype=subtype)
    np.testing.assert_array_equal(loudness(samples, 8000)[0], loudness(path)[0])


def test_a_list_mixes_files_and_arrays_in_order(loudness: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 8000), 8000, subtype="FLOAT")
    clips = [tone(0.6, 16000, 1, k) for k in range(7)]
    found = loudness([*clips, path], 16000)
    for (values, times), clip in zip(found, [*clips, path], strict=True):
        np.testing.assert_array_equal(values, loudness(clip, 16000)[0])
        assert len(times) == len(values)
    assert loudness([]) == []


SIGNAL = tone(1.0, 16000)[:, 0]


@pytest.mark.parametrize(
    ("audio", "rate", "facts"),
    [
        (SIGNAL, None, ["sample_rate"]),
        (SIGNAL, 0, ["sample_rate", "0"]),
        (SIGNAL, 44.1, ["sample_rate", "44.1"]),
        (SIGNAL, "fast", ["sample_rate", "fast"]),
        (SIGNAL, float("nan"), ["sample_rate", "nan"]),
        (np.zeros((2, 48000)), 48000, ["(2, 48000)", "(samples, channels)", "audio.T"]),
        (np.zeros((2, 3, 4)), 16000, ["(2, 3, 4)"]),
        (np.float32(0.5), 16000, ["()"]),
        (np.zeros(0), 16000, ["(0,)"]),
        (np.zeros((0, 2)), 16000, ["(0, 2)", "no samples"]),
        (np.zeros(399), 16000, ["399 samples", "25 ms"]),
        (np.r_[SIGNAL, np.nan], 16000, ["sample 16000"]),
        (np.full(16000, 1e300), 16000, ["sample 0"]),
        (32768 * SIGNAL, 16000, ["[-1, 1]", "32768"]),
        (np.stack([SIGNAL, -SIGNAL], axis=1), 16000, ["channels cancel"]),
        (SIGNAL, 48, ["48", "1000"]),
        (np.array([0.5, None] * 8000), 16000, ["object"]),
        (SIGNAL > 0, 16000, ["bool"]),
        (SIGNAL.astype(np.int64), 16000, ["int64", "int16", "int32"]),
        (SIGNAL + 1j, 16000, ["complex"]),
        (None, 16000, ["NoneType"]),
        ([SIGNAL, SIGNAL[:9]], 16000, ["item 1", "9 samples"]),
        ([SIGNAL, None], 16000, ["item 1"]),
        (torch.ones(16000, requires_grad=True), 16000, ["Tensor", "grad"]),
    ],
)
def test_what_is_no_audio_is_one_clear_error(
    audio: Any, rate: Any, facts: list[str], loudness: Any
) -> None:
    with pytest.raises(featreg.UsageError) as caught:
        loudness(audio, rate)
    for fact in facts:
        assert fact in str(caught.value)


@pytest.mark.parametrize("audio", ["nowhere.wav", Path("nowhere.wav"), ["nowhere.wav", SIGNAL]])
def test_a_file_that_is_not_there_is_named(audio: Any, loudness: Any) -> None:
    with pytest.raises(featreg.ClipError, match=r"nowhere\.wav"):
        loudness(audio, 16000)


@pytest.mark.parametrize(
    ("name", "options", "facts"),
    [
        ("musicn", {}, ["'musicn'", "vggish", "openl3", "did you mean musicnn?"]),
        ("VGGish", {}, ["did you mean vggish?"]),
        ("", {}, ["''", "openl3"]),
        ("nowhere:Thing", {}, ["nowhere"]),
        ("loudness:Quietness", {}, ["Quietness", "Loudness"]),
        ("musicnn", {"hopp": 1}, ["musicnn.hopp", "hop", "output"]),
        ("musicnn", {"output": "mean"}, ["musicnn.output=mean", "mean_pool", "taggram"]),
        ("musicnn", {"hop": "often"}, ["musicnn.hop=often", "float"]),
        ("musicnn", {"hop": -1}, ["musicnn.hop"]),
        ("musicnn", {"precision": "float16"}, ["precision", "float16", "bfloat16"]),
        ("musicnn", {"resampler": "best"}, ["resampler", "best", "soxr_hq"]),
        ("musicnn", {"device": "gpu"}, ["device", "gpu"]),
        ("musicnn", {"weights": "no.h5"}, ["no.h5"]),
        ("musicnn", {"weights": {"vggish": "no.h5"}}, ["vggish", "musicnn-msd"]),
        ("vggish", {"weights": "no.h5"}, ["vggish", "vggish_pca"]),
        ("audio", {"weights": "no.h5"}, ["no.h5", "none"]),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(
    name: str, options: dict[str, Any], facts: list[str]
) -> None:
    with pytest.raises(featreg.UsageError) as caught:
        featreg.load_extractor(name, **options)
    for fact in facts:
        assert fact in str(caught.value)
    assert "--" not in str(caught.value)


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featreg.datasets.collections import fetch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FEATREG_WEIGHTS", raising=False)
    monkeypatch.setenv("FEATREG_WEIGHTS_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr(fetch, "BACKOFF_S", 0.0)
    with pytest.raises(featreg.FeatregError) as caught:
        featreg.load_extractor("openl3")
    for fact in ("openl3_audio_mel256_music-v0_4_0.h5.gz", str(tmp_path), "git-blob-sha1"):
        assert fact in str(caught.value)


def test_losses_say_what_shapes_they_take() -> None:
    conreg, disreg = featreg.ConReg(feature_dim=6, embedding_dim=4), featreg.DisReg()
    embedding, features = torch.randn(5, 3, 4), torch.randn(5, 7, 6)
    for loss in (conreg, disreg):
        assert loss(embedding, features).shape == ()
        assert loss(embedding, features, torch.ones(5, dtype=torch.bool)).shape == ()
        for wrong in (
            (embedding[:, 0], features),
            (embedding, features[0]),
            (embedding[:4], features),
            (embedding, features[:, :0]),
            (embedding, features, torch.ones(4)),
            (embedding, features, torch.ones(5, 1)),
        ):
            with pytest.raises(featreg.UsageError, match="shape"):
                loss(*wrong)
    with pytest.raises(featreg.UsageError, match="found 4 and 5"):
        conreg(embedding, features[..., :5])
