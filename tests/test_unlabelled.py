"""Training clips without labels: their choice, their place in batches, and their gradients."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lives import live, start
from safetensors.torch import load_file
from small_runs import config
from synthetic import header, write_toy
from toy_runs import CONREG

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.config.config import Config
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.data.clip_reader import ClipReader
from featreg.train.data.crops import Batch, EpochOrder
from featreg.train.data.unlabelled import (
    TrainingClips,
    UnlabelledCycle,
    stratified_order,
    training_clips,
)
from featreg.train.training.build import build_objective
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

MIXED = dataclasses.replace(CONREG, reg="hint", label_fraction=0.5, unlabelled_batch=3)
LABELS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 6)),
    elements=st.integers(0, 1),
)


def aligned(work: Path) -> AlignedSet:
    return AlignedSet(work / "toy/aligned/tones+noise-0.1s")


@given(label=LABELS, seed=st.integers(0, 99))
def test_the_first_clips_contain_every_class(label: np.ndarray, seed: int) -> None:
    order = stratified_order(label, seed)
    assert sorted(order) == list(range(len(label)))
    # A class or a clip without a class is found at the latest after one clip for each of them.
    kinds = int(label.any(axis=0).sum()) + int((~label.any(axis=1)).any())
    assert (label[order[:kinds]].any(axis=0) == label.any(axis=0)).all()


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    p=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_each_single_label_class_keeps_its_share(counts: list[int], p: float, seed: int) -> None:
    label = np.eye(len(counts), dtype=np.uint8)[np.repeat(np.arange(len(counts)), counts)]
    chosen = stratified_order(label, seed)[: round(p * len(label))]
    found = label[chosen].sum(axis=0)
    share = len(chosen) / len(label)
    # One clip of each class comes first, whatever its size, so shares may differ by that.
    tolerance = 1 + len(counts) * np.array(counts) / len(label)
    assert (np.abs(found - share * np.array(counts)) <= tolerance).all()


def test_a_smaller_fraction_of_the_labels_is_a_subset(work: Path) -> None:
    clips = aligned(work).split("train")
    chosen = [training_clips(clips, p, seed=3) for p in (0.1, 0.25, 0.5, 1.0)]
    assert [each.labelled for each in chosen] == [2, 4, 8, 16]
    assert [each.unlabelled for each in chosen] == [14, 12, 8, 0]
    for small, large in itertools.pairwise(chosen):
        ids = [set(each.clips.clip_id[: each.labelled]) for each in (small, large)]
        assert ids[0] < ids[1]
    for each in chosen:
        assert sorted(each.clips.clip_id) == sorted(clips.clip_id)
        assert each.clips.label_mask[: each.labelled].all()
        assert not each.clips.label_mask[each.labelled :].any()
        assert not each.clips.label[each.labelled :].any()
    assert clips.label_mask.all()  # unchanged
    other = training_clips(clips, 0.5, seed=4)
    assert set(other.clips.clip_id[:8]) != set(chosen[2].clips.clip_id[:8])


def cycle(labelled: int, unlabelled: int, per_batch: int, seed: int = 0) -> UnlabelledCycle:
    class Clips(list[None]):
        pass

    clips: Any = Clips([None] * (labelled + unlabelled))
    return UnlabelledCycle(TrainingClips(clips, labelled), per_batch, seed)


@given(
    labelled=st.integers(2, 40),
    unlabelled=st.integers(1, 30),
    batch_size=st.integers(2, 9),
    per_batch=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_batches_hold_labelled_and_unlabelled_clips(
    labelled: int, unlabelled: int, batch_size: int, per_batch: int, seed: int
) -> None:
    plain = EpochOrder(labelled, batch_size, seed, 0, 1)
    mixed = EpochOrder(
        labelled, batch_size, seed, 0, 1, cycle(labelled, unlabelled, per_batch, seed)
    )
    drawn: list[tuple[int, int]] = []
    for epoch in range(4):
        plain.epoch = mixed.epoch = epoch
        for one, other in zip(plain, mixed, strict=True):
            assert other[: len(one)] == one  # the labelled clips of a run on labels alone
            assert len(other) == len(one) + per_batch
            drawn += other[len(one) :]
    for number, start_ in enumerate(range(0, len(drawn) - unlabelled + 1, unlabelled)):
        one_pass = drawn[start_ : start_ + unlabelled]
        assert {key for key, _ in one_pass} == {number}
        assert sorted(clip for _, clip in one_pass) == list(range(labelled, labelled + unlabelled))
    counts = Counter(clip for _, clip in drawn).values()
    assert max(counts) - min([*counts, *[0] * (unlabelled - len(counts))]) <= 1


@given(steps=st.integers(0, 6), world=st.integers(1, 2))
def test_an_epoch_resumes_and_is_shared_among_devices(steps: int, world: int) -> None:
    def order(rank: int, world: int, per_batch: int) -> EpochOrder:
        each = EpochOrder(24, 4 // world, 1, rank, world, cycle(24, 11, per_batch))
        each.epoch = 2
        return each

    whole = list(order(0, 1, 6))
    resumed = order(0, 1, 6)
    resumed.done = steps
    assert list(resumed) == whole[steps:]
    shares = [list(order(rank, world, 6 // world)) for rank in range(world)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)


def batch_of(n: int, seed: int = 0) -> Batch:
    """Random crops of the toy dataset's shape, all with labels."""
    draw = torch.Generator().manual_seed(seed)
    label = (torch.rand(n, 3, generator=draw) < 0.5).float()
    audio = 0.1 * torch.randn(n, 16000, generator=draw)
    features = torch.randn(n, 10, 7, generator=draw)
    return Batch(audio, features, label, torch.ones(n, 3), torch.arange(n))


