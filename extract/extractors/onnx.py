"""Models in ONNX files: windows of audio in, embeddings out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from featreg.datasets.base import UsageError
from featreg.datasets.console import warn

from .base import Signal
from .model_file import Facts, ModelFile, require


class Onnx(ModelFile):
    """An ONNX model, run by onnxruntime.

    The sample rate, the window and the hop are read from the model's `metadata_props`, if it has
    the keys ``sample_rate`` (Hz), ``window_s``, ``hop_s`` and ``frame_s`` (seconds); the window
    also from the shape of the input.
    """

    def load(self) -> None:
        """Open the file, with the GPU's provider if there is one.

        Raises
        ------
        UsageError
            If onnxruntime is not installed, or cannot run the model on audio.
        """
        runtime = require("onnxruntime", "onnx", f"{self.name} (an ONNX model)")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.device.startswith("cuda"):
            if "CUDAExecutionProvider" in runtime.get_available_providers():
                number = int(self.device.partition(":")[2] or 0)
                providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
            else:
                warn(f"{self.name}: onnxruntime runs on the CPU; onnxruntime-gpu uses the GPU")
        try:
            self._session = runtime.InferenceSession(self.source, options, providers=providers)
        except Exception as error:  # of several classes, which are not public
            reason = str(error).partition("\n")[0]
            raise UsageError(f"{self.name}: {self.source} cannot be opened: {reason}") from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) > 2:
            found = ", ".join(f"{each.name} {each.shape} {each.type}" for each in inputs)
            raise UsageError(
                f"{self.name}: expected a model with one input of floats, of shape "
                f"(batch, samples) or (samples,), found {found}"
            )
        self._input: str = inputs[0].name
        self._shape: list[Any] = inputs[0].shape
        self._output = self.chosen([each.name for each in self._session.get_outputs()])

    def facts(self) -> Facts:
        """What `metadata_props` and the shape of the input say."""
        said = self._session.get_modelmeta().custom_metadata_map
        samples = self._shape[-1] if self._shape else None
        try:
            rate, *seconds = (
                float(said[key]) if key in said else None
                for key in ("sample_rate", "window_s", "hop_s", "frame_s")
            )
        except ValueError as error:
            raise UsageError(f"{self.name}: metadata_props of {self.source}: {error}") from None
        return Facts(
            None if rate is None else round(rate),
            samples if isinstance(samples, int) else None,
            *seconds,
        )

    def embed(self, windows: Signal) -> Any:
        """The output for windows, in batches of the model's size if that is fixed."""
        if len(self._shape) == 1:
            return np.stack([one_window(self._run(window)) for window in windows])
        size = self._shape[0]
        if not isinstance(size, int):
            return self._run(windows)
        found = []
        for first in range(0, len(windows), size):
            part = windows[first : first + size]
            padding = np.zeros((size - len(part), windows.shape[1]), np.float32)
            found.append(self._run(np.concatenate([part, padding]))[: len(part)])
        return np.concatenate(found)

    def _run(self, windows: Signal) -> Any:
        [found] = self._session.run([self._output], {self._input: windows})
        return found


def one_window(found: Any) -> Any:
    """The embeddings of one window, shape (dim,) or (frames, dim), without a batch axis of 1."""
    return found[0] if found.ndim > 1 and len(found) == 1 else found
