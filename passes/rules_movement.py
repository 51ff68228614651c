"""Simplification rules for views, concatenation, padding, gathers and trivial reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..ir import Node, TensorType, Value
from .facts import as_array, uniform
from .rewriting import LocalRewriter, Replacement, Rule


def view_of_uniform(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A view of ``full`` is ``full``."""
    producer = node.inputs[0].node
    number = uniform(node.inputs[0]) if producer is not None and producer.op == "full" else None
    return rewriter.full(number, node.output) if number is not None else None


def reshape_of_reshape(rewriter: LocalRewriter, node: Node) -> Replacement:
    """reshape to the same shape -> x; reshape(reshape(x)) -> reshape(x)."""
    (x,) = node.inputs
    shape = node.output.tensor.shape
    if x.tensor.shape == shape:
        return x
    if x.node is not None and x.node.op == "reshape":
        return rewriter.emit("reshape", x.node.inputs[0], shape=shape)
    return None


def permute_of_permute(rewriter: LocalRewriter, node: Node) -> Replacement:
    """permute(permute(x)) -> permute(x); one that moves only axes of extent 1 -> reshape."""
    (x,) = node.inputs
    order = _order(node)
    if order == tuple(range(len(order))):
        return x
    if x.node is not None and x.node.op == "permute":
        before = _order(x.node)
        return rewriter.emit("permute", x.node.inputs[0], order=tuple(before[axis] for axis in order))
    wide = [axis for axis in order if x.tensor.shape[axis] != 1]
    if wide == sorted(wide):
        return rewriter.emit("reshape", x, shape=node.output.tensor.shape)
    return None


def _order(node: Node) -> tuple[int, ...]:
    return cast("tuple[int, ...]", node.attributes["order"])


def broadcast_of_broadcast(rewriter: LocalRewriter, node: Node) -> Replacement:
    """broadcast to the same shape -> x; of a broadcast -> one broadcast; of new leading axes of extent 1 -> without them."""
    (x,) = node.inputs
    shape = node.output.tensor.shape
    if x.tensor.shape == shape:
        return x
    producer = x.node
    if producer is None:
        return None
    source = producer.inputs[0] if producer.inputs else None
    if producer.op == "broadcast_to" and source is not None:
        return rewriter.emit("broadcast_to", source, shape=shape)
    if producer.op == "reshape" and source is not None:
        added = x.tensor.rank - source.tensor.rank
        if added > 0 and x.tensor.shape == (1,) * added + source.tensor.shape:
            return rewriter.emit("broadcast_to", source, shape=shape)
    return None


def reshape_of_repetition(rewriter: LocalRewriter, node: Node) -> Replacement:
    """reshape(broadcast_to(x)) -> reshape(x) when the broadcast only adds axes of extent 1."""
    producer = node.inputs[0].node
    if producer is None or producer.op != "broadcast_to" or not node.output.tensor.is_static:
        return None
    (x,) = producer.inputs
    if x.tensor.is_static and x.tensor.elements == node.output.tensor.elements:
        return rewriter.emit("reshape", x, shape=node.output.tensor.shape)
    return None


