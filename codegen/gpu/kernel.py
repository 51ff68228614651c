"""The frame of a GPU kernel: block and thread numbers, shared memory, barriers, and the finished device function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph, Layout
from ..emit import INDEX, Expr, Kernel, index
from ..template import Launch, LoweredKernel

SHARED_BYTES = 48 * 1024
"""Shared memory that a block can declare without asking the driver."""

MOST_BLOCKS = 2**31 - 1
"""Blocks along the first axis of a CUDA grid."""


class GpuKernel(Kernel):
    """A kernel of ``blocks`` blocks of ``threads`` threads, both along one axis; templates take them apart by division.

    ``block`` and ``thread`` are the numbers of the running block and of the thread in it. Parameters are those of :class:`Kernel`.
    """

    def __init__(self, graph: Graph, *, blocks: int, threads: int, layouts: Mapping[int, Layout] | None = None) -> None:
        super().__init__(graph, layouts=layouts)
        if not 0 < blocks <= MOST_BLOCKS:
            raise LoweringError(f"a grid of {blocks} blocks is not possible")
        self.blocks = blocks
        self.threads = threads
        self.block: Expr = self._number("block", blocks)
        self.thread: Expr = self._number("thread", threads)
        self._shared: list[Any] = []

    def _number(self, name: str, extent: int) -> Expr:
        variable = tirx.Var(name, INDEX)
        self.emitter.bind_range(variable, extent)
        return variable

    def bounded(self, value: Expr, extent: int, name: str = "at") -> Expr:
        """A variable that holds ``value``, which is known to lie in [0, extent)."""
        value = self.emitter.simplify(value)
        if isinstance(value, tirx.IntImm):
            return value
        # A variable of its own even for a variable, whose known range may be another.
        variable = tirx.Var(self.emitter.fresh(name), INDEX)
        self.emitter.emit(tirx.Bind(variable, value))
        self.emitter.bind_range(variable, extent)
        return variable

    def shared(self, count: int, dtype: str, name: str = "tile") -> Any:
        """A flat buffer of ``count`` elements that the threads of a block share. Its content is undefined at first."""
        buffer = tirx.decl_buffer((count,), dtype, name=self.emitter.fresh(name), scope="shared", data_alignment=64)
        # OpenCL wants them declared at the outermost level of the function.
        self._shared.append(tirx.AllocBuffer(buffer))
        return buffer

    def barrier(self) -> None:
        """Waits until every thread of the block has come here. Every thread must."""
        self.emitter.emit(tirx.Evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared")))

    def lowered(self) -> LoweredKernel:
        """The device function and how to launch it."""
        body = tirx.SeqStmt([*self._shared, *self._declarations, self.emitter.finish()])
        body = _bound(self.block, self.blocks, "blockIdx.x", _bound(self.thread, self.threads, "threadIdx.x", body))
        return LoweredKernel(tirx.PrimFunc(self._parameters, body), self._layouts, launch=Launch(self.blocks, self.threads))


def _bound(variable: Expr, extent: int, tag: str, body: Any) -> Any:
    axis = tirx.IterVar(tvm.ir.Range.from_min_extent(index(0), index(extent)), variable, tirx.IterVar.ThreadIndex, tag)
    return tirx.AttrStmt(axis, "thread_extent", index(extent), body)
