"""ONNX Runtime as a peer, imported only where it is timed; and what exports models to ONNX."""

from __future__ import annotations

import contextlib
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import MeasurementError
from .prepared import Prepared

TRIALS = 5
"""Calls, after one that warms up, by which the quicker way of calling a session is found."""


class OnnxRuntime:
    """ONNX Runtime on the CPU with all graph optimisations. Outputs are NumPy arrays."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Prepared:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors
        with tempfile.TemporaryDirectory() as folder:
            path = export(model, inputs, pathlib.Path(folder))
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        arrays = [value.numpy() for value in inputs if isinstance(value, Tensor)]
        feed = {put.name: array for put, array in zip(session.get_inputs(), arrays, strict=True)}
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        first = session.run(None, feed)
        for output, array in zip(session.get_outputs(), first, strict=True):  # memory that is reused from call to call
            binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        plain = Prepared(lambda: session.run(None, feed), _from_arrays)
        bound = Prepared(lambda: session.run_with_iobinding(binding), lambda _: _from_arrays(binding.copy_outputs_to_cpu()))
        return min((plain, bound), key=_seconds)


def _from_arrays(arrays: Sequence[Any]) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def _seconds(prepared: Prepared) -> float:
    """The least seconds of a call."""
    prepared.call()
    times = []
    for _ in range(TRIALS):
        begin = time.perf_counter()
        prepared.call()
        times.append(time.perf_counter() - begin)
    return min(times)


def export(model: Callable[..., Any], inputs: Sequence[Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes ``model`` as an ONNX file in ``folder``, its weights beside it, which lifts the format's limit of 2 GB."""
    if not isinstance(model, torch.nn.Module):
        raise MeasurementError("only modules can be exported to ONNX")
    path = folder / "model.onnx"
    # With gradients attention is exported in a form that not every model survives; what the exporter prints are its steps.
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(model, tuple(inputs), dynamo=True, verbose=False)
    assert program is not None, "the exporter on torch.export returns a program"
    program.save(path, external_data=True)
    return path
