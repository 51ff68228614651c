"""Lazy expressions over constants: the result is computed when its data is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..ir import ArrayConstant, Attribute, Constant, DerivedConstant, Node, TensorType, Trait, lookup


def derive(op: str, *operands: Constant, **attributes: Attribute) -> Constant:
    """The constant ``op(operands...)``; TypeInferenceError when the operation does not take them."""
    definition = lookup(op)
    complete = definition.complete_attributes(attributes)
    (type,) = definition.infer_types([operand.type for operand in operands], complete)
    return _derived(op, operands, complete, 0, type.dtype.numpy, type.with_layout(None))


def derive_node(node: Node, operands: Sequence[Constant]) -> list[Constant]:
    """The results of ``node`` over constant operands."""
    if node.op == "constant":
        value = node.attributes["value"]
        assert isinstance(value, Constant)
        return [value]
    return [
        _derived(node.op, operands, node.attributes, index, value.tensor.dtype.numpy, value.tensor.with_layout(None))
        for index, value in enumerate(node.outputs)
    ]


def _derived(
    op: str,
    operands: Sequence[Constant],
    attributes: Mapping[str, Attribute],
    index: int,
    dtype: np.dtype[np.generic],
    type: TensorType,
) -> Constant:
    shortcut = _without_effect(op, operands, attributes)
    if shortcut is not None:
        return shortcut

    def evaluate() -> np.ndarray:
        arrays = [operand.array() for operand in operands]
        if lookup(op).has(Trait.VIEW) or op in ("concat", "relayout"):
            # Moving data needs no float64.
            moved = lookup(op).reference(arrays, attributes)
            return np.asarray(moved)
        with np.errstate(all="ignore"):
            return np.asarray(lookup(op).evaluate(arrays, attributes)[index]).astype(dtype)

    return DerivedConstant(op, tuple(operands), tuple(sorted(attributes.items())), index, type, evaluate)


def _without_effect(op: str, operands: Sequence[Constant], attributes: Mapping[str, Attribute]) -> Constant | None:
    """The operand that a pair of inverse views leads back to."""
    if op == "reshape" and attributes["shape"] == operands[0].type.shape:
        return operands[0]
    if op != "permute":
        return None
    order = attributes["order"]
    assert isinstance(order, tuple)
    if order == tuple(range(len(order))):
        return operands[0]
    inner = operands[0]
    if isinstance(inner, DerivedConstant) and inner.op == "permute":
        before = dict(inner.attributes)["order"]
        assert isinstance(before, tuple)
        if tuple(before[axis] for axis in order) == tuple(range(len(order))):
            return inner.inputs[0]
    return None


def small_constant(data: np.ndarray) -> ArrayConstant:
    """A constant that holds its own copy of ``data``."""
    return ArrayConstant(np.array(data))
