"""Images sampled at positions that are data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Number, static
from ..registry import converts

aten = torch.ops.aten

_LINEAR, _NEAREST, _CUBIC = range(3)
_ZEROS, _BORDER, _REFLECTION = range(3)
_CUBIC_A = -0.75


@dataclass(frozen=True)
class _Sampler:
    """The arithmetic of one sampling, on values [N, 1, P] in the dtype of the image, ``P`` counting the positions."""

    c: Conversion
    dtype: DType
    padding: int
    align_corners: bool

    def number(self, value: Number) -> Value:
        return self.c.scalar(value, self.dtype)

    def op(self, name: str, x: Value, y: Value | Number) -> Value:
        return self.c.call(name, x, y if isinstance(y, Value) else self.number(y))

    def pixel(self, coordinate: Value, extent: int) -> Value:
        """From [-1, 1] to pixels; the ends are the centres of the outer pixels, or their outer borders."""
        shifted = self.op("add", coordinate, 1)
        if self.align_corners:
            return self.op("mul", shifted, (extent - 1) / 2)
        return self.op("div", self.op("sub", self.op("mul", shifted, extent), 1), 2)

    def padded(self, position: Value, extent: int) -> Value:
        """A position outside moved to the border, or reflected at it."""
        if self.padding == _ZEROS:
            return position
        if self.padding == _REFLECTION:
            position = self.reflected(position, extent)
        return self.c.call("clamp", position, min=0.0, max=float(extent - 1))

    def reflected(self, position: Value, extent: int) -> Value:
        low, span = (0.0, float(extent - 1)) if self.align_corners else (-0.5, float(extent))
        if span == 0:
            return self.op("mul", position, 0)
        away = self.c.call("abs", self.op("sub", position, low))
        turns = self.c.call("trunc", self.op("div", away, 2 * span))
        rest = self.op("sub", away, self.op("mul", turns, 2 * span))
        return self.op("add", self.c.call("minimum", rest, self.op("sub", self.number(2 * span), rest)), low)

    def inside(self, positions: Sequence[Value], extents: Sequence[int]) -> Value:
        """Whether all (whole) positions are those of pixels."""
        result: Value | None = None
        for position, extent in zip(positions, extents, strict=True):
            within = self.c.call("logical_and", self.op("ge", position, 0), self.op("le", position, extent - 1))
            result = within if result is None else self.c.call("logical_and", result, within)
        assert result is not None
        return result

    def place(self, positions: Sequence[Value], extents: Sequence[int]) -> Value:
        """The flat offset of pixels; positions outside are moved to the border."""
        flat: Value | None = None
        for position, extent in zip(positions, extents, strict=True):
            index = self.c.cast(self.c.call("clamp", position, min=0.0, max=float(extent - 1)), DType.INT32)
            scale = self.c.scalar(extent, DType.INT32)
            flat = index if flat is None else self.c.call("add", self.c.call("mul", flat, scale), index)
        assert flat is not None
        return flat


def _sample(c: Conversion, x: Value, grid: Value, interpolation: int, padding: int, align_corners: bool) -> Value:
    """x [N, C, spatial...] at grid [N, positions..., axes], whose last axis names the innermost spatial axis first."""
    batch, channels, *extents = (static(extent, "an axis of a sampled image") for extent in x.tensor.shape)
    positions = [static(extent, "an axis of a sampling grid") for extent in grid.tensor.shape[1:-1]]
    count = 1
    for extent in positions:
        count *= extent
    sampler = _Sampler(c, x.tensor.dtype, padding, align_corners)
    flat = c.reshape(grid, (batch, 1, count, len(extents)))
    axes: list[Value] = []
    for number, extent in enumerate(reversed(extents)):
        coordinate = c.reshape(c.slice(flat, 3, number, number + 1), (batch, 1, count))
        axes.insert(0, sampler.pixel(coordinate, extent))
    image = c.reshape(x, (batch, channels, -1 if 0 in extents else _product(extents)))
    shape = (batch, channels, count)

    def pixels(at: Sequence[Value]) -> Value:
        """The pixels at whole positions, 0 outside the image."""
        place = c.broadcast(sampler.place(at, extents), shape)
        return c.call("where", sampler.inside(at, extents), c.call("take_along", image, place, axis=2), sampler.number(0))

    if interpolation == _NEAREST:
        near = [c.call("round", sampler.padded(axis, extent)) for axis, extent in zip(axes, extents, strict=True)]
        return c.reshape(pixels(near), c.shape)
    if interpolation == _LINEAR:
        axes = [sampler.padded(axis, extent) for axis, extent in zip(axes, extents, strict=True)]
    below = [c.call("floor", axis) for axis in axes]
    fractions = [sampler.op("sub", axis, floor) for axis, floor in zip(axes, below, strict=True)]
    weights = [_cubic(sampler, fraction) if interpolation == _CUBIC else _linear(sampler, fraction) for fraction in fractions]
    first = -1 if interpolation == _CUBIC else 0
    result: Value | None = None
    for corner in itertools.product(*(range(len(own)) for own in weights)):
        at, weight = [], None
        for number, floor, own, extent in zip(corner, below, weights, extents, strict=True):
            position = sampler.op("add", floor, first + number)
            at.append(sampler.padded(position, extent) if interpolation == _CUBIC else position)
            weight = own[number] if weight is None else c.call("mul", weight, own[number])
        assert weight is not None
        term = c.call("mul", pixels(at), weight)
        result = term if result is None else c.call("add", result, term)
    assert result is not None
    return c.reshape(result, c.shape)


def _product(extents: Sequence[int]) -> int:
    result = 1
    for extent in extents:
        result *= extent
    return result


def _linear(sampler: _Sampler, fraction: Value) -> list[Value]:
    return [sampler.op("sub", sampler.number(1), fraction), fraction]


def _cubic(sampler: _Sampler, fraction: Value) -> list[Value]:
    """The weights of four neighbours (Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -3/4)."""

    def near(distance: Value) -> Value:
        inner = sampler.op("sub", sampler.op("mul", distance, _CUBIC_A + 2), _CUBIC_A + 3)
        return sampler.op("add", sampler.op("mul", sampler.op("mul", inner, distance), distance), 1)

    def far(distance: Value) -> Value:
        inner = sampler.op("sub", sampler.op("mul", distance, _CUBIC_A), 5 * _CUBIC_A)
        inner = sampler.op("add", sampler.op("mul", inner, distance), 8 * _CUBIC_A)
        return sampler.op("sub", sampler.op("mul", inner, distance), 4 * _CUBIC_A)

    other = sampler.op("sub", sampler.number(1), fraction)
    return [far(sampler.op("add", fraction, 1)), near(fraction), near(other), far(sampler.op("add", other, 1))]


@converts(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def grid_sampler(c: Conversion, x: Value, grid: Value, interpolation: int, padding: int, align_corners: bool) -> Value:
    return _sample(c, x, c.cast(grid, x.tensor.dtype), interpolation, padding, align_corners)
