"""The systems that are timed side by side. A new one is one class and one line in ``SYSTEMS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch


class System(Protocol):
    """Something that runs models."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Callable[..., Any]:
        """What to call with ``inputs``, everything done that need not be done at each call."""


class Eager:
    """PyTorch as it comes: the baseline."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Callable[..., Any]:
        return model


class Mlc:
    """mlc.compile; strict, so that nothing is timed that PyTorch runs."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Callable[..., Any]:
        import mlc

        compiled: Callable[..., Any] = mlc.compile(model, example_inputs=tuple(inputs), threads=threads, strict=True)
        return compiled


class Inductor:
    """torch.compile with its default back end; needs a C++ compiler."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(model)
        with torch.no_grad():
            compiled(*inputs)
        return compiled


SYSTEMS: Mapping[str, Callable[[], System]] = {"mlc": Mlc, "eager": Eager, "inductor": Inductor}

BASELINE = "eager"
