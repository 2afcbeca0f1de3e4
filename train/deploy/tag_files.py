"""Classification of audio files: decoding in other processes, and one result for each file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from featreg.datasets.base import ClipError, FeatregError
from featreg.datasets.console import warn

from .classifier import Classifier
from .decode_ahead import decode_ahead
from .find_audio import Failed
from .recording import Recording

# Longest file in seconds that is processed with one thread beside others.
_SHORT_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """Predictions for a file, or for a chunk of it.

    Attributes
    ----------
    file
        Path of the file.
    probability
        Shape (classes,), in [0, 1].
    start_s, end_s
        Start and end of the chunk, or of the whole file, in seconds.
    """

    file: Path
    probability: npt.NDArray[np.float32]
    start_s: float
    end_s: float


def tag_files(
    model: Classifier, files: Iterable[Path], hop_s: float | None
) -> Iterator[list[Tagged] | Failed]:
    """Predict the classes of each file, once or every `hop_s` seconds.

    Files are decoded while the network processes those before; of files above 8 MB, only one is
    in memory at a time. On the CPU, several short files are processed at once, with one thread
    each, unless the model needs features. Errors of a file are returned as its failure. Silent
    files are named in the log.
    """
    threads = torch.get_num_threads()
    at_once = 1 if model.card.features or model.device != "cpu" else threads
    waiting: deque[Future[list[Tagged] | Failed]] = deque()
    pool = ThreadPoolExecutor(at_once, "predict", torch.set_num_threads, (1,))
    try:
        for file, outcome in decode_ahead(files, model.wanted):
            arguments = (model, file, outcome, hop_s)
            if at_once > 1 and _is_short(outcome):
                waiting.append(pool.submit(_tagged, *arguments))
                while len(waiting) > 2 * at_once:
                    yield waiting.popleft().result()
            else:
                while waiting:
                    yield waiting.popleft().result()
                yield _tagged(*arguments)
            del outcome, arguments  # free them before the next file is decoded
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the threads of the pool changed the default


def _is_short(outcome: Recording | Exception) -> bool:
    return isinstance(outcome, Recording) and outcome.duration_s <= _SHORT_S


def _tagged(
    model: Classifier, file: Path, outcome: Recording | Exception, hop_s: float | None
) -> list[Tagged] | Failed:
    try:
        if isinstance(outcome, Exception):
            raise outcome
        if not outcome.audio.any():
            warn(f"{file}: all samples are zero; the model's output is that of silence")
        clip = model.input_of(outcome)
        if hop_s is None:
            return [Tagged(file, model.mean_probability(clip), 0.0, outcome.duration_s)]
        return [
            Tagged(file, probability, float(start), float(end))
            for start, end, probability in zip(*model.over_time(clip, hop_s), strict=True)
        ]
    except ClipError as error:
        named = str(file) in error.reason  # the extractors do not know the file
        return Failed(file, error.reason if named else f"{file}: {error.reason}")
    except FeatregError as error:
        return Failed(file, f"{file}: {error}")
    except Exception as error:  # one file must not lose the results of the others
        return Failed(file, f"{file}: {type(error).__name__}: {error}")
