"""One shard from audio to disk: decode its clips, compute every feature, write.

Decoding of the next clips goes on while the network runs. Everything that runs in
parallel runs this, and so does a single process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio import decode, fingerprint, resample
from featreg.datasets.base import Clip, ClipError
from featreg.datasets.native import Failure, NativeWriter, native_writer

from .plan import SILENCE, Account, Request, ShardJob, header_of
from .stream import Array, Batcher

# Clips decoded ahead of the network.
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip as every extractor hears it: one signal for each rate."""

    duration_s: float
    signals: dict[int, npt.NDArray[np.float32]]
    seconds: dict[str, float]


def hear(clip: Clip, rates: Iterable[int], request: Request) -> Heard:
    """Decode a clip once, and resample it to each of `rates`.

    Raises
    ------
    ClipError
        If the file cannot be decoded, or is silent and silence is not kept.
    """
    begin = time.perf_counter()
    signal, rate = decode(clip)
    if not request.keep_silent and not signal.any():
        raise ClipError(
            SILENCE,
            f"{clip.path}: all of its {len(signal) / rate:.2f} s are zero; "
            "keep such clips with --keep-silent",
        )
    decoded = time.perf_counter()
    signals = {target: resample(signal, rate, target, request.resampler) for target in rates}
    seconds = {"decode": decoded - begin, "resample": time.perf_counter() - decoded}
    return Heard(len(signal) / rate, signals, seconds)


def extract_shard(job: ShardJob) -> Account:
    """Compute every feature of the shard's clips, and write one shard for each feature."""
    import torch

    torch.set_num_threads(job.threads)
    begin = time.perf_counter()
    extractors = [spec.extractor() for spec in job.request.features]
    rates = sorted({extractor.sample_rate for extractor in extractors})
    clips = job.folder.read_clips(job.split, job.first, job.last)
    audio = {clip.clip_id: fingerprint(clip) for clip in clips}
    files = {
        each.name: {clip.clip_id: each.fingerprint(clip, audio[clip.clip_id]) for clip in clips}
        for each in extractors
    }
    durations: dict[str, float] = {}
    failures: list[Failure] = []
    spent = dict.fromkeys(("decode", "resample", "write"), 0.0)

    def deliver(name: str, clip_id: str, rows: Array) -> None:
        start = time.perf_counter()
        writers[name].append(clip_id, rows, durations[clip_id], files[name][clip_id])
        spent["write"] += time.perf_counter() - start

    def fail(name: str, clip_id: str, error: ClipError) -> None:
        failure = Failure(clip_id, error.stage, error.reason, files[name][clip_id])
        failures.append(failure)
        writers[name].fail(failure)

    with ExitStack() as stack:
        writers: dict[str, NativeWriter] = {
            each.name: stack.enter_context(
                native_writer(job.path(each.name), header_of(each, job.folder.name, job.request))
            )
            for each in extractors
        }
        batchers = [Batcher(each, partial(deliver, each.name)) for each in extractors]
        for clip, outcome in _hear_ahead(clips, rates, job.request):
            if isinstance(outcome, ClipError):
                for extractor in extractors:
                    fail(extractor.name, clip.clip_id, outcome)
                continue
            durations[clip.clip_id] = outcome.duration_s
            for stage, seconds in outcome.seconds.items():
                spent[stage] += seconds
            for extractor, batcher in zip(extractors, batchers, strict=True):
                try:
                    batcher.push(clip.clip_id, outcome.signals[extractor.sample_rate])
                except ClipError as error:
                    fail(extractor.name, clip.clip_id, error)
        for batcher in batchers:
            batcher.flush()
    spent["total"] = time.perf_counter() - begin
    written = sum(job.path(extractor.name).stat().st_size for extractor in extractors)
    return Account(durations, tuple(failures), spent, written)


def _hear_ahead(
    clips: Sequence[Clip], rates: Sequence[int], request: Request
) -> Iterator[tuple[Clip, Heard | ClipError]]:
    """Each clip as heard, or why not; the next ones are decoded meanwhile."""

    def outcome(clip: Clip) -> Heard | ClipError:
        try:
            return hear(clip, rates, request)
        except ClipError as error:
            return error

    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        rest = iter(clips)
        waiting: deque[tuple[Clip, Future[Heard | ClipError]]] = deque(
            (clip, pool.submit(outcome, clip)) for clip in islice(rest, _AHEAD)
        )
        while waiting:
            clip, future = waiting.popleft()
            yield clip, future.result()
            waiting.extend(
                (following, pool.submit(outcome, following)) for following in islice(rest, 1)
            )
