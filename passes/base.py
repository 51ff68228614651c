"""What a pass is, what it may ask, and the registry of passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from ..codegen.precision import FP32_THROUGHOUT, Precision
from ..codegen.target import Target
from ..codegen.task import Numerics, Task
from ..ir import Graph
from .acceptance import template_takes


class CostOracle(Protocol):
    """Predicts how long a kernel takes."""

    def predict(self, task: Task) -> float:
        """Seconds that the best known or predicted config of ``task`` takes."""
        ...


class Evaluator(Protocol):
    """Runs a graph."""

    def __call__(self, graph: Graph, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]: ...


@dataclass
class RewriteBudget:
    """Counts rewrites, and stops them at ``limit`` (None: never): so a bisection finds the one rewrite that breaks a graph."""

    limit: int | None = None
    spent: int = 0

    def spend(self) -> bool:
        """Whether one more rewrite may be made; if so it is counted."""
        if self.limit is not None and self.spent >= self.limit:
            return False
        self.spent += 1
        return True


@dataclass(frozen=True)
class Context:
    """What passes may ask: facts, predictions, and what templates can take.

    ``takes`` says whether some template compiles a region as one kernel. ``cost`` and ``evaluator`` may be absent; passes then
    use heuristics. ``precision`` says which module gets which mode. ``nested`` says that the graph is a region of control flow: its outputs
    may be inputs, constants, or a value twice.
    """

    target: Target
    threads: int = 1
    numerics: Numerics = Numerics.FAST
    cost: CostOracle | None = None
    evaluator: Evaluator | None = None
    takes: Callable[[Graph], bool] = template_takes
    precision: Precision = FP32_THROUGHOUT
    budget: RewriteBudget = field(default_factory=RewriteBudget)
    nested: bool = False

    @property
    def fast(self) -> bool:
        """Whether rewrites need be right for finite inputs only."""
        return self.numerics is Numerics.FAST


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of graphs. The graph is valid before and after :meth:`apply` and computes the same, unless the pass ``rounds``: then
    it stores or computes numbers in the fewer bits that the user's precision allows.

    Options are the dataclass fields: bool, int, float or str, each with a default. ``str(pass)`` is the text form.
    """

    name: ClassVar[str]
    rounds: ClassVar[bool] = False

    @abstractmethod
    def apply(self, graph: Graph, ctx: Context) -> Graph:
        """The transformed graph; ``graph`` itself is left as it is."""

    def __str__(self) -> str:
        given = [(item.name, getattr(self, item.name)) for item in fields(self) if getattr(self, item.name) != item.default]
        return self.name + ("{" + ",".join(f"{name}={option_text(value)}" for name, value in given) + "}" if given else "")


Option = bool | int | float | str


def option_text(value: Option) -> str:
    """The text form of an option's value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_PASSES: dict[str, type[Pass]] = {}
_PassType = TypeVar("_PassType", bound=type[Pass])


def register_pass(kind: _PassType) -> _PassType:
    """Class decorator: makes a pass known to the text form of pipelines."""
    if kind.name in _PASSES:
        raise ValueError(f"pass '{kind.name}' is defined twice")
    _PASSES[kind.name] = kind
    return kind


def passes() -> Mapping[str, type[Pass]]:
    """All passes by name."""
    return dict(sorted(_PASSES.items()))
