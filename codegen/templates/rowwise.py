"""Softmax and the normalisations: statistics of each row, then elementwise; the row stays in the nearest cache between passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tvm import tirx

from ...ir import Dim, DType, Graph, Value
from ..emit import Evaluator, Expr, Kernel, index, pulls
from ..emit.access import physical_offset
from ..emit.affine import Probe
from ..emit.attributes import attributes_of
from ..emit.math import exp_nonpositive, f32, log, select
from ..emit.scalar import vectorises
from ..emit.softmax_power import LOG2_E, exp2_nonpositive
from ..space import Config, Space
from ..target import Kind
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import runs_parallel, streamed_outputs, worth_parallel
from .region import AnchoredRegion
from .rows import STAGE_ELEMENTS, Element, Passes, RowLoops, Rows, Step, plan_rows

OPS = ("softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm")


class Rowwise(Template):
    """One softmax or normalisation with an elementwise prologue and epilogue.

    An output that does not depend on the normalisation, such as the sum of a residual connection, is stored on the way if it has the
    operand's shape. Knobs: ``lanes`` of a vector, ``accumulators`` independent partial sums, ``parallel`` 0 keeps to one thread.
    """

    name: ClassVar[str] = "rowwise"
    revision: ClassVar[int] = 3

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, OPS, free_outputs=True, symbolic=True)
        if region is None or not all(vectorises(node) for node in graph.nodes if pulls(node)):
            return False
        shape = region.anchor.inputs[0].tensor.shape
        return all(value in region.paths or value.tensor.shape == shape for value in graph.outputs)

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("accumulators", (1, 2, 4, 8)), ("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "accumulators": 4, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = AnchoredRegion.find(task.graph, OPS, free_outputs=True, symbolic=True)
        assert region is not None
        kernel = Kernel(task.graph, streamed=streamed_outputs(task))
        computation = RowwiseComputation(kernel, region)
        ahead = computation.next_row if task.target.kind is Kind.CPU and computation.streams(task.target.l3_bytes) else None
        rows = Rows(kernel.emitter, computation.loops, config["lanes"], config["accumulators"], ahead=ahead)
        rows.run(runs_parallel(task, config), 4 * task.threads, lambda row: computation.row(row, rows.stage_size))
        return LoweredKernel(kernel.finish())


class RowwiseComputation:
    """The row computation of one normalisation. Rows are formed over :attr:`shape`, in which a group norm's channels are split in two."""

    def __init__(self, kernel: Kernel, region: AnchoredRegion) -> None:
        self.kernel = kernel
        self.emitter = kernel.emitter
        self.region = region
        self.node = region.anchor
        self.operand = self.node.inputs[0]
        self.result: Expr = None
        self.evaluator = Evaluator(kernel, {self.node.output: lambda indices: self.result})
        self.shape, self.axes, self.order = _row_shape(self.node.op, self.operand, self.node.attributes)
        self.loops: RowLoops = plan_rows(
            region.graph, self.shape, self.order, self.axes, {self.node.output: lambda indices: f32(0.0)}, self._touch
        )

    def row(self, row: Passes, stage_size: int | None) -> None:
        """Emits one row (or bundle of rows)."""
        staged = stage_size is not None and stage_size <= STAGE_ELEMENTS
        {
            "softmax": self._softmax,
            "log_softmax": self._log_softmax,
            "layer_norm": self._centred_norm,
            "group_norm": self._centred_norm,
            "rms_norm": self._rms_norm,
        }[self.node.op](row, stage_size or 0 if staged else 0)

    def streams(self, cache: int) -> bool:
        """Whether rows are read one after the other from an operand that does not fit ``cache`` bytes."""
        type = self.operand.tensor
        adjacent = self.loops.lane is None and type.layout.is_row_major and self.axes == tuple(range(len(self.shape)))[-len(self.axes) :]
        return self.operand.node is None and adjacent and type.is_static and 0 < cache < type.nbytes and type.dtype is DType.FLOAT32

    def next_row(self, element: Element) -> tuple[Any, Expr]:
        """Where the operand's element of the next row is."""
        offset = physical_offset(self.operand.tensor, self._at(element))
        return self.kernel.inputs[self.operand], self.emitter.simplify(offset + index(self.loops.length))

    def _touch(self, probe: Probe, indices: Sequence[Expr]) -> None:
        """Everything that a row reads and writes, for the analysis of its loops."""
        logical = self._logical(indices)
        probe.value_at(self.operand, logical)
        for parameter in self.node.inputs[1:]:
            probe.value_at(parameter, self._parameter_indices(parameter, logical))
        for output in self.region.graph.outputs:
            place = self._place(output, logical)
            probe.value_at(output, place)
            probe.writes(output, place)

    def _place(self, output: Value, logical: Sequence[Expr]) -> list[Expr]:
        return self.region.place(self.kernel, output, logical) if output in self.region.paths else list(logical)

    def _logical(self, indices: Sequence[Expr]) -> list[Expr]:
        """Indices into the operand from indices into :attr:`shape`."""
        if self.node.op != "group_norm":
            return list(indices)
        batch, group, channel, *rest = indices
        return [batch, group * int(self.shape[2]) + channel, *rest]

    def _at(self, element: Element) -> list[Expr]:
        return self._logical([element.indices.get(axis, index(0)) for axis in range(len(self.shape))])

    def _parameter_indices(self, parameter: Value, logical: Sequence[Expr]) -> list[Expr]:
        if self.node.op == "group_norm":
            return [logical[1]]
        return list(logical[len(logical) - parameter.tensor.rank :])

    def _reader(self, stage: object) -> Callable[[Element], Expr]:
        """How passes after the first get the operand: from the stage, or by evaluating it again."""
        if stage is None:
            return lambda element: self.evaluator.value_at(self.operand, self._at(element))
        return lambda element: self.emitter.load(stage, element.slot)

    def _stage(self, stage_size: int) -> object:
        """A buffer for the operand's row; None when it is a graph input, which can as well be read again, or too long."""
        if not stage_size or self.operand.node is None:
            return None
        return self.emitter.allocate(stage_size, "float32", "row")

    def _first_pass(self, stage_size: int) -> tuple[Callable[[Element], Expr], Callable[[Element], Expr]]:
        """(element for the first pass, element for later passes)."""
        stage = self._stage(stage_size)
        read = self._operand_and_free_outputs

        def first(element: Element) -> Expr:
            value = read(element)
            if stage is not None:
                self.emitter.store(stage, value, element.slot)
            return value

        return first, self._reader(stage)

    def _operand_and_free_outputs(self, element: Element) -> Expr:
        indices = self._at(element)
        for position, output in enumerate(self.region.graph.outputs):
            if output not in self.region.paths:
                self.evaluator.store_outputs(position, indices)
        return self.evaluator.value_at(self.operand, indices)

    def _store(self, element: Element, value: Expr) -> None:
        """Stores what the outputs make of the normalised ``value``."""
        self.result = self.emitter.bind(value)
        indices = self._at(element)
        for position, output in enumerate(self.region.graph.outputs):
            if output in self.region.paths:
                self.evaluator.store_outputs(position, self._place(output, indices))

    def _softmax(self, row: Passes, stage_size: int) -> None:
        first, again = self._first_pass(stage_size)
        bind = self.emitter.bind
        (highest,) = row.accumulate(_maximum(first))
        exponentials = self.emitter.allocate(stage_size, "float32", "exponential") if stage_size else None

        def exponential(element: Element) -> Expr:
            value = exp2_nonpositive(bind, bind((again(element) - highest(element.lane)) * f32(LOG2_E)))
            if exponentials is not None:
                self.emitter.store(exponentials, value, element.slot)
            return value

        (total,) = row.accumulate(_sum(exponential))
        inverse = row.keep(lambda lane: f32(1.0) / total(lane))

        def finish(element: Element) -> None:
            value = self.emitter.load(exponentials, element.slot) if exponentials is not None else exponential(element)
            self._store(element, value * inverse(element.lane))

        row.each(finish)

    def _log_softmax(self, row: Passes, stage_size: int) -> None:
        first, again = self._first_pass(stage_size)
        bind = self.emitter.bind
        (highest,) = row.accumulate(_maximum(first))
        (total,) = row.accumulate(_sum(lambda element: exp_nonpositive(bind, bind(again(element) - highest(element.lane)))))
        logarithm = row.keep(lambda lane: log(bind, bind(total(lane))))
        row.each(lambda element: self._store(element, again(element) - highest(element.lane) - logarithm(element.lane)))

    def _centred_norm(self, row: Passes, stage_size: int) -> None:
        first, again = self._first_pass(stage_size)
        bind = self.emitter.bind
        scale = self._inverse_length()
        (total,) = row.accumulate(_sum(first))
        mean = row.keep(lambda lane: total(lane) * scale)

        def squared(element: Element) -> Expr:
            centred = bind(again(element) - mean(element.lane))
            return centred * centred

        (squares,) = row.accumulate(_sum(squared))
        inverse = row.keep(lambda lane: self._inverse_root(squares(lane), scale))
        row.each(lambda element: self._store(element, self._affine(element, (again(element) - mean(element.lane)) * inverse(element.lane))))

    def _rms_norm(self, row: Passes, stage_size: int) -> None:
        first, again = self._first_pass(stage_size)
        bind = self.emitter.bind

        def squared(element: Element) -> Expr:
            value = bind(first(element))
            return value * value

        (squares,) = row.accumulate(_sum(squared))
        inverse = row.keep(lambda lane: self._inverse_root(squares(lane), self._inverse_length()))
        row.each(lambda element: self._store(element, self._affine(element, again(element) * inverse(element.lane))))

    def _inverse_length(self) -> Expr:
        """1 / the elements of a row."""
        length = self.loops.length
        return f32(1.0 / length) if isinstance(length, int) else self.emitter.bind(f32(1.0) / tirx.Cast("float32", index(length)))

    def _inverse_root(self, total: Expr, scale: Expr) -> Expr:
        eps = float(attributes_of(self.node)["eps"])
        return f32(1.0) / tirx.sqrt(self.emitter.bind(total * scale + f32(eps)))

    def _affine(self, element: Element, value: Expr) -> Expr:
        """``value`` times the weight plus the bias, as far as there are any."""
        indices = self._at(element)
        parameters = self.node.inputs[1:]
        if parameters:
            value = value * self.evaluator.value_at(parameters[0], self._parameter_indices(parameters[0], indices))
        if len(parameters) > 1:
            value = value + self.evaluator.value_at(parameters[1], self._parameter_indices(parameters[1], indices))
        return value


def _row_shape(op: str, operand: Value, attributes: object) -> tuple[tuple[Dim, ...], tuple[int, ...], tuple[int, ...]]:
    """(shape over which rows are formed, its reduced axes, its axes in the order of memory)."""
    type = operand.tensor
    assert isinstance(attributes, dict)
    shape, order = type.shape, type.layout.order
    rank = len(shape)
    if op in ("softmax", "log_softmax"):
        return shape, (attributes["axis"] % rank,), order
    if op == "layer_norm":
        return shape, tuple(range(rank - attributes["axes"], rank)), order
    if op == "rms_norm":
        return shape, (rank - 1,), order
    groups = attributes["groups"]
    split = (shape[0], groups, int(shape[1]) // groups, *shape[2:])
    moved: list[int] = []
    for axis in order:
        moved.extend((1, 2) if axis == 1 else (axis if axis == 0 else axis + 1,))
    return split, tuple(range(2, rank + 1)), tuple(moved)


def _maximum(element: Callable[[Element], Expr]) -> Step:
    return Step(lambda a, b: select(a > b, a, b), f32(-math.inf), "float32", element)


def _sum(element: Callable[[Element], Expr]) -> Step:
    return Step(lambda a, b: a + b, f32(0.0), "float32", element)
