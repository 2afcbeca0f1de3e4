"""One extraction job: decode the clips, compute the features, write the shards.

While the network runs in this process, the next clips are decoded in child processes. Dask workers
call the same function as a run without Dask.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial

from featreg.datasets.allocator import keep_memory
from featreg.datasets.audio.decode import fingerprint
from featreg.datasets.base import Clip, ClipError, FeatregError
from featreg.datasets.shards.native import Failure, NativeWriter, native_writer

from ..extractors.base import Array, Extractor
from ..extractors.batching import Batcher
from ..extractors.registry import FeatureSpec, build_extractors
from .child_process import peak_bytes
from .dask_pool import count_gpus, still_wanted, threads_here
from .decode import DecodedClip, DecodeOptions
from .decoder_pool import Decoders, decoders_here
from .isolate_clips import ClipIsolation, time_limit
from .plan import ShardJob, ShardResult, difference, header_of

# A Dask worker with several threads receives several jobs, which run one after another.
_turn = threading.Lock()


def extract_shard(job: ShardJob) -> ShardResult:
    """Compute every feature of the job's clips, and write one shard for each feature."""
    if not job.folder.path.is_dir():
        raise FeatregError(
            f"{job.folder.path}: no such folder on {socket.gethostname()}; the working folder, the "
            "audio and the weights must have the same paths on all workers and on this machine"
        )
    keep_memory()
    with _turn:
        if not still_wanted():
            raise FeatregError(f"{job}: the run has ended")
        job = replace(job, threads=job.threads or threads_here())
        extractors = build_extractors(job.request.features, job.threads)
        _check_planned(job, extractors)
        on_gpu = any(spec.device != "cpu" for spec in job.request.features)
        if on_gpu and not count_gpus("auto"):
            raise FeatregError(
                f"--device cuda: no GPU found on worker {socket.gethostname()}:{os.getpid()}; "
                "use a cluster in which every worker has a GPU, or use --device cpu"
            )
        decoders = decoders_here(_decoders(job.threads, on_gpu), job.clip_timeout_s)
        return _extract(job, extractors, decoders)


def _check_planned(job: ShardJob, extractors: Sequence[Extractor]) -> None:
    """Check that the extractors match the plan.

    The code or weights of a worker may differ from those of the plan, for example if it was started
    before or after an update.
    """
    for extractor in extractors:
        found = header_of(extractor, job.folder.name, job.request)
        if reason := difference(found, job.headers.get(extractor.name, found)):
            raise FeatregError(
                f"{extractor.name}: worker {socket.gethostname()}:{os.getpid()} has other code or "
                f"weights than this machine ({reason}); restart the workers of the cluster, if "
                "any, and run the same command again"
            )


def _decoders(threads: int, on_gpu: bool) -> int:
    """Number of decoders: a fraction of the network's threads on CPU, other cores with a GPU."""
    return max(1, threads - 1) if on_gpu else 1 + threads // 4


def _extract(job: ShardJob, extractors: Sequence[Extractor], decoders: Decoders) -> ShardResult:
    audio = {clip.clip_id: fingerprint(clip) for clip in job.clips}
    durations: dict[str, float] = {}
    spent = dict.fromkeys(("read", "decode", "resample", "network", "write"), 0.0)
    rates = tuple(sorted({extractor.sample_rate for extractor in extractors}))
    options = DecodeOptions(rates, job.request.resampler, job.request.keep_silent)
    with ExitStack() as stack:
        isolation = ClipIsolation(job.threads, job.clip_timeout_s) if job.isolate else None
        if isolation:
            stack.enter_context(closing(isolation))
        streams = []
        for spec, extractor in zip(job.request.features, extractors, strict=True):
            header = header_of(extractor, job.folder.name, job.request)
            writer = stack.enter_context(native_writer(job.path(spec.name), header))
            prints = {
                clip.clip_id: extractor.fingerprint(clip, audio[clip.clip_id]) for clip in job.clips
            }
            streams.append(_Stream(spec, extractor, writer, prints, job.clip_timeout_s))
        decoded = stack.enter_context(closing(decoders.decode_all(job.clips, options)))
        for clip, outcome in decoded:
            if isinstance(outcome, ClipError):
                for stream in streams:
                    stream.fail(clip.clip_id, outcome)
                continue
            durations[clip.clip_id] = outcome.duration_s
            for stage, seconds in outcome.seconds.items():
                spent[stage] += seconds
            for stream in streams:
                stream.add(clip, outcome, isolation)
        if isolation:
            isolation.check_causes()
        for stream in streams:
            stream.finish()
        begin = time.perf_counter()
    spent["write"] = time.perf_counter() - begin + sum(stream.write_s for stream in streams)
    spent["network"] = sum(stream.network_s for stream in streams)
    return ShardResult(
        durations=durations,
        failures=tuple(failure for stream in streams for failure in stream.failures),
        seconds=spent,
        written={spec.name: job.path(spec.name).stat().st_size for spec in job.request.features},
        worker=f"{socket.gethostname()}:{os.getpid()}",
        peak_bytes=peak_bytes() + decoders.peak_bytes,
    )


class _Stream:
    """One feature's part of a job: computes its frames and writes them.

    Attributes
    ----------
    failures
        Clips without frames.
    network_s, write_s
        Seconds spent in computing and in writing.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        extractor: Extractor,
        writer: NativeWriter,
        fingerprints: Mapping[str, str],
        clip_timeout_s: float,
    ) -> None:
        self._spec = spec
        self._rate = extractor.sample_rate
        self._batcher = Batcher(extractor, self._deliver, partial(time_limit, clip_timeout_s))
        self._writer = writer
        self._fingerprints = fingerprints
        self._durations: dict[str, float] = {}
        self.failures: list[Failure] = []
        self.network_s, self.write_s = 0.0, 0.0

    def add(self, clip: Clip, decoded: DecodedClip, isolation: ClipIsolation | None) -> None:
        """Compute the clip's frames, and write those of all clips that are complete."""
        self._durations[clip.clip_id] = decoded.duration_s
        signal = decoded.signals[self._rate]
        try:
            if isolation:
                isolation.check(self._spec, clip, signal)
            with self._computing():
                self._batcher.push(clip.clip_id, signal)
        except ClipError as error:
            self.fail(clip.clip_id, error)

    def fail(self, clip_id: str, error: ClipError) -> None:
        """Record that the clip has no frames."""
        fingerprint = self._fingerprints[clip_id]
        self.failures.append(Failure(clip_id, error.stage, error.reason, fingerprint))
        self._writer.fail(self.failures[-1])

    def finish(self) -> None:
        """Compute and write the frames of the last batch."""
        with self._computing():
            self._batcher.flush()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        begin, written_s = time.perf_counter(), self.write_s
        yield
        self.network_s += time.perf_counter() - begin - (self.write_s - written_s)

    def _deliver(self, clip_id: str, frames: Array | ClipError) -> None:
        if isinstance(frames, ClipError):
            self.fail(clip_id, frames)
            return
        begin = time.perf_counter()
        self._writer.append(clip_id, frames, self._durations[clip_id], self._fingerprints[clip_id])
        self.write_s += time.perf_counter() - begin