def joined(one: Batch, other: Batch) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(one, other, strict=True)))


def test_unlabelled_clips_take_part_in_the_regularizer_alone(work: Path) -> None:
    """In evaluation mode, where no statistics of a batch connect its clips."""
    alone = build_objective(dataclasses.replace(MIXED, unlabelled_batch=0), aligned(work)).eval()
    mixed = build_objective(MIXED, aligned(work)).eval()
    labelled, others = batch_of(5), batch_of(3, seed=1)
    both = joined(labelled, others)
    losses = mixed(both._replace(label_mask=torch.cat([torch.ones(5, 3), torch.zeros(3, 3)])))
    torch.testing.assert_close(losses.task, alone(labelled).task)
    torch.testing.assert_close(losses.regularization, alone(both).regularization)
    torch.testing.assert_close(losses.total, losses.task + 0.5 * losses.regularization)
    assert losses.task.item() != pytest.approx(alone(both).task.item())
    without = mixed(both._replace(label=1 - both.label, label_mask=torch.zeros(8, 3)))
    assert without.task.item() == 0
    torch.testing.assert_close(without.regularization, losses.regularization)


@pytest.mark.parametrize("fusion", ["none", "concat", "film"])
def test_gradients_of_unlabelled_clips_reach_the_encoder_and_not_the_decoder(
    work: Path, fusion: str
) -> None:
    objective = build_objective(dataclasses.replace(MIXED, fusion=fusion), aligned(work)).train()
    both = joined(batch_of(5), batch_of(3, seed=1))
    audio = both.audio.requires_grad_()
    losses = objective(both)
    (gradient,) = torch.autograd.grad(losses.regularization, audio, retain_graph=True)
    assert gradient[5:].abs().amax(dim=1).gt(0).all()
    decoder = list(objective.tagger.decoder.parameters())
    gradients = torch.autograd.grad(
        losses.regularization, decoder, retain_graph=True, allow_unused=True
    )
    assert all(each is None for each in gradients)
    # The decoder normalizes the labelled clips only.
    hidden: list[int] = []
    objective.tagger.decoder.fc_1.register_forward_hook(lambda *them: hidden.append(len(them[2])))
    objective(both)
    assert hidden == [5]


def numbers(folder: RunDir) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    curves = pd.read_csv(folder.path / "metrics.csv").drop(columns="seconds")
    return curves, load_file(folder.path / "model.safetensors")


