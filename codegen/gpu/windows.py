"""Windows of an image that share nothing worth tiling: pooling, and convolutions of few channels. A thread for each result."""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar

from ...ir import Graph
from ..emit import SERIAL, UNROLLED, Expr, compute_dtype
from ..emit.conversions import constant
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.pooling import Pool
from ..templates.region import AnchoredRegion, Epilogue
from .elements import blocks_for, each_element, element_space, physical_indices
from .kernel import GpuKernel
from .product import Contraction

_FEW_COLUMNS = 8
"""Output channels of a group below which tiles of a matrix product would be mostly empty."""
_UNROLLED_DEPTH = 32


class GpuPooling(Template):
    """One ``window_reduce`` with an elementwise prologue and epilogue. Knobs: ``threads`` of a block, results ``per_thread``."""

    name: ClassVar[str] = "gpu_pooling"

    def takes(self, graph: Graph) -> bool:
        return AnchoredRegion.find(graph, ("window_reduce",), any_dtype=True) is not None

    def space(self, task: Task) -> Space:
        return element_space(self.name, task, self._region(task.graph).anchor.output.tensor.elements, 4)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = self._region(task.graph)
        type = region.anchor.output.tensor
        kernel = GpuKernel(task.graph, blocks=blocks_for(type.elements, config), threads=config["threads"])
        pool = Pool(kernel, region, task, 1)

        def window(position: Expr) -> None:
            place = physical_indices(kernel, type, position)
            pool.windows(1, lambda lane: place)

        each_element(kernel, type.elements, config["per_thread"], window)
        return kernel.lowered()

    @staticmethod
    def _region(graph: Graph) -> AnchoredRegion:
        region = AnchoredRegion.find(graph, ("window_reduce",), any_dtype=True)
        assert region is not None
        return region


class GpuDirectConv(Template):
    """A convolution in groups of few output channels, depthwise ones above all, with a fused prologue and epilogue.

    Knobs: ``threads`` of a block, results ``per_thread``.
    """

    name: ClassVar[str] = "gpu_direct_conv"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("conv", "conv_transpose"), any_dtype=True)
        if region is None:
            return False
        product = Contraction(region.anchor)
        return product.groups > 1 and product.columns < _FEW_COLUMNS

    def space(self, task: Task) -> Space:
        return element_space(self.name, task, self._region(task.graph).anchor.output.tensor.elements, 4)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = self._region(task.graph)
        product = Contraction(region.anchor)
        type = region.anchor.output.tensor
        weight = region.anchor.inputs[1]
        layouts = {}
        if weight in task.graph.inputs and task.graph.inputs.index(weight) in task.constant_inputs and len(task.graph.users[weight]) == 1:
            # Neighbouring threads compute neighbouring channels.
            layouts[task.graph.inputs.index(weight)] = product.second_layout
        kernel = GpuKernel(task.graph, blocks=blocks_for(type.elements, config), threads=config["threads"], layouts=layouts)
        emitter = kernel.emitter
        epilogue = Epilogue(kernel, region)

        def result(position: Expr) -> None:
            place = physical_indices(kernel, type, position)
            channel = emitter.bind(place[1])
            group = emitter.bind(emitter.simplify(channel // product.columns))
            column = emitter.bind(emitter.simplify(channel % product.columns))
            row = product.row_of(place)
            total = emitter.allocate(1, compute_dtype(product.dtype), "total")
            emitter.store(total, constant(0, product.dtype), 0)
            kind = UNROLLED if product.depth <= _UNROLLED_DEPTH else SERIAL
            with ExitStack() as stack:
                steps = [stack.enter_context(emitter.loop(extent, kind, "tap")) for extent in product.depth_shape]
                element = product.pixel(epilogue.evaluator, group, row, steps)
                factor = product.weight(epilogue.evaluator, group, steps, column)
                emitter.store(total, emitter.load(total, 0) + element * factor, 0)
            element = emitter.bind(emitter.load(total, 0))
            element = product.with_bias(epilogue.evaluator, element, group, column)
            epilogue.store(place, emitter.bind(element))

        each_element(kernel, type.elements, config["per_thread"], result)
        return kernel.lowered()

    @staticmethod
    def _region(graph: Graph) -> AnchoredRegion:
        region = AnchoredRegion.find(graph, ("conv", "conv_transpose"), any_dtype=True)
        assert region is not None
        return region
