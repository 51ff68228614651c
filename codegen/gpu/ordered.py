"""Operations that need the order of a row: running sums, sorting and top-k. One thread for a row, or for an element of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx

from ...ir import DType, Graph, Node
from ..emit import Evaluator, Expr, compute_dtype, computes, index, pulls, unflatten
from ..emit.attributes import attributes_of
from ..emit.math import select
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.region import AnchoredRegion
from ..templates.scan import combination, identity_of
from ..templates.sorting import key_of
from .elements import THREADS, blocks_for, each_element
from .kernel import GpuKernel


class GpuScan(Template):
    """One ``scan`` with an elementwise prologue and epilogue: a thread for each row. Knobs: ``threads`` of a block."""

    name: ClassVar[str] = "gpu_scan"

    def takes(self, graph: Graph) -> bool:
        return AnchoredRegion.find(graph, ("scan",), any_dtype=True) is not None

    def space(self, task: Task) -> Space:
        return _thread_space(self.name)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = AnchoredRegion.find(task.graph, ("scan",), any_dtype=True)
        assert region is not None
        node = region.anchor
        operand = node.inputs[0]
        type = operand.tensor
        axis = int(attributes_of(node)["axis"]) % type.rank
        rows = type.elements // type.static_shape[axis]
        kernel = GpuKernel(task.graph, blocks=blocks_for(rows, config), threads=config["threads"])
        emitter = kernel.emitter
        running: list[Expr] = [None]
        evaluator = Evaluator(kernel, {node.output: lambda indices: running[0]})
        kind = str(node.attributes["kind"])
        identity, combine = identity_of(kind, type.dtype), combination(kind, type.dtype)

        def scan(row: Expr) -> None:
            free = _free_indices(kernel, type.static_shape, type.layout.order, axis, row)
            total = emitter.allocate(1, compute_dtype(type.dtype), "running")
            emitter.store(total, identity, 0)
            with emitter.loop(type.static_shape[axis], name="place") as place:
                indices = [*free[:axis], place, *free[axis + 1 :]]
                before, value = emitter.load(total, 0), evaluator.value_at(operand, indices)
                running[0] = emitter.bind(combine(emitter.bind, emitter.bind(before), value))
                emitter.store(total, running[0], 0)
                for position in range(len(task.graph.outputs)):
                    evaluator.store_outputs(position, region.place(kernel, task.graph.outputs[position], indices))

        each_element(kernel, rows, config["per_thread"], scan)
        return kernel.lowered()


class GpuSort(Template):
    """One ``sort`` with an elementwise prologue; the outputs are its values, its indices, or both.

    A thread for each element counts those that come before it, which is where it belongs; equal ones keep their order. Knobs:
    ``threads`` of a block.
    """

    name: ClassVar[str] = "gpu_sort"

    def takes(self, graph: Graph) -> bool:
        node = _sort_anchor(graph)
        if node is None or not graph.outputs or not all(value in node.outputs for value in graph.outputs):
            return False
        type = node.inputs[0].tensor
        if not type.is_static or not computes(type.dtype) or type.dtype is DType.BOOL or type.elements == 0:
            return False
        return not any(value.tensor.layout.is_blocked for value in graph.outputs)

    def space(self, task: Task) -> Space:
        return _thread_space(self.name)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        node = _sort_anchor(task.graph)
        assert node is not None
        type = node.inputs[0].tensor
        axis = int(attributes_of(node)["axis"]) % type.rank
        length, count = type.static_shape[axis], node.outputs[0].tensor.static_shape[axis]
        descending = bool(attributes_of(node)["descending"])
        kernel = GpuKernel(task.graph, blocks=blocks_for(type.elements, config), threads=config["threads"])
        emitter = kernel.emitter
        evaluator = Evaluator(kernel)

        def place_element(position: Expr) -> None:
            row, own_place = (emitter.bind(value) for value in unflatten(emitter, (type.elements // length, length), position))
            free = _free_indices(kernel, type.static_shape, type.layout.order, axis, row)

            def element(place: Expr) -> Expr:
                return evaluator.value_at(node.inputs[0], [*free[:axis], place, *free[axis + 1 :]])

            own = emitter.bind(element(own_place))
            own_key = emitter.bind(key_of(emitter.bind, own, type.dtype))
            rank = emitter.allocate(1, "int32", "rank")
            emitter.store(rank, index(0), 0)
            with emitter.loop(length, name="other") as other:
                key = emitter.bind(key_of(emitter.bind, emitter.bind(element(other)), type.dtype))
                before = key > own_key if descending else key < own_key
                earlier = tirx.Or(before, tirx.And(tirx.EQ(key, own_key), other < own_place))
                emitter.store(rank, emitter.load(rank, 0) + select(earlier, index(1), index(0)), 0)
            place = emitter.bind(emitter.load(rank, 0))
            with emitter.when(place < count):
                for number, output in enumerate(task.graph.outputs):
                    result = own if output is node.outputs[0] else tirx.Cast("int64", own_place)
                    kernel.store(number, [*free[:axis], place, *free[axis + 1 :]], result)

        each_element(kernel, type.elements, config["per_thread"], place_element)
        return kernel.lowered()


def _thread_space(template: str) -> Space:
    return Space(template, (("per_thread", (1,)), ("threads", THREADS)), Config.of(template, {"per_thread": 1, "threads": THREADS[0]}))


def _free_indices(kernel: GpuKernel, shape: Sequence[int], order: Sequence[int], axis: int, row: Expr) -> list[Expr]:
    """The indices of row number ``row``, in the order of memory; 0 along ``axis``."""
    free = [other for other in order if other != axis]
    indices: list[Expr] = [index(0)] * len(shape)
    extents = [shape[other] for other in free]
    assert math.prod(extents) > 0
    for other, value in zip(free, unflatten(kernel.emitter, extents, row), strict=True):
        indices[other] = kernel.emitter.bind(value)
    return indices


def _sort_anchor(graph: Graph) -> Node | None:
    anchors = [node for node in graph.nodes if not pulls(node)]
    return anchors[0] if len(anchors) == 1 and anchors[0].op == "sort" else None
