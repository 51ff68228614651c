"""Elements of a resampled image: nearest and (multi-)linear interpolation, as PyTorch positions them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from ...ir import Node
from .attributes import attributes_of
from .emitter import INDEX, Emitter, Expr, index


def resample_at(emitter: Emitter, node: Node, element: Callable[[Sequence[Expr]], Expr], indices: Sequence[Expr]) -> Expr:
    """The result element of a ``resample`` node at ``indices``; ``element`` gives those of its operand."""
    extents = tuple(int(extent) for extent in node.inputs[0].tensor.shape[2:])
    size: Sequence[int] = attributes_of(node)["size"]
    corners = bool(node.attributes["align_corners"])
    scales: Sequence[float | None] = attributes_of(node)["scales"] or (None,) * len(size)
    ratios = [_ratio(extent, wanted, corners, scale) for extent, wanted, scale in zip(extents, size, scales, strict=True)]
    if node.attributes["kind"] == "nearest":
        source = [_nearest(emitter, *facts) for facts in zip(indices[2:], extents, size, ratios, strict=True)]
        return element([*indices[:2], *source])
    return _linear(emitter, element, indices, extents, ratios, corners)


def _ratio(extent: int, size: int, corners: bool, scale: float | None) -> float:
    """Source positions per result position."""
    if corners:
        return (extent - 1) / (size - 1) if size > 1 else 0.0
    return 1 / scale if scale else extent / size


def _nearest(emitter: Emitter, position: Expr, extent: int, size: int, ratio: float) -> Expr:
    if ratio == extent / size and size % extent == 0:
        # A whole factor: integer arithmetic gives the same index and lets loops see through it.
        return emitter.simplify(position // (size // extent))
    # PyTorch computes the source index in fp32.
    source = tirx.Cast(INDEX, tirx.floor(tirx.Cast("float32", position) * tirx.const(ratio, "float32")))
    row = emitter.bind(source)
    return emitter.bind(tirx.Select(row > extent - 1, index(extent - 1), row))


def _linear(
    emitter: Emitter,
    element: Callable[[Sequence[Expr]], Expr],
    indices: Sequence[Expr],
    extents: Sequence[int],
    ratios: Sequence[float],
    corners: bool,
) -> Expr:
    """Interpolates along the axes in turn, from the last."""
    corner: list[tuple[Expr, Expr, Expr]] = []
    for position, extent, ratio in zip(indices[2:], extents, ratios, strict=True):
        real = tirx.Cast("float32", position)
        half = tirx.const(0.5, "float32")
        scale = tirx.const(ratio, "float32")
        source = emitter.bind(real * scale if corners else (real + half) * scale - half)
        source = emitter.bind(tirx.Select(source < tirx.const(0.0, "float32"), tirx.const(0.0, "float32"), source))
        low = emitter.bind(tirx.Cast(INDEX, source))
        low = emitter.bind(tirx.Select(low > extent - 1, index(extent - 1), low))
        high = emitter.bind(tirx.Select(low + 1 > extent - 1, index(extent - 1), low + 1))
        corner.append((low, high, emitter.bind(source - tirx.Cast("float32", low))))

    def interpolated(axis: int, chosen: list[Expr]) -> Expr:
        if axis == len(corner):
            return element([*indices[:2], *chosen])
        low, high, weight = corner[axis]
        first = interpolated(axis + 1, [*chosen, low])
        second = interpolated(axis + 1, [*chosen, high])
        return emitter.bind(first * (tirx.const(1.0, "float32") - weight) + second * weight)

    return interpolated(0, [])
