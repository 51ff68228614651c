"""Rules that recognise activations written out in arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir import Node, Value
from .facts import is_state, uniform
from .rewriting import LocalRewriter, Replacement, Rule

_TOLERANCE = 1e-5
"""How far a coefficient may lie from the exact one, relatively: sources write them with 6 digits or more."""


def factors(value: Value, atom: Value | None = None) -> tuple[float, list[Value]]:
    """``value`` as a number times a product of values, seen through products, squares, small powers and divisions by numbers.

    ``atom`` is not taken apart.
    """
    if value is atom:
        return 1.0, [value]
    number = uniform(value)
    if number is not None:
        return float(number), []
    node = value.node
    shape = value.tensor.shape
    if node is None or is_state(node) or any(operand.tensor.shape != shape and uniform(operand) is None for operand in node.inputs):
        return 1.0, [value]
    if node.op == "mul":
        left, right = factors(node.inputs[0], atom), factors(node.inputs[1], atom)
        return left[0] * right[0], left[1] + right[1]
    if node.op == "square":
        scale, parts = factors(node.inputs[0], atom)
        return scale * scale, parts * 2
    if node.op == "neg":
        scale, parts = factors(node.inputs[0], atom)
        return -scale, parts
    if node.op == "div":
        divisor = uniform(node.inputs[1])
        if divisor is not None and divisor != 0:
            scale, parts = factors(node.inputs[0], atom)
            return scale / float(divisor), parts
    if node.op == "pow" and uniform(node.inputs[1]) in (2, 3):
        scale, parts = factors(node.inputs[0], atom)
        exponent = int(uniform(node.inputs[1]) or 0)
        return scale**exponent, parts * exponent
    return 1.0, [value]


def close(number: float, expected: float) -> bool:
    return math.isclose(number, expected, rel_tol=_TOLERANCE)


def _plus_number(value: Value) -> tuple[Value, float] | None:
    """(x, c) where ``value`` is x + c."""
    node = value.node
    if node is None or node.op != "add":
        return None
    number = uniform(node.inputs[1])
    return (node.inputs[0], float(number)) if number is not None else None


def sigmoid_gate(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * sigmoid(x) -> silu(x)."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        if gate.node is not None and gate.node.op == "sigmoid" and gate.node.inputs[0] is x:
            return rewriter.emit("silu", x)
    return None


def gelu(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x/2 * (1 + erf(x / sqrt 2)), and x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), -> gelu(x)."""
    for gate in _gates(node):
        function = gate.node.inputs[0].node if gate.node is not None else None
        if function is None:
            continue
        for x in _bases(function.inputs[0]):
            scale, parts = factors(node.output, x)
            if not close(scale, 0.5) or len(parts) != 2 or not all(any(part is wanted for part in parts) for wanted in (x, gate)):
                continue
            if function.op == "erf" and _is_multiple(function.inputs[0], x, math.sqrt(0.5)):
                return rewriter.emit("gelu", x)
            if function.op == "tanh" and _is_tanh_argument(function.inputs[0], x):
                return rewriter.emit("gelu", x, approximate="tanh")
    return None


def _gates(node: Node) -> list[Value]:
    """The factors of ``node`` of the form 1 + erf(...) or 1 + tanh(...), one product deep."""
    near = [*node.inputs, *(value for operand in node.inputs if operand.op == "mul" and operand.node for value in operand.node.inputs)]
    found = []
    for value in near:
        shifted = _plus_number(value)
        if shifted is not None and shifted[1] == 1 and shifted[0].op in ("erf", "tanh"):
            found.append(value)
    return found


def _bases(value: Value) -> list[Value]:
    """What x may be in value = c * x, c * (x + ...) or c * x * (...)."""
    found = [value]
    for candidate in found:
        node = candidate.node
        if node is not None and node.op in ("mul", "div", "add") and len(found) < 16:
            found += [operand for operand in node.inputs if uniform(operand) is None]
    return found


def _is_multiple(value: Value, x: Value, factor: float) -> bool:
    scale, parts = factors(value, x)
    return len(parts) == 1 and parts[0] is x and close(scale, factor)


def _is_tanh_argument(value: Value, x: Value) -> bool:
    scale, parts = factors(value, x)
    root = math.sqrt(2 / math.pi)
    if len(parts) == 2 and close(scale, root):
        # sqrt(2/pi) * x * (1 + 0.044715 x^2)
        for first, second in (parts, parts[::-1]):
            shifted = _plus_number(second)
            if first is x and shifted is not None and shifted[1] == 1 and _is_power(shifted[0], x, 2):
                return True
    if len(parts) != 1 or not close(scale, root):
        return False
    total = parts[0].node
    if total is None or total.op != "add":
        return False
    return any(a is x and _is_power(b, x, 3) for a, b in (total.inputs, total.inputs[::-1]))


def _is_power(value: Value, x: Value, exponent: int) -> bool:
    scale, parts = factors(value, x)
    return close(scale, 0.044715) and len(parts) == exponent and all(part is x for part in parts)


def hardswish(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * clamp(x + 3, 0, 6) / 6 -> hardswish(x)."""
    scale, parts = factors(node.output)
    if len(parts) != 2 or not close(scale, 1 / 6):
        return None
    for x, gate in (parts, parts[::-1]):
        if gate.node is None or gate.node.op != "clamp" or (gate.node.attributes["min"], gate.node.attributes["max"]) != (0, 6):
            continue
        shifted = _plus_number(gate.node.inputs[0])
        if shifted is not None and shifted[0] is x and shifted[1] == 3:
            return rewriter.emit("hardswish", x)
    return None


RULES: dict[str, Sequence[Rule]] = {"mul": (sigmoid_gate, gelu, hardswish), "div": (hardswish,)}
