"""Steps that multiply matrices or slide windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import Error
from ...ir import ArrayConstant, DType, Value
from .drawing import EXTENTS, F32, Drawing


class ContractionSteps(Drawing):
    """Matrix products, convolutions, windows, resampling and attention."""

    def linear(self) -> Value:
        x = self.floating(1)
        depth, width, dtype = x.tensor.static_shape[-1], self.choice(EXTENTS), x.tensor.dtype
        bias = [self.array((width,), dtype)] if self.chance(0.6) else []
        return self.builder.call("linear", x, self.array((width, depth), dtype, 1 / math.sqrt(max(depth, 1))), *bias)

    def matmul(self) -> Value:
        a = self.pick(lambda type: type.rank >= 2 and type.dtype in (F32, DType.FLOAT64, DType.INT32, DType.INT64))
        shape, dtype = a.tensor.static_shape, a.tensor.dtype
        fitting = [v for v in self.pool if v.tensor.rank >= 2 and v.tensor.dtype is dtype and v.tensor.static_shape[-2] == shape[-1]]
        if fitting and self.chance(0.5):
            return self.builder.call("matmul", a, self.choice(fitting))
        if self.chance(0.3):
            return self.builder.call(
                "matmul", a, self.builder.call("permute", a, order=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2))
            )
        batch = shape[:-2] if self.chance(0.5) else ()
        return self.builder.call(
            "matmul", a, self.array((*batch, shape[-1], self.choice(EXTENTS)), dtype, 1 / math.sqrt(max(shape[-1], 1)))
        )

    def _image(self) -> Value:
        x = self.pick(lambda type: type.rank in (3, 4, 5) and type.dtype is F32)
        if 0 in x.tensor.static_shape:
            raise Error("an empty image")
        return x

    def conv(self) -> Value:
        x = self._image()
        channels, spatial = x.tensor.static_shape[1], x.tensor.static_shape[2:]
        depthwise = self.chance(0.35)
        groups = channels if depthwise else self.choice([n for n in range(1, channels + 1) if channels % n == 0])
        if not depthwise and self.chance(0.6):
            groups = 1
        outputs = groups * self.choice((1, 1, 2) if groups > 1 else (1, 3, 8, 16, 17))
        kernel = tuple(self.choice((1, 2, 3)) for _ in spatial)
        weight = self.array((outputs, channels // groups, *kernel), F32, 1 / math.sqrt(channels // groups * math.prod(kernel)))
        bias = [self.array((outputs,))] if self.chance(0.6) else []
        return self.builder.call("conv", x, weight, *bias, groups=groups, **self._geometry(kernel))

    def conv_transpose(self) -> Value:
        x = self._image()
        channels, rank = x.tensor.static_shape[1], x.tensor.rank - 2
        groups = self.choice([n for n in range(1, channels + 1) if channels % n == 0]) if self.chance(0.4) else 1
        kernel = tuple(self.choice((1, 2, 3)) for _ in range(rank))
        weight = self.array((channels, self.choice((1, 2, 5)), *kernel), F32, 1 / math.sqrt(channels))
        geometry = self._geometry(kernel)
        output_padding = tuple(int(self.generator.integers(0, stride)) for stride in geometry["stride"])
        return self.builder.call("conv_transpose", x, weight, groups=groups, output_padding=output_padding, **geometry)

    def _geometry(self, kernel: tuple[int, ...]) -> dict[str, Any]:
        stride = tuple(self.choice((1, 1, 2, 3)) for _ in kernel)
        dilation = tuple(self.choice((1, 1, 1, 2)) for _ in kernel)
        padding = tuple((int(self.generator.integers(0, 2)), int(self.generator.integers(0, 2))) for _ in kernel)
        return {"stride": stride, "dilation": dilation, "padding": padding}

    def window(self) -> Value:
        x = self._image()
        window = tuple(self.choice((1, 2, 3)) for _ in x.tensor.static_shape[2:])
        geometry = self._geometry(window)
        pads = zip(geometry["padding"], window, strict=True)
        geometry["padding"] = tuple((min(low, size // 2), min(high, size // 2)) for (low, high), size in pads)
        if self.chance(0.5):
            return self.builder.call("window_reduce", x, kind="max", window=window, **geometry)
        geometry["dilation"] = (1,) * len(window)
        return self.builder.call("window_reduce", x, kind="mean", window=window, count_include_pad=self.chance(0.5), **geometry)

    def resample(self) -> Value:
        x = self._image()
        size = tuple(self.choice((1, 2, 5, 8)) for _ in x.tensor.static_shape[2:])
        kind = self.choice(("nearest", "linear"))
        return self.builder.call("resample", x, kind=kind, size=size, align_corners=kind == "linear" and self.chance(0.5))

    def attention(self) -> Value:
        batch, heads, length, width = self.choice((1, 2)), self.choice((1, 2, 4)), self.choice((1, 3, 8, 17)), self.choice((2, 4, 7, 8))
        keys, key_heads = self.choice((1, 5, 8, 19)), self.choice([n for n in (1, 2, 4) if heads % n == 0])
        q = self.array((batch, heads, length, width))
        fitting = [value for value in self.pool if value.tensor.dtype is F32 and value.tensor.rank == 4 and value.tensor.elements]
        if fitting and self.chance(0.7):
            q = self.choice(fitting)
            batch, heads, length, width = q.tensor.static_shape
            key_heads = self.choice((1, heads))
        k, v = self.array((batch, key_heads, keys, width)), self.array((batch, key_heads, keys, self.choice((width, 5))))
        mask = []
        if self.chance(0.4):
            mask = [self.array((batch, 1, length, keys), F32)]
        return self.builder.call("attention", q, k, v, *mask, scale=self.choice((1.0, 0.35)), is_causal=not mask and self.chance(0.5))

    def monarch(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1 and type.dtype is F32 and type.elements > 0)
        width = x.tensor.static_shape[-1]
        blocks = self.choice([count for count in range(1, width + 1) if width % count == 0])
        rank, groups, outputs = self.choice((1, 2)), self.choice((1, 3, 8)), self.choice((1, 2, 5))
        first = self.array((blocks, width // blocks, rank, groups), F32, 1 / math.sqrt(width // blocks))
        return self.builder.call("monarch", x, first, self.array((blocks, rank, outputs, groups), F32, 1 / math.sqrt(blocks * rank)))

    def grouped(self) -> Value:
        x = self.pick(lambda type: type.rank == 2 and type.dtype is F32 and type.elements > 0)
        rows, depth = x.tensor.static_shape
        ends = np.sort(self.generator.integers(0, rows + 1, 3)).astype(np.int64)
        return self.builder.call("grouped_matmul", x, self.array((3, depth, 5)), self.builder.constant(ArrayConstant(ends)))
