"""Simplification rules for elementwise operations. Each holds bit for bit, or is marked as needing fast numerics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir import DType, Kind, Node, Value
from .facts import is_elementwise, uniform
from .rewriting import LocalRewriter, Replacement, Rule


def _is_negative_zero(number: float) -> bool:
    return number == 0 and math.copysign(1.0, number) < 0


def _shaped(node: Node, value: Value) -> Value | None:
    """``value`` if it can stand for the result of ``node`` as it is."""
    return value if value.tensor.same_logical(node.output.tensor) else None


def _shaped_or_broadcast(rewriter: LocalRewriter, node: Node, value: Value) -> Value:
    if value.tensor.shape == node.output.tensor.shape:
        return value
    return rewriter.emit("broadcast_to", value, shape=node.output.tensor.shape)


def scalar_goes_second(rewriter: LocalRewriter, node: Node) -> Replacement:
    """c + x -> x + c for commutative operations, so that other rules look in one place."""
    x, y = node.inputs
    if uniform(x) is not None and uniform(y) is None:
        return rewriter.emit(node.op, y, x)
    return None


def add_zero(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x + 0 -> x. With floats -0.0 + 0.0 is 0.0, so strict numerics only drop -0.0."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    if number is None or number != 0:
        return None
    exact = not x.tensor.dtype.is_float or _is_negative_zero(float(number))
    return _shaped(node, x) if exact or rewriter.ctx.fast else None


def subtract_number(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x - c -> x + (-c); x - 0 -> x."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    if number is None:
        return None
    if number == 0 and not _is_negative_zero(float(number)):
        return _shaped_or_broadcast(rewriter, node, x) if _shaped(node, x) is not None else None
    dtype = x.tensor.dtype
    if not dtype.is_float or math.isnan(float(number)):
        return None
    return _same_shape(node, rewriter.emit("add", x, _like(rewriter, node.inputs[1], -float(number))))


def _like(rewriter: LocalRewriter, value: Value, number: float | int) -> Value:
    """A uniform value of the shape and dtype of ``value``; of rank 0 where that broadcasts alike."""
    return rewriter.full(number, value)


def _same_shape(node: Node, value: Value) -> Value | None:
    return value if value.tensor.shape == node.output.tensor.shape else None


def multiply_by_one(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * 1 -> x; x * 0 -> 0, for floats in fast numerics only."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    if number == 1:
        return _shaped(node, x)
    if number is not None and number == 0 and (x.tensor.dtype.is_integer or (x.tensor.dtype.is_float and rewriter.ctx.fast)):
        return rewriter.full(0, node.output)
    return None


def divide_by_number(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x / 1 -> x; x / 2^k -> x * 2^-k, which is exact; 1 / sqrt(x) -> rsqrt(x); 1 / x -> reciprocal(x)."""
    x, y = node.inputs
    number = uniform(y)
    if number is not None and number != 0 and math.isfinite(number):
        if number == 1:
            return _shaped(node, x)
        mantissa, exponent = math.frexp(abs(float(number)))
        if mantissa == 0.5 and abs(exponent) < 100:
            return rewriter.emit("mul", x, _like(rewriter, y, 1 / float(number)))
    if uniform(x) == 1 and _shaped(node, y) is not None:
        return rewriter.emit("reciprocal", y)
    return None


def merge_numbers(rewriter: LocalRewriter, node: Node) -> Replacement:
    """(x + a) + b -> x + (a + b), and so for *. Rounds differently with floats: fast numerics only."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    inner = x.node
    if number is None or inner is None or inner.op != node.op or not rewriter.is_single_use(x):
        return None
    first = uniform(inner.inputs[1])
    dtype = x.tensor.dtype
    if first is None or dtype is DType.BOOL or (dtype.is_float and not rewriter.ctx.fast):
        return None
    total = first + number if node.op == "add" else first * number
    if dtype.is_integer and not -(2**31) <= total < 2**31:
        return None
    if dtype.is_float and (not math.isfinite(total) or (node.op == "mul" and (total == 0 or abs(total) < 1e-30 or abs(total) > 1e30))):
        return None
    return _same_shape(node, rewriter.emit(node.op, inner.inputs[0], rewriter.scalar(total, dtype)))


def square_product(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * x -> square(x)."""
    x, y = node.inputs
    if x is y and x.tensor.dtype.kind in (Kind.INTEGER, Kind.FLOAT):
        return rewriter.emit("square", x)
    return None


