"""The systems that are timed side by side. A new one is one class and one line in ``SYSTEMS``."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..calibration_file import read_calibration
from .openvino_peer import Compression, OpenVino
from .peers import OnnxRuntime
from .prepared import Prepared, System


class Eager:
    """PyTorch as it comes: the baseline."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Prepared:
        return Prepared(functools.partial(model, *inputs))


@dataclass(frozen=True)
class Mlc:
    """mlc.compile; strict, so that nothing is timed that PyTorch runs. ``calibration`` is a file of samples; without one, ``int8`` takes
    its ranges from the inputs, as OpenVINO does. ``database`` is the path of a tuning database.
    """

    precision: str = "fp32"
    tolerance: float | None = None
    calibration: str | None = None
    database: str | None = None

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Prepared:
        import mlc

        example = tuple(inputs)
        compiled = mlc.compile(
            model,
            example_inputs=example,
            threads=threads,
            strict=True,
            precision=self.precision,
            tolerance=self.tolerance,
            calibration=self._samples(model, example),
            database=self.database,
        )
        moved = sum(kernel.bytes for program in compiled.report().programs for kernel in program.kernels)
        return Prepared(functools.partial(compiled, *inputs), moved=moved)

    def _samples(self, model: Any, example: tuple[Any, ...]) -> Sequence[Any] | None:
        if self.calibration is not None:
            return read_calibration(pathlib.Path(self.calibration), model, example)
        return [example] if "int8" in self.precision else None


@dataclass(frozen=True)
class Inductor:
    """torch.compile with its default back end, which needs a C++ compiler.

    ``tuned`` takes the weights for constants and measures its choices (``freezing`` and ``mode="max-autotune"``), which may take minutes.
    """

    tuned: bool = False

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Prepared:
        if self.tuned:
            import torch._inductor.config as options

            options.freezing = True
        compiled = torch.compile(model, mode="max-autotune" if self.tuned else None)
        with torch.no_grad():
            compiled(*inputs)
        return Prepared(functools.partial(compiled, *inputs))


SYSTEMS: Mapping[str, Callable[..., System]] = {
    "mlc": Mlc,
    "eager": Eager,
    "inductor": Inductor,
    "inductor-tuned": functools.partial(Inductor, tuned=True),
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "openvino-default": functools.partial(OpenVino, hint=None),
    "openvino-w8": functools.partial(OpenVino, compression=Compression.W8),
    "openvino-w4": functools.partial(OpenVino, compression=Compression.W4),
    "openvino-int8": functools.partial(OpenVino, compression=Compression.INT8),
}

PEERS: Mapping[str, tuple[str, ...]] = {"inductor": ("inductor", "inductor-tuned")}
"""What to time against a peer whose name stands for several configurations: the better one counts."""

OURS = "mlc"
BASELINE = "eager"


def against(peers: Sequence[str]) -> tuple[str, ...]:
    """mlc and every configuration of ``peers``, each once."""
    return tuple(dict.fromkeys((OURS, *(system for peer in peers for system in PEERS.get(peer, (peer,))))))
