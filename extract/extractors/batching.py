"""Batches of frames of several clips, computed by one call of the network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import ClipError, FeatregError

from .base import Array, Extractor, Signal


@dataclass(slots=True)
class _Pending:
    """A clip whose frames are being computed."""

    key: str
    frames: Array
    filled: int = 0
    bad: int | None = None  # index of the first frame that is not finite


class Batcher:
    """Computes the frames of successive clips in common batches.

    Clips are delivered in the order in which they are pushed, each as one array of shape
    (frames, dim); memory is bounded by a batch of inputs and the frames not yet delivered.
    A clip with a frame that is not finite is delivered as a `ClipError`; the other clips of its
    batches are not affected.

    Parameters
    ----------
    extractor
        Extractor that computes the frames.
    deliver
        Function called with the key of a clip and its complete frames, or with a `ClipError` that
        states which frame is not finite.
    watched
        Function that returns the context manager for a call of the extractor, such as
        `isolate_clips.time_limit`.
    """

    def __init__(
        self,
        extractor: Extractor,
        deliver: Callable[[str, Array | ClipError], None],
        watched: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._extractor = extractor
        self._deliver = deliver
        self._watched = watched
        self._inputs: list[Array] = []
        self._pending_frames = 0  # number of frames in self._inputs
        self._pending: list[_Pending] = []  # clips not yet delivered, oldest first

    def push(self, key: str, signal: Signal) -> None:
        """Add a clip, and deliver the clips that are complete.

        Raises
        ------
        ClipError
            If this clip has no frames, or an input of the network is not finite; the batcher
            remains usable.
        """
        extractor = self._extractor
        with self._watched():
            signal = extractor.prepare(key, signal)
        total = extractor.frames(len(signal))
        if total < 1:
            reason = f"{extractor.name}: expected at least 1 frame, found {total}"
            raise ClipError("extract", reason)
        self._pending.append(_Pending(key, np.empty((total, extractor.dim), extractor.dtype)))
        start = 0
        while start < total:
            stop = min(total, start + extractor.batch_frames - self._pending_frames)
            try:
                with self._watched():
                    inputs = extractor.inputs(signal, start, stop)
                # A maximum or a ReLU in the network could turn NaN into a plausible number.
                if not (finite := _finite(inputs)).all():
                    raise self._not_finite(start + int(np.argmin(finite)))
            except ClipError:
                # The frames before `start` filled whole batches, so that none is pending; if there
                # are any, all older clips have been delivered.
                self._pending.pop()
                raise
            self._inputs.append(inputs)
            self._pending_frames += stop - start
            start = stop
            if self._pending_frames == extractor.batch_frames:
                self.flush()

    def flush(self) -> None:
        """Compute the pending frames without waiting for a full batch, and deliver their clips."""
        if not self._pending_frames:
            return
        extractor, shape = self._extractor, (self._pending_frames, self._extractor.dim)
        batch = self._inputs[0] if len(self._inputs) == 1 else np.concatenate(self._inputs)
        self._inputs, self._pending_frames = [], 0
        extractor.load_once()
        try:
            with self._watched():
                values = np.asarray(extractor.network(batch))
        except ClipError as error:
            raise RuntimeError(
                f"{extractor.name}: `network` raised a ClipError, but a batch has frames of "
                f"several clips; raise it in `prepare` or `inputs` ({error})"
            ) from error
        if values.shape != shape:
            raise FeatregError(
                f"{extractor.name}: expected an array of shape {shape} from `network`, one row "
                f"per frame, found {values.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # detected below
            stored = extractor.quantize(values)
        finite = _finite(values)
        if stored.dtype != values.dtype:
            finite &= _finite(stored)
        done = 0
        while done < len(values):
            clip = self._pending[0]
            stop = min(len(values), done + len(clip.frames) - clip.filled)
            clip.frames[clip.filled : clip.filled + stop - done] = stored[done:stop]
            if clip.bad is None and not finite[done:stop].all():
                clip.bad = clip.filled + int(np.argmin(finite[done:stop]))
            clip.filled += stop - done
            done = stop
            if clip.filled == len(clip.frames):
                self._pending.pop(0)
                failed = None if clip.bad is None else self._not_finite(clip.bad)
                self._deliver(clip.key, failed or clip.frames)

    def _not_finite(self, frame: int) -> ClipError:
        timing, dtype = self._extractor.timing, np.dtype(self._extractor.dtype)
        center_s = timing.first_center_s + frame * timing.hop_s
        return ClipError(
            "extract",
            f"{self._extractor.name}: frame {frame} (at {center_s:.3f} s) has a value that is "
            f"not finite{f' as {dtype}' if dtype.kind == 'f' else ''}",
        )


def _finite(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each frame of an array of shape (frames, ...) is finite; shape (frames,)."""
    finite = np.ones(len(values), np.bool_)
    if values.dtype.kind not in "fc" or np.isfinite(values).all():
        return finite
    return np.isfinite(values).reshape(len(values), -1).all(axis=1, out=finite)