def whole_slice(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A slice of everything -> x; slice(slice(x)) along one axis -> one slice; a slice of one operand of a concat -> of that operand."""
    (x,) = node.inputs
    axis, start, stop, step = _slice(node)
    if (start, stop, step) == (0, x.tensor.shape[axis], 1):
        return x
    producer = x.node
    if producer is None:
        return None
    if producer.op == "slice" and _slice(producer)[0] == axis:
        _, first, _, stride = _slice(producer)
        if not (isinstance(start, int) and isinstance(stop, int)):
            # Symbolic bounds do not cross; the last element of a strided slice is not looked for.
            if stride != 1:
                return None
            return rewriter.emit("slice", producer.inputs[0], axis=axis, start=first + start, stop=first + stop, step=step)
        return rewriter.emit(
            "slice",
            producer.inputs[0],
            axis=axis,
            start=first + start * stride,
            stop=first + (stop - 1) * stride + 1 if stop > start else first + start * stride,
            step=stride * step,
        )
    if producer.op == "concat" and producer.attributes["axis"] == axis:
        offset = 0
        for operand in producer.inputs:
            extent = operand.tensor.shape[axis]
            if not all(isinstance(bound, int) for bound in (extent, start, stop)):
                return None
            if offset <= start and stop <= offset + extent:
                return rewriter.emit("slice", operand, axis=axis, start=start - offset, stop=stop - offset, step=step)
            offset += extent
    return None


def _slice(node: Node) -> tuple[int, int, int, int]:
    return cast("tuple[int, int, int, int]", tuple(node.attributes[name] for name in ("axis", "start", "stop", "step")))


def small_concat(rewriter: LocalRewriter, node: Node) -> Replacement:
    """concat of one operand -> it; operands without elements are left out; nested concats along the axis are flattened."""
    axis = cast(int, node.attributes["axis"])
    operands: list[Value] = []
    for value in node.inputs:
        inner = value.node
        if inner is not None and inner.op == "concat" and inner.attributes["axis"] == axis and rewriter.is_single_use(value):
            operands += inner.inputs
        elif value.tensor.shape[axis] != 0:
            operands.append(value)
    if len(operands) == 1:
        return operands[0]
    if operands and len(operands) != len(node.inputs):
        return rewriter.emit("concat", *operands, axis=axis)
    return None


def needless_pad(rewriter: LocalRewriter, node: Node) -> Replacement:
    """pad by nothing -> x."""
    pads = cast("tuple[tuple[int, int], ...]", node.attributes["pads"])
    return node.inputs[0] if all(pair == (0, 0) for pair in pads) else None


def needless_flip(rewriter: LocalRewriter, node: Node) -> Replacement:
    """flip of axes of extent 1 -> x."""
    axes = cast("tuple[int, ...]", node.attributes["axes"])
    return node.inputs[0] if all(node.inputs[0].tensor.shape[axis] == 1 for axis in axes) else None


def take_of_range(rewriter: LocalRewriter, node: Node) -> Replacement:
    """take at consecutive known indices -> slice (and reshape)."""
    x, indices = node.inputs
    axis = cast(int, node.attributes["axis"]) % x.tensor.rank
    extent = x.tensor.shape[axis]
    known = as_array(indices) if indices.tensor.is_static and indices.tensor.elements <= 1 << 16 else None
    if known is None or not isinstance(extent, int) or known.size == 0:
        return None
    flat = np.where(known < 0, known + extent, known).reshape(-1)
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    if step < 1 or not np.array_equal(flat, flat[0] + step * np.arange(flat.size)) or flat[0] < 0 or flat[-1] >= extent:
        return None
    part = rewriter.emit("slice", x, axis=axis, start=int(flat[0]), stop=int(flat[-1]) + 1, step=step)
    return rewriter.emit("reshape", part, shape=node.output.tensor.shape)


def reduce_of_one(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A sum, mean, product, maximum or minimum over axes of extent 1 -> reshape."""
    (x,) = node.inputs
    axes = cast("tuple[int, ...]", node.attributes["axes"])
    if node.attributes["kind"] not in ("sum", "mean", "prod", "max", "min"):
        return None
    if all(x.tensor.shape[axis] == 1 for axis in axes):
        return rewriter.emit("reshape", x, shape=node.output.tensor.shape)
    return None


def whole_window(rewriter: LocalRewriter, node: Node) -> Replacement:
    """Pooling whose one window covers the whole image, with whatever padding around it -> reduce.

    A mean then divides by the positions that it counts, which may be padding.
    """
    (x,) = node.inputs
    a = cast("dict[str, Any]", node.attributes)
    extents = x.tensor.shape[2:]
    single = all(extent == 1 for extent in node.output.tensor.shape[2:]) and all(step == 1 for step in a["dilation"])
    if not single or not all(isinstance(extent, int) for extent in extents):
        return None
    covers = all(low + extent <= size for (low, _), extent, size in zip(a["padding"], extents, a["window"], strict=True))
    if not covers or 0 in extents:
        return None
    axes = tuple(range(2, x.tensor.rank))
    counted = math.prod(extents)
    if a["count_include_pad"]:
        # The one window is all of the low padding, the image, and of the high padding what is left of its size.
        beyond = a["uncounted"] or (0,) * len(axes)
        counted = math.prod(
            min(size, low + extent + high - more)
            for size, (low, high), extent, more in zip(a["window"], a["padding"], extents, beyond, strict=True)
        )
    divisor = a["divisor"] or counted
    if a["kind"] == "max" or divisor == math.prod(extents):
        return rewriter.emit("reduce", x, kind=a["kind"], axes=axes, keepdims=True)
    total = rewriter.emit("reduce", x, kind="sum", axes=axes, keepdims=True)
    return rewriter.emit("div", total, rewriter.scalar(divisor, x.tensor.dtype))


def window_of_one(rewriter: LocalRewriter, node: Node) -> Replacement:
    """Pooling with windows of one element, without stride and padding -> x."""
    a = cast("dict[str, Any]", node.attributes)
    ones = all(size == 1 for size in (*a["window"], *a["stride"]))
    if ones and all(pair == (0, 0) for pair in a["padding"]) and a["divisor"] is None:
        return node.inputs[0]
    return None


def same_size_resample(rewriter: LocalRewriter, node: Node) -> Replacement:
    """Resampling to the same size -> x."""
    a = node.attributes
    same = a["size"] == node.inputs[0].tensor.shape[2:]
    scales = cast("tuple[float | None, ...]", a["scales"])
    return node.inputs[0] if same and all(scale in (None, 1.0) for scale in scales) else None


_OF_NOTHING: dict[str, bool | int | float] = {"sum": 0, "prod": 1, "any": False, "all": True, "mean": math.nan}


def reduce_of_nothing(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A sum, product, ... of no elements is its neutral element."""
    (x,) = node.inputs
    kind = str(node.attributes["kind"])
    if not x.tensor.is_static or x.tensor.elements or kind not in _OF_NOTHING:
        return None
    return rewriter.full(_OF_NOTHING[kind], node.output)


def needless_relayout(rewriter: LocalRewriter, node: Node) -> Replacement:
    """relayout to the layout that a value has -> it."""
    same = node.inputs[0].type == node.output.type
    return node.inputs[0] if same and isinstance(node.output.type, TensorType) else None


RULES: dict[str, Sequence[Rule]] = {
    "reshape": (reshape_of_reshape, view_of_uniform, reshape_of_repetition),
    "permute": (permute_of_permute, view_of_uniform),
    "broadcast_to": (broadcast_of_broadcast, view_of_uniform),
    "slice": (whole_slice, view_of_uniform),
    "flip": (needless_flip, view_of_uniform),
    "concat": (small_concat,),
    "pad": (needless_pad,),
    "take": (take_of_range,),
    "reduce": (reduce_of_one, reduce_of_nothing),
    "window_reduce": (window_of_one, whole_window),
    "resample": (same_size_resample,),
    "relayout": (needless_relayout,),
}
