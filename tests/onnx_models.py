"""Small ONNX models of audio, whose outputs are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Shape = Sequence[int | str]

WEIGHTS = np.random.default_rng(0).standard_normal((800, 6)).astype(np.float32)


def save(
    path: Path,
    nodes: Sequence[tuple[str, list[str], str]],
    shape: Shape = ("batch", 800),
    outputs: Sequence[str] = ("embedding",),
    constants: dict[str, Any] | None = None,
    **said: object,
) -> Path:
    """Write a model of `nodes`, each an operator, its inputs and its output, to a file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "audio",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in said.items()})
    onnx.save(model, path)
    return path


def projection(path: Path, shape: Shape = ("batch", 800), **said: object) -> Path:
    """A model that multiplies windows of 800 samples by `WEIGHTS`: 6 values per window."""
    nodes = [("MatMul", ["audio", "weights"], "embedding")]
    return save(path, nodes, shape, constants={"weights": WEIGHTS}, **said)


def tenths(path: Path, **said: object) -> Path:
    """A model with two outputs: the tenths of a window as its frames, and the sum of each."""
    nodes = [
        ("Reshape", ["audio", "shape"], "frames"),
        ("ReduceSum", ["frames", "axis"], "column"),
        ("Squeeze", ["column", "axis"], "sums"),
    ]
    constants = {"shape": np.array([-1, 10, 80]), "axis": np.array([2])}
    return save(path, nodes, outputs=("frames", "sums"), constants=constants, **said)