def divide_by_root(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * reciprocal(y) stays; reciprocal(sqrt(x)) -> rsqrt(x)."""
    inner = node.inputs[0].node
    if inner is not None and inner.op == "sqrt":
        return rewriter.emit("rsqrt", inner.inputs[0])
    return None


def power_by_number(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x^2 -> square(x), x^3 -> square(x) * x, x^0.5 -> sqrt(x), x^-0.5 -> rsqrt(x), x^-1 -> reciprocal(x), x^1 -> x."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    if number is None or _shaped(node, x) is None:
        return None
    if number == 1:
        return x
    if number == 2:
        return rewriter.emit("square", x)
    if not x.tensor.dtype.is_float:
        return None
    if number == 3:
        return rewriter.emit("mul", rewriter.emit("square", x), x)
    # PyTorch computes these powers so itself.
    op = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(number)
    return rewriter.emit(op, x) if op is not None else None


def inverse_twice(rewriter: LocalRewriter, node: Node) -> Replacement:
    """neg(neg(x)) -> x; the same for not of booleans."""
    inner = node.inputs[0].node
    if inner is not None and inner.op == node.op and _shaped(node, inner.inputs[0]) is not None:
        return inner.inputs[0]
    return None


def idempotent(rewriter: LocalRewriter, node: Node) -> Replacement:
    """relu(relu(x)) -> relu(x); the same for abs and roundings."""
    inner = node.inputs[0].node
    return node.inputs[0] if inner is not None and inner.op == node.op else None


def larger_than_zero(rewriter: LocalRewriter, node: Node) -> Replacement:
    """maximum(x, 0) -> relu(x)."""
    x, number = node.inputs[0], uniform(node.inputs[1])
    if number is not None and number == 0 and x.tensor.dtype is not DType.BOOL and _shaped(node, x) is not None:
        return rewriter.emit("relu", x)
    return None


def simple_clamp(rewriter: LocalRewriter, node: Node) -> Replacement:
    """clamp without bounds -> x; clamp(0, inf) -> relu(x); infinite bounds are dropped."""
    (x,) = node.inputs
    low, high = _bound(node, "min", -math.inf), _bound(node, "max", math.inf)
    if low is None and high is None:
        return x
    if low == 0 and low is not None and high is None and not _is_negative_zero(float(low)):
        return rewriter.emit("relu", x)
    if (low, high) != (node.attributes["min"], node.attributes["max"]):
        return rewriter.emit("clamp", x, min=low, max=high)
    return None


def _bound(node: Node, name: str, unlimited: float) -> int | float | None:
    bound = node.attributes[name]
    assert bound is None or isinstance(bound, int | float)
    return None if bound == unlimited else bound


def known_choice(rewriter: LocalRewriter, node: Node) -> Replacement:
    """where(true, x, y) -> x; where(c, x, x) -> x; where(not c, x, y) -> where(c, y, x)."""
    condition, x, y = node.inputs
    known = uniform(condition)
    if known is not None:
        return _shaped_or_broadcast(rewriter, node, x if known else y)
    if x is y or (uniform(x) is not None and _same_number(uniform(x), uniform(y))):
        return _shaped_or_broadcast(rewriter, node, x)
    inner = condition.node
    if inner is not None and inner.op in ("logical_not", "bitwise_not") and inner.inputs[0].tensor.dtype is DType.BOOL:
        return rewriter.emit("where", inner.inputs[0], y, x)
    return None


def _same_number(a: object, b: object) -> bool:
    return type(a) is type(b) and repr(a) == repr(b)


def known_logic(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x and true -> x, x and false -> false, x or false -> x, x or true -> true (booleans)."""
    x, known = node.inputs[0], uniform(node.inputs[1])
    if x.tensor.dtype is not DType.BOOL or known is None or _shaped(node, x) is None:
        return None
    neutral = node.op in ("logical_and", "bitwise_and", "mul", "minimum")
    return x if bool(known) == neutral else rewriter.full(not neutral, node.output)


def same_operands(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x and x -> x; the same for or, maximum, minimum."""
    x, y = node.inputs
    return _shaped(node, x) if x is y else None


def needless_cast(rewriter: LocalRewriter, node: Node) -> Replacement:
    """cast to the same dtype -> x; cast(cast(x)) -> cast(x) when the inner one loses nothing."""
    (x,) = node.inputs
    target = node.output.tensor.dtype
    if x.tensor.dtype is target:
        return x
    inner = x.node
    if inner is None or inner.op != "cast":
        return None
    (source,) = inner.inputs
    if _is_lossless(source.tensor.dtype, x.tensor.dtype):
        return rewriter.emit("cast", source, dtype=target)
    return None


def _is_lossless(source: DType, target: DType) -> bool:
    if source is DType.BOOL or source is target:
        return True
    if source.is_integer and target.is_integer:
        return target.bits > source.bits and (source is DType.UINT8 or target is not DType.UINT8)
    if source.is_integer and target.is_float:
        return source.bits <= {DType.FLOAT32: 16, DType.FLOAT64: 32}.get(target, 0)
    wider = {DType.FLOAT16: 1, DType.BFLOAT16: 1, DType.FLOAT32: 2, DType.FLOAT64: 3}
    return source.is_float and target.is_float and wider[source] < wider[target]


def broadcasts_by_itself(rewriter: LocalRewriter, node: Node) -> Replacement:
    """An operand that is repeated only to fit the others is not: elementwise operations broadcast by themselves."""
    shape = node.output.tensor.shape
    plain = [_unrepeated(value) for value in node.inputs]
    if all(new is old for new, old in zip(plain, node.inputs, strict=True)):
        return None
    from ..ir.ops.elementwise import broadcast_shapes

    # Undo one by one, as long as the result keeps its shape.
    operands = list(node.inputs)
    for position, value in enumerate(plain):
        trial = [*operands[:position], value, *operands[position + 1 :]]
        if broadcast_shapes(node.op, *(operand.tensor.shape for operand in trial)) == shape:
            operands = trial
    if all(new is old for new, old in zip(operands, node.inputs, strict=True)):
        return None
    return rewriter.emit_node(node.op, operands, node.attributes)


def _unrepeated(value: Value) -> Value:
    node = value.node
    while node is not None:
        # Only of vectors: where a whole tensor changes rank, equal shapes on both sides are worth more to fusion.
        vector = node.op == "reshape" and node.inputs[0].tensor.rank < 2 and _adds_leading_ones(node)
        if node.op != "broadcast_to" and not vector:
            return value
        value = node.inputs[0]
        node = value.node
    return value


def _adds_leading_ones(node: Node) -> bool:
    before, after = node.inputs[0].tensor.shape, node.output.tensor.shape
    added = len(after) - len(before)
    return added > 0 and after == (1,) * added + before


def scalar_operand(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A uniform operand becomes a number of rank 0 where the result's shape does not come from it."""
    shape = node.output.tensor.shape
    operands = list(node.inputs)
    for position, value in enumerate(node.inputs):
        number = uniform(value)
        if number is None or value.tensor.rank == 0:
            continue
        others = [operand.tensor.shape for index, operand in enumerate(operands) if index != position]
        from ..ir.ops.elementwise import broadcast_shapes

        if others and broadcast_shapes(node.op, *others) == shape:
            operands[position] = rewriter.scalar(number, value.tensor.dtype)
    if all(new is old for new, old in zip(operands, node.inputs, strict=True)):
        return None
    return rewriter.emit_node(node.op, operands, node.attributes)


_BROADCASTING: Sequence[Rule] = (scalar_operand, broadcasts_by_itself)

RULES: dict[str, Sequence[Rule]] = {
    "add": (*_BROADCASTING, scalar_goes_second, add_zero, merge_numbers),
    "sub": (*_BROADCASTING, subtract_number),
    "mul": (*_BROADCASTING, scalar_goes_second, known_logic, multiply_by_one, merge_numbers, square_product),
    "div": (*_BROADCASTING, divide_by_number),
    "reciprocal": (divide_by_root,),
    "pow": (*_BROADCASTING, power_by_number),
    "neg": (inverse_twice,),
    "logical_not": (inverse_twice,),
    "bitwise_not": (inverse_twice,),
    "relu": (idempotent,),
    "abs": (idempotent,),
    "floor": (idempotent,),
    "ceil": (idempotent,),
    "round": (idempotent,),
    "trunc": (idempotent,),
    "maximum": (*_BROADCASTING, scalar_goes_second, same_operands, larger_than_zero),
    "minimum": (*_BROADCASTING, scalar_goes_second, same_operands),
    "clamp": (simple_clamp,),
    "where": (*_BROADCASTING, known_choice),
    "logical_and": (*_BROADCASTING, scalar_goes_second, same_operands, known_logic),
    "logical_or": (*_BROADCASTING, scalar_goes_second, same_operands, known_logic),
    "bitwise_and": (*_BROADCASTING, scalar_goes_second, same_operands, known_logic),
    "bitwise_or": (*_BROADCASTING, scalar_goes_second, same_operands, known_logic),
    "cast": (needless_cast,),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "floor_div", "remainder", "fmod", "logical_xor", "bitwise_xor"), _BROADCASTING),
}

assert all(is_elementwise(Node(op, (), {}, ())) for op in RULES)
