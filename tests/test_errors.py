"""``train errors``: the clips that it lists, the page and the table."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from click.testing import Result
from listening import Page, audio_of, listed_by_hand, predict_by_hand
from synthetic import RATE, TONES_HZ, header, write_toy
from toy_runs import CONCAT, CONREG, call, noise

from featreg.datasets.shards.csv_table import read_csv
from featreg.train.evaluation.evaluate_run import evaluate_run
from featreg.train.report.listening_page import write_listening_page
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]

CLASSES = list(TONES_HZ)
IDS = [f"test-00000-{k}" for k in range(4)]
ALIGNED = "toy/aligned/tones+noise-0.1s"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A working folder with a single-label run; the clips of a shard have no labels."""
    folder = tmp_path_factory.mktemp("single")
    shards = write_toy(folder, about=header(task="single-label"))
    with h5py.File(shards / "train-00001.h5", "r+") as shard:
        shard["label_mask"][...] = np.zeros_like(shard["label_mask"][()])
    run(CONREG, folder, "trained")
    run(CONCAT, folder, "concat")
    assert call(folder, "probe", "--run-name", "probe").exit_code == 0
    return folder


def copy_of(work: Path, target: Path, name: str = "trained") -> RunDir:
    """A run with its dataset in another working folder."""
    shutil.copytree(work / "toy", target / "toy")
    return RunDir(Path(shutil.copytree(work / "runs" / name, target / "runs" / name)))


def listed(work: Path, *arguments: str | Path) -> tuple[pd.DataFrame, Page, Result]:
    """The table and the page that the command writes to WORK/page.html."""
    result = call(work, "errors", *arguments, "-o", work / "page.html")
    assert isinstance(result.exception, SystemExit | None), result.exception
    table = pd.read_csv(work / "page.csv", keep_default_na=False)
    return table, Page(work / "page.html"), result


def of(table: pd.DataFrame, kind: str) -> list[tuple[str, str, float]]:
    """Clip, class and score of a list, in its order."""
    rows = table[table["list"] == kind]
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    return list(zip(rows["clip_id"], rows["class"], rows["score"], strict=True))


def test_one_class_per_clip(single: Path, tmp_path: Path) -> None:
    made = copy_of(single, tmp_path)
    p = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [1 / 3] * 3])
    predict_by_hand(made, IDS[::-1], p, np.eye(3)[[0, 0, 0, 0]], np.ones((4, 3)))
    table, page, _ = listed(tmp_path, "trained")
    assert of(table, "mistake") == [(IDS[1], "middle", 0.7), (IDS[3], "middle", 0.7)]
    assert [clip for clip, _, _ in of(table, "uncertain")] == [IDS[0], IDS[1], IDS[3], IDS[2]]
    assert of(table, "uncertain")[0] == (IDS[0], "", 1.0)
    first = table.iloc[0]
    assert (first["labels"], first["predicted"], first["split"]) == ("low", "middle", "test")
    assert first[[f"p:{name}" for name in CLASSES]].tolist() == [0.2, 0.7, 0.1]
    assert first[[f"true:{name}" for name in CLASSES]].astype(str).tolist() == ["1", "0", "0"]
    shown = [each.text for each in page.clips if each.section == "Most confident mistakes"]
    assert [clip in text for clip, text in zip((IDS[1], IDS[3]), shown, strict=True)] == [True] * 2
    assert "middle predicted (0.700), labelled low" in shown[0]
    assert "threshold" not in shown[0]


def test_several_classes_per_clip(trained: RunDir, work: Path, tmp_path: Path) -> None:
    made = copy_of(work, tmp_path)
    p = np.array([[0.9, 0.1, 0.5], [0.6, 0.2, 0.5], [0.6, 0.2, 0.5], [0.1, 0.9, 0.05]])
    label = np.array([[0, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 1]])
    mask = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    thresholds = {"low": 0.2, "middle": 0.4, "high": 0.1}
    predict_by_hand(made, IDS, p, label, mask, thresholds=thresholds)
    table, page, _ = listed(tmp_path, "trained", "--top", "2")
    assert of(table, "false positive") == [(IDS[1], "low", 0.5), (IDS[2], "low", 0.5)]
    # (0.4 - 0.1) / 0.4; the larger of (0.2 - 0.1) / 0.2 and (0.1 - 0.05) / 0.1, and of two the
    # first; clip 2 has 0.5 too and the lower id.
    assert of(table, "false negative") == [(IDS[0], "middle", 0.75), (IDS[2], "middle", 0.5)]
    unknown = table[table["clip_id"] == IDS[0]].iloc[0]
    assert unknown["labels"] == "middle; high"
    assert unknown[[f"true:{name}" for name in CLASSES]].astype(str).tolist() == ["", "1", "1"]
    assert unknown["predicted"] == "low; high"
    texts = {each.section: each.text for each in reversed(page.clips)}
    assert "low predicted (0.600, threshold 0.200)" in texts["Most confident false positives"]
    assert (
        "middle not predicted (0.100, threshold 0.400)" in texts["Most confident false negatives"]
    )
    assert "not annotated" in texts["Most confident false negatives"]


@pytest.mark.parametrize("limit", ["25", "0"])
def test_every_clip_has_a_player_with_its_audio(single: Path, limit: str, tmp_path: Path) -> None:
    copy_of(single, tmp_path)
    table, page, result = listed(tmp_path, "trained", "--top", "3", "--embed-limit", limit)
    assert result.exit_code == 0
    audio = audio_of(tmp_path / ALIGNED)
    assert len(page.clips) == len(table) > 6
    for shown, clip, file in zip(page.clips, table["clip_id"], table["audio"], strict=True):
        assert clip in shown.text
        np.testing.assert_array_equal(page.samples(shown), audio[clip])
        assert page.content(shown.image[0]).startswith(b"\xff\xd8\xff")
        assert shown.audio[0] == file if limit == "0" else shown.audio[0].startswith("data:")
    files = list((tmp_path / "page-audio").glob("*"))
    assert len(files) == (table["clip_id"].nunique() if limit == "0" else 0)
    assert ("page-audio" in result.output) == (limit == "0")


