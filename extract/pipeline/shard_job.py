"""One shard from audio to disk: decode its clips, compute every feature, write.

Decoding of the next clips goes on in other processes while the network runs here.
Whatever runs on many machines runs this, and so does a single process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from featreg.datasets.allocator import keep_memory
from featreg.datasets.audio.decode import fingerprint
from featreg.datasets.base import Clip, ClipError, FeatregError
from featreg.datasets.shards.native import (
    Failure,
    NativeShard,
    NativeWriter,
    native_shard,
    native_writer,
)

from ..extractors.base import Array, Batcher, Extractor
from ..extractors.registry import FeatureSpec, build_extractors
from .child_process import peak_bytes
from .dask_pool import count_gpus, still_wanted, threads_here
from .decode import DecodedClip, DecodeOptions
from .decoder_pool import Decoders, decoders_here
from .isolate_clips import Trial
from .plan import Request, ShardJob, ShardResult, difference, gives, header_of
from .watchdog import Watchdog

# A Dask worker with several threads is given several shards: they take turns.
_turn = threading.Lock()


def extract_shard(job: ShardJob) -> ShardResult:
    """Compute every feature of the shard's clips, and write one shard for each feature."""
    if not job.folder.path.is_dir():
        raise FeatregError(
            f"{job.folder.path}: no such folder on {socket.gethostname()}; workers must see the "
            "working folder, the audio and the weights under the same paths as this machine"
        )
    keep_memory()
    with _turn:
        if not still_wanted():
            raise FeatregError(f"{job}: the run that asked for it has ended")
        job = replace(job, threads=job.threads or threads_here())
        extractors = build_extractors(job.request.features, job.threads)
        _check_planned(job, extractors)
        on_gpu = any(spec.device != "cpu" for spec in job.request.features)
        if on_gpu and not count_gpus("auto"):
            raise FeatregError(
                f"--device cuda: torch sees no GPU on worker {socket.gethostname()}:{os.getpid()}; "
                "give the cluster only workers that have one, or use --device cpu"
            )
        decoders = decoders_here(_decoders(job.threads, on_gpu), job.clip_timeout_s)
        return _extract(job, extractors, decoders)


def _check_planned(job: ShardJob, extractors: Sequence[Extractor]) -> None:
    """Refuse to compute what was not planned.

    A process that has lived long, or started late, may have imported other code, or read
    other weights, than there were when the plan was made.
    """
    for extractor in extractors:
        found = header_of(extractor, job.folder.name, job.request)
        if reason := difference(found, job.headers.get(extractor.name, found)):
            raise FeatregError(
                f"{extractor.name}: worker {socket.gethostname()}:{os.getpid()} has other code or "
                f"weights than were planned ({reason}); restart the workers of your cluster, if "
                "you have one, and run the same command again"
            )


def _decoders(threads: int, on_gpu: bool) -> int:
    """Decoders beside a network: a fraction of its threads on CPU, all other cores for a GPU."""
    return max(1, threads - 1) if on_gpu else 1 + threads // 4


def _extract(job: ShardJob, extractors: Sequence[Extractor], decoders: Decoders) -> ShardResult:
    audio = {clip.clip_id: fingerprint(clip) for clip in job.clips}
    durations: dict[str, float] = {}
    audio_s = 0.0
    spent = dict.fromkeys(("read", "decode", "resample", "network", "write"), 0.0)
    with ExitStack() as stack:
        trial = Trial(job.threads, job.clip_timeout_s) if job.careful else None
        if trial:
            stack.enter_context(closing(trial))
        streams = [
            stack.enter_context(_open_stream(spec, extractor, job, audio))
            for spec, extractor in zip(job.request.features, extractors, strict=True)
        ]
        lacking = [clip for clip in job.clips if not all(stream.has(clip) for stream in streams)]
        heard = decoders.hear_all(lacking, _hearing(job.request, extractors))
        stack.enter_context(closing(heard))
        for clip in job.clips:
            outcome = next(heard)[1] if clip in lacking else None
            if isinstance(outcome, DecodedClip):
                audio_s += outcome.duration_s
                durations[clip.clip_id] = outcome.duration_s
                for stage, seconds in outcome.seconds.items():
                    spent[stage] += seconds
            for stream in streams:
                if stream.has(clip):
                    durations[clip.clip_id] = stream.copy(clip)
                elif isinstance(outcome, DecodedClip):
                    stream.add(clip, outcome, trial)
                elif outcome is not None:
                    stream.fail(clip.clip_id, outcome)
        if trial:
            trial.absolve()
        for stream in streams:
            stream.finish()
            stream.keep(job.beyond)
        begin = time.perf_counter()
    spent["write"] = time.perf_counter() - begin + sum(stream.write_s for stream in streams)
    spent["network"] = sum(stream.network_s for stream in streams)
    return ShardResult(
        durations=durations,
        failures=tuple(failure for stream in streams for failure in stream.failures),
        tried=len(lacking),
        audio_s=audio_s,
        seconds=spent,
        network={stream.name: stream.network_s for stream in streams},
        rows={stream.name: stream.rows for stream in streams},
        written={each.name: each.share(job.path(each.name).stat().st_size) for each in streams},
        worker=f"{socket.gethostname()}:{os.getpid()}",
        peak_bytes=peak_bytes() + decoders.peak_bytes,
        threads=job.threads,
        notes=tuple(
            f"{job.path(stream.name)}: rows of {len(stream.damaged)} clips were damaged, "
            f"{stream.damaged[0]} among them; {_fate(stream.damaged, job)}"
            for stream in streams
            if stream.damaged
        ),
    )


