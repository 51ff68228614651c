"""The interface of templates: what takes a fused graph, and gives a space and, for a config, a kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..ir import Dim, Graph
from .constant_layout import ConstantLayout
from .space import Config, Space
from .task import Task


@dataclass(frozen=True)
class Launch:
    """How a GPU kernel is started: ``blocks`` blocks of ``threads`` threads, along one axis."""

    blocks: int
    threads: int


@dataclass(frozen=True)
class LoweredKernel:
    """A scheduled kernel, ready to be compiled.

    ``function`` is a TIR PrimFunc whose parameters are pointers: the task's inputs, its outputs, then, if ``workspace_bytes`` is not
    zero, a scratch buffer of that size (64-byte aligned, private to the call); then the value of each symbol of the task's graph, as
    int32. It returns int32, 0 for success; one for a GPU returns nothing, and ``launch`` says how to start it.
    ``constant_layouts`` gives, for constant inputs that the kernel wants stored otherwise than their type says, how.
    """

    function: Any
    constant_layouts: Mapping[int, ConstantLayout] = field(default_factory=dict)
    workspace_bytes: Dim = 0
    launch: Launch | None = None


class Template(ABC):
    """Takes fused graphs of one shape of computation.

    ``revision`` is part of the key of compiled code: raise it when the generated code changes.
    """

    name: ClassVar[str]
    revision: ClassVar[int] = 1

    @abstractmethod
    def takes(self, graph: Graph) -> bool:
        """Whether this template can compile ``graph``, the region of a fusion. Cheap; asked often by the fusion pass."""

    def reads_encoded(self, graph: Graph) -> bool:
        """Whether the kernel for ``graph`` reads constant inputs as their types encode them.

        Otherwise the task has the dense types, so that it is the same as that of the model before its weights were encoded.
        """
        return False

    def pulls_operand(self, graph: Graph) -> bool:
        """Whether the kernel for ``graph`` computes a few operations on the operand of its contraction about as fast as it reads that."""
        return False

    def in_place(self, graph: Graph) -> int | None:
        """The input of ``graph`` whose content the (only) output must hold before the kernel runs; None where that does not matter.

        The kernel does not read this input through its own pointer, so that both may be the same memory.
        """
        return None

    @abstractmethod
    def space(self, task: Task) -> Space:
        """The configs worth considering for ``task``, derived from the target's facts; those of its representative if it is symbolic."""

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float] | None:
        """Cycles of the busiest thread for each of ``configs``, as the template reckons to choose its default; None where it does not.

        LoweringError for a config without the template's knobs.
        """
        return None

    @abstractmethod
    def lower(self, task: Task, config: Config) -> LoweredKernel:
        """The kernel of ``config``; LoweringError when the config is not in the space."""
