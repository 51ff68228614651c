"""Softmax, normalisations and reductions on a GPU: a block for a row or a bundle of rows."""

from __future__ import annotations

from typing import ClassVar

from ...ir import Graph
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.reduction import ReductionComputation
from ..templates.region import AnchoredRegion
from ..templates.rowwise import OPS, RowwiseComputation
from .kernel import GpuKernel
from .rows import BlockRow, planning_kernel, row_space, shares_of


class GpuRowwise(Template):
    """One softmax or normalisation with an elementwise prologue and epilogue, its row in registers when it is short enough.

    An output that does not depend on the normalisation is stored on the way if it has the operand's shape. Knobs: ``parts`` threads
    share a row, a block takes ``bundle`` rows.
    """

    name: ClassVar[str] = "gpu_rowwise"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, OPS, free_outputs=True)
        if region is None:
            return False
        shape = region.anchor.inputs[0].tensor.shape
        return all(value in region.paths or value.tensor.shape == shape for value in graph.outputs)

    def space(self, task: Task) -> Space:
        return row_space(self.name, task, RowwiseComputation(planning_kernel(task.graph), self._region(task.graph)).loops)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = self._region(task.graph)
        shares = shares_of(RowwiseComputation(planning_kernel(task.graph), region).loops, config)
        kernel = GpuKernel(task.graph, blocks=shares.blocks, threads=shares.threads)
        row = BlockRow(kernel, shares)
        RowwiseComputation(kernel, region).row(row, row.stage_size)
        return kernel.lowered()

    @staticmethod
    def _region(graph: Graph) -> AnchoredRegion:
        region = AnchoredRegion.find(graph, OPS, free_outputs=True)
        assert region is not None
        return region


class GpuReduction(Template):
    """One ``reduce`` with an elementwise prologue and epilogue. Knobs as :class:`GpuRowwise`."""

    name: ClassVar[str] = "gpu_reduction"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("reduce",), any_dtype=True)
        return region is not None and region.anchor.inputs[0].tensor.elements > 0

    def space(self, task: Task) -> Space:
        return row_space(self.name, task, ReductionComputation(planning_kernel(task.graph), self._region(task.graph), task.numerics).loops)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = self._region(task.graph)
        shares = shares_of(ReductionComputation(planning_kernel(task.graph), region, task.numerics).loops, config)
        kernel = GpuKernel(task.graph, blocks=shares.blocks, threads=shares.threads)
        ReductionComputation(kernel, region, task.numerics).row(BlockRow(kernel, shares))
        return kernel.lowered()

    @staticmethod
    def _region(graph: Graph) -> AnchoredRegion:
        region = AnchoredRegion.find(graph, ("reduce",), any_dtype=True)
        assert region is not None
        return region