def _hearing(request: Request, extractors: Sequence[Extractor]) -> DecodeOptions:
    rates = tuple(sorted({extractor.sample_rate for extractor in extractors}))
    return DecodeOptions(rates, request.resampler, request.keep_silent)


class _Stream:
    """One feature's part of a shard: computes its rows and writes them.

    Attributes
    ----------
    failures
        Clips without rows.
    damaged
        Clips whose rows were there and cannot be read.
    network_s, write_s
        Seconds that computing and writing took.
    rows
        Rows computed.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        extractor: Extractor,
        writer: NativeWriter,
        files: Mapping[str, str],
        kept: NativeShard | None,
        watchdog: Watchdog,
    ) -> None:
        self.name = extractor.name
        self._spec = spec
        self._rate = extractor.sample_rate
        self._batcher = Batcher(extractor, self._deliver, watchdog)
        self._writer = writer
        self._files = files
        self._kept = kept
        self.damaged = _unreadable(kept) if kept else []
        self._durations: dict[str, float] = {}
        self.failures: list[Failure] = []
        self.network_s, self.write_s, self.rows = 0.0, 0.0, 0
        self._kept_rows = 0

    def has(self, clip: Clip) -> bool:
        """Whether the clip's rows are there already, of the file as it is now."""
        kept, key = self._kept, clip.clip_id
        if kept is None or key in self.damaged:
            return False
        return gives(kept, key, self._files[key])

    def copy(self, clip: Clip) -> float:
        """Take over the rows that are there; return the clip's seconds."""
        assert self._kept is not None
        self.finish()  # clips keep their order
        return self._copy(self._kept, clip.clip_id)

    def keep(self, clips: Collection[str]) -> None:
        """Take over what is there of other clips than the shard's job names."""
        if self._kept is None:
            return
        for clip_id in self._kept.clip_ids:
            if clip_id in clips and clip_id not in self.damaged:
                self._copy(self._kept, clip_id)
        for failure in self._kept.failures:
            if failure.clip_id in clips:
                self._writer.fail(failure)

    def _copy(self, kept: NativeShard, clip_id: str) -> float:
        duration_s = kept.durations[clip_id]
        rows = kept.stored(clip_id)
        self._kept_rows += len(rows)
        self._writer.append(clip_id, rows, duration_s, kept.fingerprints[clip_id])
        return duration_s

    def share(self, size: int) -> int:
        """Of the shard's bytes, those of the rows that were computed and not taken over."""
        return size * self.rows // max(1, self.rows + self._kept_rows)

    def add(self, clip: Clip, heard: DecodedClip, trial: Trial | None = None) -> None:
        """Compute the clip's rows, and write those of all clips that are complete."""
        self._durations[clip.clip_id] = heard.duration_s
        signal = heard.signals[self._rate]
        try:
            if trial:
                trial.check(self._spec, clip, signal)
            with self._computing():
                self._batcher.push(clip.clip_id, signal)
        except ClipError as error:
            self.fail(clip.clip_id, error)

    def fail(self, clip_id: str, error: ClipError) -> None:
        """Record that the clip has no rows."""
        file = self._files[clip_id]
        self.failures.append(Failure(clip_id, error.stage, error.reason, file))
        self._writer.fail(self.failures[-1])

    def finish(self) -> None:
        """Compute and write what still waits for a full batch."""
        with self._computing():
            self._batcher.flush()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        begin, written_s = time.perf_counter(), self.write_s
        yield
        self.network_s += time.perf_counter() - begin - (self.write_s - written_s)

    def _deliver(self, clip_id: str, rows: Array | ClipError) -> None:
        if isinstance(rows, ClipError):
            self.fail(clip_id, rows)
            return
        begin = time.perf_counter()
        self._writer.append(clip_id, rows, self._durations[clip_id], self._files[clip_id])
        self.rows += len(rows)
        self.write_s += time.perf_counter() - begin


@contextmanager
def _open_stream(
    spec: FeatureSpec, extractor: Extractor, job: ShardJob, audio: Mapping[str, str]
) -> Iterator[_Stream]:
    path = job.path(extractor.name)
    files = {clip.clip_id: extractor.fingerprint(clip, audio[clip.clip_id]) for clip in job.clips}
    header = header_of(extractor, job.folder.name, job.request)
    with ExitStack() as stack:
        kept = None
        if extractor.name in job.keep:
            kept = stack.enter_context(native_shard(path))
        writer = stack.enter_context(native_writer(path, header))
        yield _Stream(spec, extractor, writer, files, kept, Watchdog(job.clip_timeout_s))


def _fate(damaged: Sequence[str], job: ShardJob) -> str:
    """What becomes of clips whose rows were damaged."""
    later = len(job.beyond.intersection(damaged))
    if not later:
        return "they are computed anew"
    return f"{later} of them, beyond the limit of this run, are left to a run without --limit"


def _unreadable(shard: NativeShard) -> list[str]:
    """Clips of a shard whose rows are damaged."""
    found = []
    for clip_id in shard.clip_ids:
        try:
            shard.stored(clip_id)
        except FeatregError:
            found.append(clip_id)
    return found