def test_the_limit_is_the_size_of_all_audio_in_the_page(single: Path, tmp_path: Path) -> None:
    copy_of(single, tmp_path)
    _, page, _ = listed(tmp_path, "trained", "--top", "2")
    size = sum(len(each.audio[0].partition(",")[2]) for each in page.clips)
    for limit, embedded in ((size, True), (size - 1, False)):
        megabytes = f"{limit / 1e6:.6f}"
        _, page, _ = listed(tmp_path, "trained", "--top", "2", "--embed-limit", megabytes)
        assert {each.audio[0].startswith("data:") for each in page.clips} == {embedded}


def test_clips_without_labels_are_ranked_by_entropy(single: Path, tmp_path: Path) -> None:
    copy_of(single, tmp_path)
    table, page, _ = listed(tmp_path, "trained", "--top", "4")
    rows = table[table["list"] == "to label"]
    assert len(of(table, "to label")) == 4
    assert rows["clip_id"].str.startswith("train-00001-").all()
    assert set(rows["labels"]) == set(rows["true:low"]) == {""}
    p = rows[[f"p:{name}" for name in CLASSES]].to_numpy(float)
    entropy = -(p * np.log(p)).sum(axis=1) / np.log(3)
    np.testing.assert_allclose(rows["score"], entropy, atol=1e-5)
    assert rows["score"].is_monotonic_decreasing
    assert "Clips to label next" in {each.section for each in page.clips}
    assert "Settles 2009" in (tmp_path / "page.html").read_text()


def test_files_are_ranked_with_the_clips_without_labels(single: Path, tmp_path: Path) -> None:
    copy_of(single, tmp_path)
    folder = tmp_path / "new"
    folder.mkdir()
    stored = (noise(2.0) * 32767).astype(np.int16)
    sf.write(folder / "good.wav", stored, RATE, subtype="PCM_16")
    (folder / "bad.wav").write_bytes(b"no audio")
    table, page, result = listed(tmp_path, "trained", "--to-label", folder)
    assert result.exit_code == 1
    assert "bad.wav" in result.output
    rows = table[table["list"] == "to label"]
    assert len(rows) == 7  # six clips and a file
    [file] = rows[rows["split"] == "file"]["clip_id"]
    assert file == str(folder / "good.wav")
    [shown] = [each for each in page.clips if file in each.text]
    # The file is scaled by 2^15 when it is read, and by 2^15 - 1 when it is stored.
    assert np.abs(page.samples(shown).astype(int) - stored).max() <= 1


@pytest.mark.parametrize("name", ["trained", "concat", "probe"])
def test_other_splits_are_predicted_from_the_shards(
    single: Path, name: str, tmp_path: Path
) -> None:
    copy_of(single, tmp_path, name)
    report = evaluate_run(RunDir(tmp_path / "runs" / name), tmp_path, "valid")
    table, _, result = listed(tmp_path, name, "--split", "valid", "--top", "99")
    assert result.exit_code == 0
    matrix = np.array(report["confusion"])
    assert len(of(table, "mistake")) == matrix.sum() - matrix.trace()
    uncertain = table[table["list"] == "uncertain"]
    assert len(uncertain) == matrix.sum() == 8
    predicted = uncertain["predicted"].value_counts()
    assert [predicted.get(each, 0) for each in CLASSES] == matrix.sum(axis=0).tolist()
    assert set(uncertain["split"]) == {"valid"}


@pytest.mark.parametrize("name", ["trained", "concat", "probe"])
def test_test_clips_have_the_probabilities_that_the_run_stored(
    single: Path, name: str, tmp_path: Path
) -> None:
    made = copy_of(single, tmp_path, name)
    table, _, _ = listed(tmp_path, name, "--top", "99")
    found = table[table["list"] == "uncertain"].set_index("clip_id")
    stored = pd.read_csv(made.path / "predictions.csv", index_col="clip_id").loc[found.index]
    assert len(found) == 9
    for each in CLASSES:
        np.testing.assert_allclose(found[f"p:{each}"], stored[each], atol=1e-6)
        assert found[f"true:{each}"].astype(int).tolist() == stored[f"true:{each}"].tolist()


@pytest.mark.parametrize("limit", [0, 1e6])
def test_names_are_escaped(limit: float, tmp_path: Path) -> None:
    hostile, script = '"><img src=x onerror=alert(1)>/\u00fc\udcff', '<script>alert("low")</script>'
    samples = (noise(0.01) * 32767).astype(np.int16)
    found = listed_by_hand([hostile], [samples], (script, "a;b, c", "list"))
    write_listening_page(tmp_path / "a page?.html", found, limit)
    page = Page(tmp_path / "a page?.html")
    [shown] = page.clips
    assert hostile.replace("\udcff", r"\udcff") in shown.text
    assert f"{script} predicted (0.700), labelled list" in shown.text
    np.testing.assert_array_equal(page.samples(shown), samples)
    assert (tmp_path / "a page?-audio").is_dir() == (limit == 0)
    table = read_csv(tmp_path / "a page?.csv")
    assert table["clip_id"][0] == hostile
    assert table["p:list"][0] == 0.1
