"""What passes ask about single nodes and values: kinds of operations, uniform values, uses."""

from __future__ import annotations

import numpy as np

from ..ir import Constant, Graph, Node, Trait, Value, is_alias, lookup
from ..ir.ops import Op

MOVEMENT = frozenset({"pad", "concat", "take", "take_along", "take_nd", "resample"})
"""Operations other than views whose result elements are single operand elements (or few of them)."""

SCATTERS = frozenset({"scatter_along", "scatter_nd"})
"""Operations that write at places that are data."""

SCALAR_ELEMENTS = 1
"""Constants of at most so many elements are written into regions instead of being passed to them."""

UNIFORM_LIMIT = 1 << 22
"""Constants of more elements are not searched for being all equal."""

TRANSCENDENTAL = frozenset(
    {"exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"}
    | {"sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "sigmoid", "silu", "gelu", "elu", "softplus", "pow"}
)


def definition(node: Node) -> Op:
    """The definition of the node's operation."""
    return lookup(node.op)


def is_elementwise(node: Node) -> bool:
    return definition(node).has(Trait.ELEMENTWISE)


def is_view(node: Node) -> bool:
    return definition(node).has(Trait.VIEW) or node.op == "relayout"


def is_source(node: Node) -> bool:
    return definition(node).has(Trait.SOURCE)


def is_contraction(node: Node) -> bool:
    return definition(node).has(Trait.CONTRACTION)


def is_normalisation(node: Node) -> bool:
    """A softmax or norm with statistics of its own operand (batch norm at inference has none)."""
    return definition(node).has(Trait.NORMALISATION) and node.op != "batch_norm"


def is_state(node: Node) -> bool:
    """Whether the node reads or writes a mutable buffer: no kernel, but the name of a place and of a moment."""
    return definition(node).has(Trait.STATE)


def is_injective(node: Node) -> bool:
    """Whether each result element comes from few operand elements at computable places: no reduction, no contraction."""
    return is_elementwise(node) or is_view(node) or node.op in MOVEMENT or node.op == "batch_norm"


def is_inlined(node: Node) -> bool:
    """Whether a region holds its own copy of this source instead of reading it: generators, single numbers."""
    if node.op == "constant":
        value = node.attributes["value"]
        assert isinstance(value, Constant)
        return value.type.is_static and value.type.elements <= SCALAR_ELEMENTS
    return is_source(node)


def is_free(node: Node) -> bool:
    """Whether recomputing the node for each use costs next to nothing."""
    return is_view(node) or node.op == "cast" or is_source(node)


def is_virtual(node: Node) -> bool:
    """A view that cannot be an alias of a stored value: it moves data, or views one that does."""
    if not is_view(node):
        return False
    if not is_alias(node):
        return True
    producer = node.inputs[0].node
    return producer is not None and is_virtual(producer)


def use_count(graph: Graph, value: Value) -> int:
    """How many operand positions and graph outputs read ``value``."""
    return len(graph.users.get(value, ())) + sum(output is value for output in graph.outputs)


def is_uniform(constant: Constant) -> bool:
    """Whether all elements (at least one) are the same number; NaN counts as itself, 0.0 and -0.0 as different."""
    if not constant.type.is_static or not 0 < constant.type.elements <= UNIFORM_LIMIT:
        return False
    flat = constant.array().reshape(-1)
    if flat[0].tobytes() != flat[-1].tobytes():
        return False
    bits = flat.view(f"u{flat.dtype.itemsize}") if flat.dtype.itemsize in (1, 2, 4, 8) else flat
    return bool((bits == bits[0]).all())


def uniform(value: Value) -> bool | int | float | None:
    """The number that every element of ``value`` is, seen through views; None if that is not known."""
    node = value.node
    while node is not None and node.op in ("broadcast_to", "reshape", "permute", "slice", "flip", "relayout"):
        node = node.inputs[0].node
    if node is None:
        return None
    if node.op == "full":
        number = node.attributes["value"]
        assert isinstance(number, bool | int | float)
        return number
    constant = node.output.constant if node.op == "constant" else None
    if constant is None or constant.type.elements != 1:
        return None
    result: bool | int | float = constant.array().reshape(-1)[0].item()
    return result


def uniform_float(value: Value) -> float | None:
    """:func:`uniform` as a float."""
    number = uniform(value)
    return None if number is None else float(number)


def as_array(value: Value) -> np.ndarray | None:
    """The data of a small constant or uniform value, in logical order; None for anything else."""
    constant = value.constant
    if constant is not None and constant.type.is_static and constant.type.elements <= UNIFORM_LIMIT:
        return constant.array()
    number = uniform(value)
    if number is not None and value.tensor.is_static:
        return np.broadcast_to(np.asarray(number, dtype=value.tensor.dtype.numpy), value.tensor.static_shape)
    return None
