"""Convolutions with a block-sparse weight: panels of outputs leave out input channels at places of the window.

The kernel is the direct convolution of :mod:`.conv`, but walks along the stored entries of a panel, each of which says where, counted from
a pixel's window, its element of the operand lies (compare Chen, "Escoin: efficient sparse convolutional neural network inference on GPUs",
2018).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import LoweringError
from ...ir import Graph, Value
from ..constant_layout import ConstantLayout
from ..emit import Expr
from ..space import Config, Space
from ..sparse_weight import PanelWeight, StoredValues
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import BytesAsFloats, Fp32
from .conv_geometry import Convolution, Pixels, PixelTiles
from .direct_conv import DirectLowering, Problem
from .region import AnchoredRegion
from .register_tile import RegisterTile
from .sparse_cost import WORD, panel_cycles, threads_worth
from .stored_panels import StoredPanels
from .tile_rows import DelayedRows
from .tiling import divisors, fits_registers

_NARROWEST = 8
"""Outputs of a panel, as for products."""
_CHOSEN = 4
"""Register tiles kept for each way of sharing the rows."""


class SparseConv(Template):
    """Regions around one ``conv`` without groups whose weight is block sparse in panels of whole vectors; not those that are products.

    Knobs: ``pixels`` of the register tile, ``row_groups``: into how many groups the threads are split along the rows of the result (the
    others split its channels). ``vectors`` and ``unroll`` are those of the panel and of one entry.
    """

    name = "sparse_conv"

    def takes(self, graph: Graph) -> bool:
        return _region(graph) is not None

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        sparse = _SparseConvolution(task)
        points = [
            {"pixels": pixels, "row_groups": groups, "unroll": 1, "vectors": sparse.vectors}
            for pixels in sparse.tilings()
            for groups in divisors(sparse.parallel)
            if groups <= sparse.tiles(pixels).shared.tiles
        ]
        ranked = sorted(points, key=lambda knobs: sparse.cycles(knobs["pixels"], knobs["row_groups"]))
        return Space.of_points(self.name, ranked, "row_groups", _CHOSEN)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        sparse = _SparseConvolution(task)
        return [sparse.cycles(config["pixels"], config["row_groups"]) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config, _SparseConvolution(task)).lower()


def _region(graph: Graph) -> AnchoredRegion | None:
    region = AnchoredRegion.find(graph, ("conv",))
    if region is None or region.anchor.output.tensor.rank not in (3, 4):
        return None
    weight = region.anchor.inputs[1]
    encoding = weight.tensor.encoding
    if weight not in graph.inputs or len(graph.users[weight]) != 1 or encoding.name != "block_sparse":
        return None
    width, axis = (dict(encoding.parameters)[name] for name in ("width", "axis"))
    assert isinstance(width, int)
    fits = axis == 0 and width >= _NARROWEST and StoredValues.of(encoding.values, 0) is not None
    return region if fits and Convolution(region.anchor).groups == 1 else None


class _SparseConvolution:
    """The geometry of a task."""

    def __init__(self, task: Task) -> None:
        region = _region(task.graph)
        if region is None or region.graph.inputs.index(region.anchor.inputs[1]) not in task.constant_inputs:
            raise LoweringError("the sparse templates take regions with one convolution whose weight is a constant in a sparse encoding")
        self.target = task.target
        encoding = region.anchor.inputs[1].tensor.encoding
        given = dict(encoding.parameters)
        width, entries, values = given["width"], given["entries"], StoredValues.of(encoding.values, 0)
        assert isinstance(width, int)
        assert isinstance(entries, int)
        assert values is not None
        self.width, self.entries, self.values = width, entries, values
        conv = Convolution(region.anchor)
        arithmetic = Fp32(task.target) if values is StoredValues.FLOATS else BytesAsFloats(task.target)
        self.problem = Problem(region, arithmetic, conv, Pixels.of(region, conv, task.target))
        self.vectors = -(-width // task.target.vector_lanes)
        alone = min(self._tiles_cycles(pixels) for pixels in self.tilings()) * int(conv.batch)
        self.parallel = threads_worth(task.target, task.threads, alone, float(entries * (values.nbytes * width + WORD)))

    def tiles(self, pixels: int) -> PixelTiles:
        return PixelTiles.of(self.problem.conv, self.problem.pixels, pixels)

    def tilings(self) -> list[int]:
        """Numbers of pixels that a register tile may have at most, one for each size of the largest tile."""
        most = max(1, self.target.vector_registers // 2)
        found = {self.tiles(pixels).largest: pixels for pixels in range(most, 0, -1)}
        return [pixels for largest, pixels in found.items() if fits_registers(self.target, largest, self.vectors)] or [1]

    def _tiles_cycles(self, pixels: int) -> float:
        """One image against all panels."""
        tiles, panels = self.tiles(pixels), -(-self.problem.conv.outputs // self.width)
        passes = tiles.rows.tiles * tiles.columns.tiles
        return sum(
            down.count * across.count * panel_cycles(self.target, down.size * across.size, self.width, self.entries, panels, passes)
            for down in tiles.rows.runs
            for across in tiles.columns.runs
        )

    def cycles(self, pixels: int, groups: int) -> float:
        """Estimated cycles of the slowest thread."""
        shared, panels = self.tiles(pixels).shared.tiles, -(-self.problem.conv.outputs // self.width)
        images = int(self.problem.conv.batch) * panels
        parts = self.parallel // groups
        return self._tiles_cycles(pixels) * (-(-shared // groups) / shared) * (-(-images // parts) / panels)


class _Lowering(DirectLowering):
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config, sparse: _SparseConvolution) -> None:
        self._sparse = sparse
        super().__init__(task, config, sparse.problem)
        self.parallel = sparse.parallel
        self.panel = sparse.width
        self.panels = -(-self.conv.outputs // self.panel)
        (layout,) = self.layouts.values()
        assert isinstance(layout, PanelWeight)
        self._stored = StoredPanels(self.kernel, self.weight, layout, self.conv.outputs, self.conv.depth)

    def packed(self, source: Value) -> dict[int, ConstantLayout]:
        sparse, pixels, conv = self._sparse, self.pixels, self.conv
        window = (conv.dilation[0] * pixels.row, conv.dilation[1] * pixels.column)
        places = (pixels.channel, *window[2 - conv.spatial :])
        layout = PanelWeight(sparse.width, sparse.entries, values=sparse.values, places=places)
        return {self.region.graph.inputs.index(source): layout}

    def accumulate(
        self,
        tile: RegisterTile,
        a_offset: Expr,
        row_offsets: Sequence[int],
        group: Expr,
        number: Expr,
        pixel: Expr,
        delayed: DelayedRows | None,
    ) -> None:
        self._stored.accumulate(tile, number, self.panel, self.a, a_offset, row_offsets)

    def finished(self, total: Expr, channel: Expr) -> Expr:
        return self._stored.values.scaled(total, channel)
