"""The pull evaluator: the element of a region's value at given logical indices, as a TIR expression.

It recurses from the value through elementwise operations (which it computes), views (which change the indices) and gathers down to
loads of the region's inputs. Whatever it cannot compute from single elements, such as a reduction or a contraction, is the *anchor*
of the kernel: the template computes it and substitutes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tvm_ffi
from tvm import tirx

from ...errors import LoweringError
from ...ir import Dim, DType, Graph, Node, Value
from . import conversions, scalar
from .access import through_reshape
from .attributes import attributes_of
from .emitter import INDEX, Emitter, Expr, index
from .extent import extent_of
from .kernel import Kernel, computes
from .resample import resample_at

Substitute = Callable[[Sequence[Expr]], Expr]
"""Gives the element of a value at logical indices."""

VIEWS = ("reshape", "permute", "broadcast_to", "slice", "flip", "relayout")
MOVEMENT = ("pad", "concat", "take", "take_along", "take_nd", "resample")
SOURCES = ("iota", "full", "constant")


def pulls(node: Node) -> bool:
    """Whether the evaluator can compute elements of ``node`` from single elements of its operands."""
    if not all(computes(value.tensor.dtype) for value in (*node.inputs, *node.outputs)):
        return False
    if node.op == "constant":
        return node.output.tensor.size == 1
    if node.op == "resample" and not all(isinstance(dim, int) for dim in (*node.inputs[0].tensor.shape[2:], *node.output.tensor.shape[2:])):
        return False
    return node.op in VIEWS or node.op in MOVEMENT or node.op in SOURCES or node.op == "batch_norm" or scalar.has_rule(node)


class Evaluator:
    """Evaluates values of ``kernel.graph``. ``substitutes`` gives the elements of values that the template computes itself."""

    def __init__(self, kernel: Kernel, substitutes: Mapping[Value, Substitute] | None = None) -> None:
        self.kernel = kernel
        self.emitter: Emitter = kernel.emitter
        self.graph: Graph = kernel.graph
        self.substitutes = dict(substitutes or {})

    def value_at(self, value: Value, indices: Sequence[Expr]) -> Expr:
        """The element of ``value`` at logical ``indices``, in its compute dtype; bound once per scope.

        LoweringError for an operation that is neither substituted nor computable from single elements.
        """
        simple = [self.emitter.simplify(position) for position in indices]
        key = (value, tuple(_key(position) for position in simple))
        return self.emitter.remembered(key, lambda: self._compute(value, simple))

    def store_outputs(self, position: int, indices: Sequence[Expr]) -> None:
        """Stores the element of output number ``position`` at logical ``indices``."""
        self.kernel.store(position, indices, self.value_at(self.graph.outputs[position], indices))

    def _compute(self, value: Value, indices: Sequence[Expr]) -> Expr:
        if value in self.substitutes:
            return self.substitutes[value](indices)
        node = value.node
        if node is None:
            return self.kernel.load(value, indices)
        movement = _RULES.get(node.op)
        if movement is not None:
            return movement(self, node, indices)
        operands = [self.value_at(operand, self._broadcast(operand, indices)) for operand in node.inputs]
        return scalar.apply(self.emitter, node, operands)

    def _broadcast(self, operand: Value, indices: Sequence[Expr]) -> list[Expr]:
        """Indices into ``operand`` of what broadcasts to ``indices`` of a result."""
        shape = operand.tensor.shape
        own = indices[len(indices) - len(shape) :]
        return [index(0) if extent == 1 else position for extent, position in zip(shape, own, strict=True)]

    def clamped(self, position: Expr, dim: Dim) -> tuple[Expr, Expr | None]:
        """(a position forced into [0, extent), whether the original was there; None if it always is)."""
        simplify = self.emitter.simplify
        extent = extent_of(dim)
        low = self.emitter.proves(position >= 0)
        high = self.emitter.proves(position < extent)
        safe, valid = position, None
        if not low:
            safe, valid = tirx.Max(safe, index(0)), position >= 0
        if not high:
            safe = tirx.Min(safe, index(dim - 1))
            valid = position < extent if valid is None else tirx.And(valid, position < extent)
        return simplify(safe), valid

    def _reshape(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        source, result = x.tensor.shape, node.output.tensor.shape
        return self.value_at(x, through_reshape(self.emitter, source, result, indices))

    def _permute(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        order: Sequence[int] = attributes_of(node)["order"]
        source: list[Expr] = [None] * len(order)
        for position, axis in enumerate(order):
            source[axis] = indices[position]
        return self.value_at(x, source)

    def _broadcast_to(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        return self.value_at(x, self._broadcast(x, indices))

    def _slice(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        axis, start, step = (attributes_of(node)[name] for name in ("axis", "start", "step"))
        source = list(indices)
        source[axis] = source[axis] * step + extent_of(start)
        return self.value_at(x, source)

    def _flip(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        source = list(indices)
        for axis in attributes_of(node)["axes"]:
            source[axis] = extent_of(x.tensor.shape[axis] - 1) - source[axis]
        return self.value_at(x, source)

    def _relayout(self, node: Node, indices: Sequence[Expr]) -> Expr:
        return self.value_at(node.inputs[0], indices)

    def _pad(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        dtype = x.tensor.dtype
        filling = conversions.constant(node.attributes["value"], dtype)
        if x.tensor.is_empty:
            return filling
        source: list[Expr] = []
        inside: Expr | None = None
        pads: Sequence[tuple[int, int]] = attributes_of(node)["pads"]
        for position, extent, (low, _) in zip(indices, x.tensor.shape, pads, strict=True):
            safe, valid = self.clamped(self.emitter.simplify(position - low), extent)
            source.append(safe)
            if valid is not None:
                inside = valid if inside is None else tirx.And(inside, valid)
        element = self.value_at(x, source)
        return element if inside is None else tirx.Select(self.emitter.bind(inside), element, filling)

    def _concat(self, node: Node, indices: Sequence[Expr]) -> Expr:
        axis = attributes_of(node)["axis"]
        parts: list[tuple[Expr | None, Expr]] = []
        start: Dim = 0
        for operand in node.inputs:
            dim = operand.tensor.shape[axis]
            extent = extent_of(dim)
            position = self.emitter.simplify(indices[axis] - extent_of(start))
            start += dim
            if dim == 0 or self.emitter.proves(position < 0) or self.emitter.proves(position >= extent):
                continue
            safe, valid = self.clamped(position, dim)
            source = [safe if number == axis else value for number, value in enumerate(indices)]
            parts.append((None if valid is None else position < extent, self.value_at(operand, source)))
            if valid is None:
                break
        result = parts[-1][1]
        for condition, element in reversed(parts[:-1]):
            result = self.emitter.bind(tirx.Select(condition, element, result))
        return result

    def _row(self, position: Expr, dim: Dim) -> Expr:
        """An index from data as an offset: negative ones count from the end, wrong ones are forced into range."""
        row = self.emitter.bind(position)
        dtype = row.ty.dtype
        extent = tirx.const(dim, dtype) if isinstance(dim, int) else tirx.Cast(dtype, extent_of(dim))
        row = self.emitter.bind(tirx.Select(row < tirx.const(0, dtype), row + extent, row))
        row = self.emitter.bind(tirx.Cast(INDEX, row))
        row = self.emitter.bind(tirx.Select(row < 0, index(0), row))
        last = index(dim - 1)
        return self.emitter.bind(tirx.Select(row > last, last, row))

    def _take(self, node: Node, indices: Sequence[Expr]) -> Expr:
        x, positions = node.inputs
        axis = attributes_of(node)["axis"] % x.tensor.rank
        rank = positions.tensor.rank
        row = self._row(self.value_at(positions, indices[axis : axis + rank]), x.tensor.shape[axis])
        return self.value_at(x, [*indices[:axis], row, *indices[axis + rank :]])

    def _take_along(self, node: Node, indices: Sequence[Expr]) -> Expr:
        x, positions = node.inputs
        axis = attributes_of(node)["axis"] % x.tensor.rank
        source = list(indices)
        source[axis] = self._row(self.value_at(positions, indices), x.tensor.shape[axis])
        return self.value_at(x, source)

    def _take_nd(self, node: Node, indices: Sequence[Expr]) -> Expr:
        x, positions = node.inputs
        outer = positions.tensor.rank - 1
        count = int(positions.tensor.shape[-1])
        rows = [self._row(self.value_at(positions, [*indices[:outer], index(axis)]), x.tensor.shape[axis]) for axis in range(count)]
        return self.value_at(x, [*rows, *indices[outer:]])

    def _resample(self, node: Node, indices: Sequence[Expr]) -> Expr:
        (x,) = node.inputs
        return resample_at(self.emitter, node, lambda source: self.value_at(x, source), indices)

    def _iota(self, node: Node, indices: Sequence[Expr]) -> Expr:
        dtype = node.output.tensor.dtype
        start, step = node.attributes["start"], node.attributes["step"]
        wide = DType.FLOAT64 if dtype.is_float else DType.INT64
        count = tirx.Cast(wide.numpy.name, indices[0])
        value = count * conversions.constant(step, wide) + conversions.constant(start, wide)
        return conversions.cast(self.emitter, self.emitter.bind(value), wide, dtype)

    def _full(self, node: Node, indices: Sequence[Expr]) -> Expr:
        return conversions.constant(node.attributes["value"], node.output.tensor.dtype)

    def _constant(self, node: Node, indices: Sequence[Expr]) -> Expr:
        constant = node.output.constant
        assert constant is not None
        if constant.type.size != 1:
            raise LoweringError(f"a constant of type {constant.type} inside a fused region must become one of its inputs")
        return conversions.constant(constant.array().reshape(-1)[0].item(), constant.type.dtype)

    def _batch_norm(self, node: Node, indices: Sequence[Expr]) -> Expr:
        x, mean, variance, *parameters = node.inputs
        dtype = x.tensor.dtype
        channel = [indices[1]]
        element = self.value_at(x, indices) - self.value_at(mean, channel)
        scale = tirx.sqrt(self.emitter.bind(self.value_at(variance, channel) + conversions.constant(node.attributes["eps"], dtype)))
        result = self.emitter.bind(element / self.emitter.bind(scale))
        if parameters:
            result = self.emitter.bind(result * self.value_at(parameters[0], channel))
        if len(parameters) > 1:
            result = result + self.value_at(parameters[1], channel)
        return result


def _key(position: Expr) -> object:
    return tvm_ffi.StructuralKey(position)


_RULES: dict[str, Callable[[Evaluator, Node, Sequence[Expr]], Expr]] = {
    "reshape": Evaluator._reshape,
    "permute": Evaluator._permute,
    "broadcast_to": Evaluator._broadcast_to,
    "slice": Evaluator._slice,
    "flip": Evaluator._flip,
    "relayout": Evaluator._relayout,
    "pad": Evaluator._pad,
    "concat": Evaluator._concat,
    "take": Evaluator._take,
    "take_along": Evaluator._take_along,
    "take_nd": Evaluator._take_nd,
    "resample": Evaluator._resample,
    "iota": Evaluator._iota,
    "full": Evaluator._full,
    "constant": Evaluator._constant,
    "batch_norm": Evaluator._batch_norm,
}