def test_a_killed_run_with_unlabelled_clips_resumes_exactly(work: Path) -> None:
    small = dataclasses.replace(MIXED, recipe=dataclasses.replace(MIXED.recipe, batch_size=2))
    for name, deaths in (("whole", [0]), ("killed", [2, 4, 0])):
        for count in deaths:
            process = start(live, work, small.to_json(), name, "step", count, 0.0)
            process.join(120)
            assert process.exitcode == (-9 if count else 0)
    (curves, weights), (curves_2, weights_2) = (
        numbers(RunDir(work / "runs" / name)) for name in ("whole", "killed")
    )
    pd.testing.assert_frame_equal(curves, curves_2, check_exact=True)
    assert all(torch.equal(weights[name], weights_2[name]) for name in weights)


def test_the_configuration_of_a_run_says_which_clips_took_part(work: Path) -> None:
    folder = run(MIXED, work)
    assert folder.name.startswith("toy-hint-tones+noise-a0.5-labels0.5-unlabelled3-")
    about = folder.read_json("config.json")
    assert Config.from_json(about["config"]) == MIXED
    assert about["data"]["clips"] == {"train": 8, "unlabelled": 8, "valid": 8, "test": 9}


def test_labels_alone_are_trained_as_if_the_other_clips_were_not_there(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = dataclasses.replace(MIXED, unlabelled_batch=0)
    folder = run(few, work, name="few")
    assert "8 of 16" in caplog.text
    assert folder.read_json("config.json")["data"]["clips"]["train"] == 8


def test_unlabelled_clips_take_part_in_the_standardization(work: Path) -> None:
    recipe = dataclasses.replace(MIXED.recipe, feature_norm="standardize", epochs=1)
    found = {}
    for per_batch in (0, 3):
        each = dataclasses.replace(MIXED, recipe=recipe, unlabelled_batch=per_batch)
        folder = run(each, work, name=f"scaled-{per_batch}")
        with np.load(folder.path / "scaling.npz") as scaling:
            found[per_batch] = scaling["mean"]
    clips = aligned(work).split("train")
    frames = np.concatenate(list(ClipReader(clips, aligned(work).dims(("tones", "noise")))))
    np.testing.assert_allclose(found[3], frames.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0], found[3])


def hide_labels(folder: Path, split: str, clips: slice) -> None:
    with h5py.File(folder / f"{split}-00000.h5", "r+") as shard:
        mask = shard["label_mask"][()]
        mask[clips] = 0
        shard["label_mask"][...] = mask


@pytest.mark.parametrize("split", ["valid", "test"])
def test_unlabelled_clips_are_for_training_only(tmp_path: Path, split: str) -> None:
    hide_labels(write_toy(tmp_path), split, slice(2, 5))
    with pytest.raises(FeatregError, match=f"split {split}: 3 of . clips .* {split}-00000-2"):
        run(config(), tmp_path)
    assert not (tmp_path / "runs").exists()


def test_listed_clips_without_labels_are_used(tmp_path: Path) -> None:
    hide_labels(write_toy(tmp_path), "train", slice(0, 4))
    folder = run(dataclasses.replace(MIXED, label_fraction=1.0), tmp_path)
    assert folder.read_json("config.json")["data"]["clips"]["unlabelled"] == 4


def test_a_training_split_without_labels_is_refused(tmp_path: Path) -> None:
    folder = write_toy(tmp_path, {"train": (9,), "valid": (8,), "test": (9,)})
    hide_labels(folder, "train", slice(None))
    with pytest.raises(FeatregError, match="split train: no clip has labels"):
        run(config(), tmp_path)


def test_without_unlabelled_clips_there_is_nothing_to_draw(work: Path) -> None:
    with pytest.raises(UsageError, match="--unlabelled-batch 3: all 16 training clips"):
        run(dataclasses.replace(MIXED, label_fraction=1.0), work)


def test_a_single_label_task_trains_with_unlabelled_clips(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(task="single-label"))
    folder = run(dataclasses.replace(MIXED, metric="accuracy"), tmp_path)
    assert pd.read_csv(folder.path / "metrics.csv")["reg_loss"].gt(0).all()
