"""How a fused elementwise computation walks through memory: which loops may be merged, and the stride of each load along each loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import PrimType

from ...ir import Dim, Graph, Node, Value, same_dim
from .access import physical_offset
from .attributes import attributes_of
from .emitter import INDEX, Expr, index
from .evaluate import Evaluator, Substitute
from .extent import dim_of, extent_of
from .kernel import Kernel, compute_dtype


@dataclass(frozen=True)
class Walk:
    """One place from which a computation reads, as a function of the loop variables.

    ``strides`` holds the coefficient of each loop (elements); None when the place is no linear function of them, ``touched`` then
    says which loops it depends on. ``value`` is the graph input read, None for a bare index (a border test, a counter).
    """

    value: Value | None
    strides: tuple[Dim, ...] | None
    touched: tuple[bool, ...]


class Probe(Evaluator):
    """Evaluates without generating code, and notes every index expression that reaches a leaf."""

    def __init__(self, graph: Graph, substitutes: Mapping[Value, Substitute]) -> None:
        super().__init__(Kernel(graph), substitutes)
        self.places: list[tuple[Value | None, Expr]] = []

    def writes(self, value: Value, indices: Sequence[Expr]) -> None:
        """Notes that an element of ``value`` is stored."""
        self.places.append((None, self.emitter.simplify(physical_offset(value.tensor, indices))))

    def _compute(self, value: Value, indices: Sequence[Expr]) -> Expr:
        if value.node is None and value not in self.substitutes:
            self.places.append((value, self.emitter.simplify(physical_offset(value.tensor, indices))))
            return tirx.Var(self.emitter.fresh("element"), PrimType(compute_dtype(value.tensor.dtype)))
        if value.op in ("iota", "resample"):
            self.places.extend((None, position) for position in indices)
        return super()._compute(value, indices)

    def clamped(self, position: Expr, dim: Dim) -> tuple[Expr, Expr | None]:
        safe, valid = super().clamped(position, dim)
        if valid is not None:
            self.places.append((None, position))
        return safe, valid

    def _concat(self, node: Node, indices: Sequence[Expr]) -> Expr:
        self.places.append((None, self.emitter.simplify(indices[attributes_of(node)["axis"]])))
        return super()._concat(node, indices)


@dataclass(frozen=True)
class Box:
    """A part of a tensor: for each logical axis where it starts and how far it extends."""

    starts: tuple[Dim, ...]
    extents: tuple[Dim, ...]


def walks(graph: Graph, value: Value, box: Box, order: Sequence[int]) -> list[Walk]:
    """The places that computing ``value`` within ``box`` reads, over loops that run over its logical axes ``order``, outermost first."""
    return walks_of(graph, {}, box, order, lambda evaluator, indices: evaluator.value_at(value, indices))


def walks_of(
    graph: Graph,
    substitutes: Mapping[Value, Substitute],
    box: Box,
    order: Sequence[int],
    evaluate: Callable[[Probe, Sequence[Expr]], object],
) -> list[Walk]:
    """The places that ``evaluate(evaluator, indices)`` reads, the indices running over the axes ``order`` of ``box``."""
    probe = Probe(graph, substitutes)
    variables = [tirx.Var(f"axis{axis}", INDEX) for axis in order]
    indices: list[Expr] = [index(start) for start in box.starts]
    for variable, axis in zip(variables, order, strict=True):
        probe.emitter.bind_range(variable, box.extents[axis])
        indices[axis] = variable + extent_of(box.starts[axis])
    evaluate(probe, indices)
    return [_walk(source, place, variables) for source, place in probe.places]


def _walk(source: Value | None, place: Expr, variables: Sequence[Expr]) -> Walk:
    coefficients = linear(place)
    touched = tuple(_mentions(place, variable) for variable in variables)
    if coefficients is None:
        return Walk(source, None, touched)
    strides = tuple(coefficients.get(variable, 0) for variable in variables)
    return Walk(source, strides, touched)


def linear(place: Expr) -> dict[Expr, Dim] | None:
    """The coefficient of each variable when ``place`` is a sum of multiples of variables (and a constant), else None.

    Size parameters are constants here: what multiplies a variable may be a symbolic dimension.
    """
    if dim_of(place) is not None:
        return {}
    if isinstance(place, tirx.Var):
        return {place: 1}
    if isinstance(place, tirx.Add | tirx.Sub):
        left, right = linear(place.a), linear(place.b)
        if left is None or right is None:
            return None
        sign = -1 if isinstance(place, tirx.Sub) else 1
        return {variable: left.get(variable, 0) + sign * right.get(variable, 0) for variable in {**left, **right}}
    if isinstance(place, tirx.Mul):
        right_factor = dim_of(place.b)
        factor, other = (right_factor, place.a) if right_factor is not None else (dim_of(place.a), place.b)
        inner = linear(other)
        if factor is None or inner is None:
            return None
        return {variable: coefficient * factor for variable, coefficient in inner.items()}
    return None


def _mentions(place: Expr, variable: Expr) -> bool:
    if isinstance(place, tirx.Var):
        return bool(place.same_as(variable))
    children = (getattr(place, name, None) for name in ("a", "b", "value", "condition", "true_value", "false_value"))
    return any(_mentions(child, variable) for child in children if isinstance(child, tvm.ir.Expr))


def mergeable(walk: Walk, outer: int, inner: int, extent: Dim) -> bool:
    """Whether loops ``outer`` and ``inner`` (of ``extent``) act on this place as one loop."""
    if walk.strides is None:
        return not walk.touched[outer] and not walk.touched[inner]
    return same_dim(walk.strides[outer], walk.strides[inner] * extent)


def merged_loops(places: Sequence[Walk], extents: Sequence[Dim]) -> list[list[int]]:
    """Groups of adjacent loops that every place allows to merge, outermost first. Loops of extent 1 must have been left out."""
    groups: list[list[int]] = []
    for loop in range(len(extents)):
        if groups and all(mergeable(place, groups[-1][-1], loop, extents[loop]) for place in places):
            groups[-1].append(loop)
        else:
            groups.append([loop])
    return groups
