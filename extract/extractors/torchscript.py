"""Models in TorchScript files: windows of audio in, embeddings out."""

from __future__ import annotations

from typing import Any

import torch

from featreg.datasets.base import UsageError

from .base import Signal
from .model_file import Facts, ModelFile


class TorchScript(ModelFile):
    """A TorchScript model, called with windows of shape (batch, samples).

    The sample rate is read from the attribute ``sample_rate`` of the model, if it has one. If the
    model returns a tuple or a dictionary, `output` is the index or the key.
    """

    def load(self) -> None:
        """Read the file.

        Raises
        ------
        UsageError
            If it is not a TorchScript file.
        """
        try:
            model: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                self.source, map_location=self.device
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"{self.name}: {self.source} cannot be opened: {reason}") from None
        self._model = model.eval()

    def facts(self) -> Facts:
        """The attribute ``sample_rate`` of the model."""
        rate = getattr(self._model, "sample_rate", None)
        return Facts(int(rate) if isinstance(rate, int | float) else None)

    def embed(self, windows: Signal) -> Any:
        """The output for windows."""
        try:
            found = self._model(torch.from_numpy(windows).to(self.device))
        except RuntimeError as error:  # the last line is the reason, those before its place
            reason = str(error).strip().rpartition("\n")[2]
            raise RuntimeError(reason.removeprefix("RuntimeError: ")) from error
        if isinstance(found, torch.Tensor):
            return found
        outputs = found if isinstance(found, dict) else dict(enumerate(found))
        named = {str(key): value for key, value in outputs.items()}
        return named[self.chosen(list(named))]
