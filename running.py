"""Running and timing compiled models for the command line's ``mlc run``. Artifacts are run without torch."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from .errors import SignatureError
from .runtime.frameworks import random_inputs

if TYPE_CHECKING:
    from .model_source import ModelSource

WARM_UP = 3


@dataclass(frozen=True)
class OutputSummary:
    """What an output array looks like from afar; ``spread`` is its standard deviation."""

    dtype: str
    shape: tuple[int, ...]
    mean: float
    spread: float
    finite: bool


@dataclass(frozen=True)
class RunResult:
    """Median seconds per call, of PyTorch too when it was asked; errors are norm-wise and relative to PyTorch in float64.

    ``allowed_error`` None: weights of lower precision, whose error is for the user to judge.
    """

    name: str
    seconds: float
    outputs: tuple[OutputSummary, ...]
    torch_seconds: float | None = None
    error: float | None = None
    allowed_error: float | None = None

    @property
    def sound(self) -> bool:
        """False when the outputs were checked and found wrong."""
        return self.error is None or self.allowed_error is None or self.error <= self.allowed_error

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data."""
        return {
            "name": self.name,
            "seconds": self.seconds,
            "torch_seconds": self.torch_seconds,
            "error": self.error,
            "allowed_error": self.allowed_error,
            "outputs": [{**vars(output), "shape": list(output.shape)} for output in self.outputs],
        }

    def table(self) -> RenderableType:
        """For a terminal."""
        lines = [f"{self.name}: {self.seconds * 1e3:.4g} ms a call"]
        if self.torch_seconds is not None:
            ratio = self.torch_seconds / self.seconds
            lines.append(f"PyTorch: {self.torch_seconds * 1e3:.4g} ms a call; mlc is {ratio:.2f}x as fast")
        if self.error is not None and self.allowed_error is not None:
            verdict = "right" if self.sound else "WRONG"
            lines.append(f"outputs are {verdict}: error {self.error:.1e} against float64, allowed {self.allowed_error:.1e}")
        elif self.error is not None:
            lines.append(f"outputs have an error of {self.error:.1e} against float64, that of rounding the weights included")
        grid = Table(box=None, pad_edge=False)
        for heading in ("output", "type", "mean", "std", "finite"):
            grid.add_column(heading, justify="right" if heading in ("mean", "std") else "left")
        for position, output in enumerate(self.outputs):
            shape = "x".join(map(str, output.shape)) or "scalar"
            grid.add_row(
                str(position), f"{output.dtype} {shape}", f"{output.mean:.4g}", f"{output.spread:.4g}", "yes" if output.finite else "no"
            )
        return Group(*lines, grid)


def run_model(
    source: ModelSource,
    compiled: Callable[..., Any],
    files: Sequence[pathlib.Path],
    repeat: int,
    output: pathlib.Path | None,
    check: bool,
    exact: bool = True,
) -> RunResult:
    """Runs a model just compiled on its example inputs or on ``files``, and with ``check`` in PyTorch as well; ``exact`` when it is to give
    what PyTorch gives, but for rounding in float32."""
    import torch

    from .benchmarks import accuracy

    inputs = tuple(torch.from_numpy(array) for array in _arrays(files)) if files else source.inputs
    with torch.no_grad():
        result = accuracy.tensors(compiled(*inputs, **source.kwargs))
        arrays = [tensor.numpy() for tensor in result]
        _save(output, arrays)
        seconds = _median_seconds(compiled, inputs, source.kwargs, repeat)
        if not check:
            return RunResult(source.name, seconds, _summaries(arrays))
        truth = accuracy.reference(source.eager, inputs, source.kwargs)
        eager = accuracy.error(accuracy.tensors(source.eager(*inputs, **source.kwargs)), truth)
        torch_seconds = _median_seconds(source.eager, inputs, source.kwargs, repeat)
    allowed = accuracy.allowed(eager) if exact else None
    return RunResult(source.name, seconds, _summaries(arrays), torch_seconds, accuracy.error(result, truth), allowed)


def run_artifact(name: str, loaded: Any, files: Sequence[pathlib.Path], repeat: int, output: pathlib.Path | None) -> RunResult:
    """Runs a loaded artifact on ``files``, or on random inputs of its first signature."""
    executable = loaded.executables[0]
    if files:
        leaves = _arrays(files)
        expected = len(executable.signature.inputs)
        if len(leaves) != expected:
            raise SignatureError(f"{len(leaves)} --input files were given for {expected} inputs of {executable.signature_text}")
    else:
        leaves = random_inputs(executable.signature)
    arrays = _flat(executable.run(leaves))
    _save(output, arrays)
    return RunResult(name, _median_seconds(executable.run, (leaves,), {}, repeat), _summaries(arrays))


def _arrays(files: Sequence[pathlib.Path]) -> list[np.ndarray[Any, Any]]:
    arrays = []
    for path in files:
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise SignatureError(f"input '{path}' cannot be read as .npy: {error}; numpy.save writes such files") from error
    return arrays


def _save(path: pathlib.Path | None, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    if path is not None:
        named: dict[str, Any] = {f"output{position}": array for position, array in enumerate(arrays)}
        np.savez(path, **named)


def _median_seconds(call: Callable[..., Any], inputs: Sequence[Any], kwargs: Mapping[str, Any], repeat: int) -> float:
    times = []
    for _ in range(WARM_UP + repeat):
        begin = time.perf_counter()
        call(*inputs, **kwargs)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_UP:])


def _flat(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in _flat(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    if hasattr(value, "__dict__"):  # an output object, such as Hugging Face's
        return [leaf for item in vars(value).values() for leaf in _flat(item)]
    return []


def _summaries(arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[OutputSummary, ...]:
    return tuple(
        OutputSummary(
            str(array.dtype),
            array.shape,
            float(array.mean()) if array.size else 0.0,
            float(array.std()) if array.size else 0.0,
            bool(np.isfinite(array).all()),
        )
        for array in arrays
    )
