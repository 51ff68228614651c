"""Convolution on the CPU: directly, as a matrix product whose rows are output pixels, or by Winograd's algorithm (:mod:`.winograd`).

The weight is packed in panels of ``nr`` output channels; a register tile takes some pixels of one or more output rows and runs
through the window and all input channels. Pixels of the operand are addressed where they lie if the convolution has no padding;
otherwise the kernel first copies the operand, surrounded by zeros, into its workspace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...errors import LoweringError
from ...ir import Graph
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Arithmetic, Fp32
from .conv_geometry import Convolution, Pixels, PixelTiles
from .direct_conv import DirectLowering, Problem, predicted_cycles
from .narrow import has_short_weight, narrow_arithmetic, narrow_region, packed_input
from .region import AnchoredRegion, only_batch_is_symbolic
from .tiling import EvenSplit, divisors, fits_registers, panel_candidates, useful_threads
from .winograd import WinogradLowering
from .winograd_geometry import WinogradTiles
from .winograd_geometry import applies as winograd_applies
from .winograd_geometry import candidates as winograd_candidates

_KNOBS = ("pixels", "row_groups", "vectors")
"""Those that a direct schedule is reckoned by."""
_MOST_PER_WORD = 4
"""Elements in a word at most: groups of channels that are no multiple of it could share a word."""
_CHOSEN = 8
"""Register tiles kept for each way of sharing the rows, so that spaces have a few dozen points."""


class ConvTemplate(Template):
    """Regions around one ``conv`` over one or two axes, except depthwise ones, with elementwise operations and views around it.

    Knobs: ``winograd``, 0 for a direct convolution, else m of F(m, 3); ``pixels`` (with Winograd: tiles) and ``vectors`` of the register
    tile, ``unroll`` of the innermost reduction loop, ``row_groups``: into how many groups the threads are split along the rows of the
    result (the others split its channels).
    """

    name = "conv"
    revision = 5

    def takes(self, graph: Graph) -> bool:
        region = self.find(graph)
        if region is None or region.anchor.output.tensor.rank not in (3, 4):
            return False
        if not only_batch_is_symbolic(*region.anchor.inputs[:1], region.anchor.output):
            return False
        return not Convolution(region.anchor).is_depthwise

    def find(self, graph: Graph) -> AnchoredRegion | None:
        """The region that ``graph`` is, if its operands are of this template's dtypes."""
        return AnchoredRegion.find(graph, ("conv",), symbolic=True)

    def arithmetic(self, task: Task, region: AnchoredRegion) -> Arithmetic:
        """How the task's operands are multiplied."""
        return Fp32(task.target)

    def problem(self, task: Task) -> Problem:
        """What a task is made of."""
        region = self.find(task.graph)
        if region is None:
            raise LoweringError(f"the {self.name} template does not take this region; ask takes() first")
        arithmetic = self.arithmetic(task, region)
        conv = Convolution(region.anchor, arithmetic.per_word)
        return Problem(region, arithmetic, conv, Pixels.of(region, conv, task.target, arithmetic.a_dtype))

    def filters(self, task: Task, problem: Problem) -> bool:
        """Whether Winograd's algorithm may be used."""
        return winograd_applies(task, problem.conv, packed_input(task, problem.region, problem.region.anchor.inputs[1]) is not None)

    def space(self, task: Task) -> Space:
        task = task.representative
        problem = self.problem(task)
        conv, pixels = problem.conv, problem.pixels
        target = task.target
        parallel = useful_threads(target, task.threads, conv.flops, conv.bytes_moved)
        tilings: dict[PixelTiles, int] = {}
        for most in range(1, max(1, target.vector_registers // 2) + 1):
            tiles = PixelTiles.of(conv, pixels, most)
            tilings.setdefault(PixelTiles(_canonical(tiles.rows), _canonical(tiles.columns), tiles.flat), most)
        points = [
            {"pixels": most, "row_groups": group, "unroll": 4, "vectors": vectors, "winograd": 0}
            for tiles, most in tilings.items()
            for group in divisors(parallel)
            for vectors in panel_candidates(target, conv.outputs, tiles.largest)
            if fits_registers(target, tiles.largest, vectors, problem.temporaries(vectors)) and group <= tiles.shared.tiles
        ]
        costs = [(predicted_cycles(problem, target, parallel, point), point) for point in points]
        if self.filters(task, problem):
            costs += winograd_candidates(conv, target, parallel, {"unroll": 4})
        ranked = [point for _, point in sorted(costs, key=lambda pair: pair[0])]
        best = [ranked[0]]
        for kind in sorted({(point["winograd"], point["row_groups"]) for point in ranked}):
            best += [point for point in ranked if (point["winograd"], point["row_groups"]) == kind][:_CHOSEN]
        chosen = {tuple(sorted(point.items())) for point in best}

        def allows(knobs: Mapping[str, int]) -> bool:
            return tuple(sorted({**knobs, "unroll": 4}.items())) in chosen

        choices = {name: tuple(sorted({point[name] for point in best})) for name in ("pixels", "row_groups", "vectors", "winograd")}
        choices["unroll"] = (2, 4, 8)
        return Space(self.name, tuple(sorted(choices.items())), Config.of(self.name, best[0]), allows)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        task = task.representative
        problem, target = self.problem(task), task.target
        conv = problem.conv
        parallel = useful_threads(target, task.threads, conv.flops, conv.bytes_moved)

        def cycles(config: Config) -> float:
            if outputs := config["winograd"]:
                tiles = WinogradTiles(conv, outputs, config["row_groups"], config["pixels"], target)
                return tiles.cycles(config["vectors"], parallel)
            return predicted_cycles(problem, target, parallel, {name: config[name] for name in _KNOBS})

        return [cycles(config) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        problem = self.problem(task)
        if config["winograd"]:
            parallel = useful_threads(task.target, task.threads, problem.conv.flops, problem.conv.bytes_moved)
            return WinogradLowering(task, problem.region, config, parallel).lower()
        return DirectLowering(task, config, problem).lower()


class NarrowConv(ConvTemplate):
    """Regions around one ``conv`` over 8-bit integers or 16-bit floats, summed in 32 bits: tiled as those of fp32 are."""

    name = "narrow_conv"
    revision = 5

    def takes(self, graph: Graph) -> bool:
        region = self.find(graph)
        if region is None or not super().takes(graph):
            return False
        conv = Convolution(region.anchor)
        return conv.groups == 1 or conv.channels % _MOST_PER_WORD == 0

    def find(self, graph: Graph) -> AnchoredRegion | None:
        return narrow_region(graph, ("conv",))

    def arithmetic(self, task: Task, region: AnchoredRegion) -> Arithmetic:
        representative = self.find(task.representative.graph)
        assert representative is not None
        conv = Convolution(representative.anchor)
        return narrow_arithmetic(task, region, int(conv.batch) * math.prod(conv.results), conv.channels)

    def reads_encoded(self, graph: Graph) -> bool:
        return has_short_weight(self.find(graph))

    def filters(self, task: Task, problem: Problem) -> bool:
        return False


def _canonical(split: EvenSplit) -> EvenSplit:
    return EvenSplit(split.extent, split.largest)
