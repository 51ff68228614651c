"""Matrix products and linear layers on the CPU: packed panels of the second operand against register tiles.

``b`` is stored as panels of ``nr`` columns, ``[columns / nr][K][nr]``: a constant is packed once at compile time, anything else
by the kernel itself, unless it lies row by row and is read only once. Each thread takes some panels and some rows; for each
panel it walks over its rows in register tiles that run through all of K, and the fused operations are applied to a tile before
it leaves the registers. Where the rows of the first operand do not fit the second-level cache, rows are cut into blocks that
do, and K as well if too few rows would fit: the tiles are then added up in the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...errors import LoweringError
from ...ir import Graph
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Arithmetic, Fp32
from .matmul_geometry import Product, block_depths, finer_depths, predicted_cycles
from .matmul_lowering import MatmulLowering
from .narrow import has_short_weight, narrow_arithmetic, narrow_region
from .region import AnchoredRegion
from .tile_rows import may_delay
from .tiling import distinct_splits, divisors, fits_registers, panel_candidates, useful_threads

_OPS = ("matmul", "linear")
_KNOBS = ("block_depth", "row_groups", "rows", "vectors")
"""Those that a schedule is reckoned by."""
_CHOSEN = 8
"""Register tiles kept for each way of sharing the rows, so that spaces have a few dozen points."""
_FINER = 2
"""The same with smaller blocks than usual."""


class MatmulTemplate(Template):
    """Regions around one ``matmul`` or ``linear`` with elementwise operations and views before and after it.

    Knobs: ``rows`` and ``vectors`` of the register tile, ``unroll`` of the reduction loop, ``block_depth`` of the reduction that is
    done for all columns before the next, ``row_groups``: into how many groups the threads are split along the rows (the others split
    the columns).
    """

    name = "matmul"
    revision = 4

    def takes(self, graph: Graph) -> bool:
        region = self.find(graph)
        if region is None or region.anchor.inputs[0].tensor.rank < 1:
            return False
        # Rows and what stands before them may be symbolic.
        return all(isinstance(dim, int) for dim in region.anchor.inputs[1].tensor.shape[-2:])

    def find(self, graph: Graph) -> AnchoredRegion | None:
        """The region that ``graph`` is, if its operands are of this template's dtypes."""
        return AnchoredRegion.find(graph, _OPS, symbolic=True)

    def arithmetic(self, task: Task, region: AnchoredRegion) -> Arithmetic:
        """How the task's operands are multiplied."""
        return Fp32(task.target)

    def problem(self, task: Task) -> tuple[AnchoredRegion, Arithmetic, Product]:
        """What a task is made of."""
        region = self.find(task.graph)
        if region is None:
            raise LoweringError(f"the {self.name} template does not take this region; ask takes() first")
        arithmetic = self.arithmetic(task, region)
        return region, arithmetic, Product.of(region.anchor, arithmetic.per_word)

    def space(self, task: Task) -> Space:
        task = task.representative
        region, arithmetic, product = self.problem(task)
        delays = may_delay(arithmetic, region)
        target = task.target
        parallel = useful_threads(target, task.threads, product.flops, product.bytes_moved)
        panels = panel_candidates(target, product.columns, int(product.rows))
        most_rows = max(1, target.vector_registers // 2)
        rows = distinct_splits(int(product.rows), most_rows)
        groups = tuple(count for count in divisors(parallel) if count <= int(product.rows))

        def cost(knobs: Mapping[str, int]) -> float:
            return predicted_cycles(product, target, parallel, knobs, arithmetic.b_bytes, arithmetic.pace, delays=delays)

        def ranked(depths: Callable[[Product, Target, int], Sequence[int]], group: int) -> list[dict[str, int]]:
            points = [
                {"block_depth": depth, "row_groups": group, "rows": row, "unroll": 4, "vectors": vectors}
                for row in rows
                for vectors in panels
                for depth in depths(product, target, group)
                if fits_registers(target, row, vectors, arithmetic.temporaries(vectors))
            ]
            return sorted(points, key=cost)

        usual = {group: ranked(block_depths, group) for group in groups}
        first = min((points[0] for points in usual.values()), key=cost)
        best = [first, *(p for group in groups for p in (*usual[group][:_CHOSEN], *ranked(finer_depths, group)[:_FINER]))]
        chosen = {tuple(sorted(point.items())) for point in best}

        def allows(knobs: Mapping[str, int]) -> bool:
            return tuple(sorted({**knobs, "unroll": 4}.items())) in chosen

        choices = {name: tuple(sorted({point[name] for point in best})) for name in ("block_depth", "row_groups", "rows", "vectors")}
        choices["unroll"] = (2, 4, 8)
        return Space(self.name, tuple(sorted(choices.items())), Config.of(self.name, best[0]), allows)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        task = task.representative
        region, arithmetic, product = self.problem(task)
        delays = may_delay(arithmetic, region)
        parallel = useful_threads(task.target, task.threads, product.flops, product.bytes_moved)

        def cycles(config: Config) -> float:
            knobs = {name: config[name] for name in _KNOBS}
            return predicted_cycles(product, task.target, parallel, knobs, arithmetic.b_bytes, arithmetic.pace, delays=delays)

        return list(map(cycles, configs))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return MatmulLowering(task, config, *self.problem(task)).lower()


class NarrowMatmul(MatmulTemplate):
    """Regions around one ``matmul`` or ``linear`` over 8-bit integers or 16-bit floats, summed in 32 bits: blocked as those of fp32 are."""

    name = "narrow_matmul"
    revision = 4

    def find(self, graph: Graph) -> AnchoredRegion | None:
        return narrow_region(graph, _OPS)

    def arithmetic(self, task: Task, region: AnchoredRegion) -> Arithmetic:
        representative = self.find(task.representative.graph)
        assert representative is not None
        product = Product.of(representative.anchor)
        return narrow_arithmetic(task, region, int(product.rows), product.elements)

    def reads_encoded(self, graph: Graph) -> bool:
        return has_short_weight(self.find(graph))
