"""Models in LiteRT (TensorFlow Lite) files: windows of audio in, embeddings out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from featreg.datasets.base import UsageError

from .base import Signal
from .model_file import Facts, ModelFile, require
from .onnx import one_window


class LiteRT(ModelFile):
    """A LiteRT model, run on the CPU one window at a time.

    `output` is the name of any tensor of the model, or the end of its name: an inner tensor serves
    as the embedding where the model's output is its scores. For YAMNet, which takes 16 kHz and
    windows of 0.975 s every 0.48 s, it is ``global_average_pooling2d/Mean``.
    """

    def load(self) -> None:
        """Read the file.

        Raises
        ------
        UsageError
            If ai-edge-litert is not installed, or cannot run the model on audio.
        """
        runtime = require("ai_edge_litert.interpreter", "tflite", f"{self.name} (a LiteRT model)")
        threads = torch.get_num_threads()
        try:
            model = runtime.Interpreter(self.source, num_threads=threads)
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"{self.name}: {self.source} cannot be opened: {reason}") from None
        outputs = {each["name"]: each["index"] for each in model.get_output_details()}
        if self.config.output not in (None, *outputs):
            with warnings.catch_warnings():  # about the memory that the inner tensors take
                warnings.simplefilter("ignore")
                model = runtime.Interpreter(
                    self.source, num_threads=threads, experimental_preserve_all_tensors=True
                )
            outputs |= {each["name"]: each["index"] for each in model.get_tensor_details()}
        inputs = model.get_input_details()
        shape = inputs[0]["shape_signature"].tolist()
        audio = inputs[0]["dtype"] == np.float32 and shape[:-1] in ([], [1], [-1])
        if len(inputs) != 1 or not audio:
            found = ", ".join(f"{each['name']} {each['shape_signature']}" for each in inputs)
            raise UsageError(
                f"{self.name}: expected a model with one input of floats, of shape (1, samples) or "
                f"(samples,), found {found}"
            )
        self._model, self._input, self._shape = model, inputs[0]["index"], shape
        self._output = outputs[self.chosen(list(outputs), endings=True)]
        self._samples = 0  # of the input for which memory is allocated

    def facts(self) -> Facts:
        """The number of samples, from the shape of the input."""
        samples = self._shape[-1]
        return Facts(samples=samples if samples > 1 else None)

    def embed(self, windows: Signal) -> Any:
        """The output for windows, one at a time."""
        model, shape = self._model, [1] * (len(self._shape) - 1) + [windows.shape[1]]
        if self._samples != windows.shape[1]:
            model.resize_tensor_input(self._input, shape)
            model.allocate_tensors()
            self._samples = windows.shape[1]
        found = []
        for window in windows:
            model.set_tensor(self._input, window.reshape(shape))
            model.invoke()
            found.append(one_window(model.get_tensor(self._output)))
        return np.stack(found)
