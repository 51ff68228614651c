"""Matrix products, convolutions, attention, pooling and resampling."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from op_case import INF, NAN, Case, booleans, case, floats, integers


def _padded(x: torch.Tensor, *pads: tuple[int, int]) -> torch.Tensor:
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair])


def _grouped(a: torch.Tensor, b: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(a.shape[0], b.shape[2], dtype=a.dtype)
    start = 0
    for matrix, end in zip(b, ends.tolist(), strict=True):
        end = min(end, len(a))
        if end > start:
            result[start:end] = a[start:end] @ matrix
            start = end
    return result


def _monarch(x: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """By way of the dense matrix, block by block."""
    blocks, depth, _, groups = first.shape
    matrix = x.new_zeros(second.shape[2] * groups, blocks * depth)
    for block in range(blocks):
        for group in range(groups):
            matrix[group::groups, block * depth : (block + 1) * depth] = (first[block, :, :, group] @ second[block, :, :, group]).T
    return x @ matrix.T


def contraction_cases() -> list[Case]:
    image, line = floats(2, 4, 7, 6), floats(2, 4, 9)
    q, k, v = floats(2, 4, 3, 5), floats(2, 2, 6, 5), floats(2, 2, 6, 7)
    mask = booleans(3, 6) | np.eye(3, 6, dtype=bool)
    mask[1] = False
    attend = F.scaled_dot_product_attention
    conv1, conv2 = floats(6, 2, 3), floats(6, 4, 3, 2)
    transposed = floats(4, 3, 3, 2)
    return [
        case("matmul", [floats(2, 3), floats(3, 4)], torch.matmul),
        case("matmul", [floats(5, 1, 2, 3), floats(4, 3, 2)], torch.matmul),
        case("matmul", [floats(2, 0), floats(0, 4)], torch.matmul),
        case("matmul", [integers(2, 3, dtype=np.int32), integers(3, 2, dtype=np.int32)], torch.matmul),
        case("grouped_matmul", [floats(7, 3), floats(3, 3, 4), np.array([2, 2, 6])], _grouped),
        case("grouped_matmul", [floats(5, 3), floats(4, 3, 2), np.array([3, 1, -4, 9], np.int32)], _grouped),
        case("monarch", [floats(2, 3, 6), floats(3, 2, 2, 4), floats(3, 2, 5, 4)], _monarch),
        case("monarch", [floats(6), floats(2, 3, 1, 2), floats(2, 1, 3, 2)], _monarch),
        case("linear", [floats(2, 3, 4), floats(5, 4), floats(5)], F.linear),
        case("linear", [floats(4), floats(5, 4)], F.linear),
        case("linear", [floats(0, 4), floats(5, 4), floats(5)], F.linear),
        case(
            "conv",
            [line, conv1, floats(6)],
            lambda x, w, b: F.conv1d(_padded(x, (2, 1)), w, b, 2, 0, 2, 2),
            stride=(2,),
            padding=((2, 1),),
            dilation=(2,),
            groups=2,
        ),
        case("conv", [image, conv2], F.conv2d, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1)),
        case(
            "conv",
            [image, conv2, floats(6)],
            lambda x, w, b: F.conv2d(_padded(x, (1, 0), (0, 2)), w, b, (2, 3)),
            stride=(2, 3),
            padding=((1, 0), (0, 2)),
            dilation=(1, 1),
        ),
        case(
            "conv",
            [image, floats(8, 1, 3, 3)],
            lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 4),
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
            groups=4,
        ),
        case(
            "conv",
            [floats(1, 2, 4, 4, 3), floats(3, 2, 2, 3, 1)],
            F.conv3d,
            stride=(1, 1, 1),
            padding=((0, 0),) * 3,
            dilation=(1, 1, 1),
        ),
        case("conv", [floats(0, 4, 9), floats(6, 4, 3)], F.conv1d, stride=(1,), padding=((0, 0),), dilation=(1,)),
        case(
            "conv_transpose",
            [image, transposed, floats(6)],
            lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (1, 1)),
            stride=(2, 3),
            padding=((1, 1), (0, 0)),
            dilation=(1, 1),
            output_padding=(1, 2),
            groups=2,
        ),
        case(
            "conv_transpose",
            [line, floats(4, 5, 3)],
            lambda x, w: F.conv_transpose1d(x, w, None, 2, 0, 0, 1, 2),
            stride=(2,),
            padding=((0, 0),),
            dilation=(2,),
            output_padding=(0,),
        ),
        case(
            "conv_transpose",
            [floats(0, 4, 9), floats(4, 5, 3)],
            F.conv_transpose1d,
            stride=(1,),
            padding=((0, 0),),
            dilation=(1,),
            output_padding=(0,),
        ),
        case("attention", [q, k, v], lambda q, k, v: attend(q, k, v, enable_gqa=True), scale=1 / math.sqrt(5)),
        case(
            "attention", [q, k, v], lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.3, enable_gqa=True), scale=0.3, is_causal=True
        ),
        case("attention", [q, k, v, mask], lambda q, k, v, m: attend(q, k, v, m, scale=0.3, enable_gqa=True), scale=0.3),
        case(
            "attention",
            [q, k, v, np.where(mask, floats(3, 6), -INF)],
            lambda q, k, v, m: attend(q, k, v, m, scale=0.3, enable_gqa=True),
            scale=0.3,
        ),
        case("attention", [q, k[:, :, :0].copy(), v[:, :, :0].copy()], lambda q, k, v: torch.zeros(2, 4, 3, 7).double(), scale=1.0),
        case("attention", [q, q, q[..., :2].copy(), floats(2, 1, 1, 3)], lambda q, k, v, m: attend(q, k, v, m, scale=1.0), scale=1.0),
    ]


def window_cases() -> list[Case]:
    image, line = floats(2, 3, 7, 6), floats(2, 3, 9)
    holes = image.copy()
    holes[0, 0, 2, 2], holes[1, 1, 0, 0] = NAN, -INF
    square = {"window": (3, 2), "stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    plain_line = {"window": (4,), "stride": (3,), "dilation": (1,)}
    cases = [case("window_reduce", [array], lambda x: F.max_pool2d(x, (3, 2), 2, 1), kind="max", **square) for array in (image, holes)]
    cases += [
        case(
            "window_reduce",
            [line],
            lambda x: F.max_pool1d(x, 3, 2, 1, 2),
            kind="max",
            window=(3,),
            stride=(2,),
            padding=((1, 1),),
            dilation=(2,),
        ),
        case(
            "window_reduce",
            [integers(1, 2, 8)],
            lambda x: F.max_pool1d(x.double(), 4, 3).long(),
            kind="max",
            padding=((0, 0),),
            **plain_line,
        ),
        case("window_reduce", [image], lambda x: F.avg_pool2d(x, (3, 2), 2, 1), kind="mean", **square),
        case(
            "window_reduce",
            [image],
            lambda x: F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=False),
            kind="mean",
            count_include_pad=False,
            **square,
        ),
        case("window_reduce", [image], lambda x: F.avg_pool2d(x, (3, 2), 2, 1, divisor_override=5), kind="mean", divisor=5, **square),
        # ceil_mode: 9 elements and 1 of padding on each side take 4 windows of 4 by steps of 3, the last one element too long.
        case(
            "window_reduce",
            [line],
            lambda x: F.avg_pool1d(x, 4, 3, 1, ceil_mode=True),
            kind="mean",
            padding=((1, 3),),
            uncounted=(2,),
            **plain_line,
        ),
    ]
    for size in ((14, 12), (5, 9), (7, 6), (1, 1)):
        cases.append(case("resample", [image], lambda x, s=size: F.interpolate(x, s, mode="nearest"), kind="nearest", size=size))
        for corners in (False, True):
            cases.append(
                case(
                    "resample",
                    [image],
                    lambda x, s=size, c=corners: F.interpolate(x, s, mode="bilinear", align_corners=c),
                    kind="linear",
                    size=size,
                    align_corners=corners,
                )
            )
    cases += [
        case("resample", [line], lambda x: F.interpolate(x, scale_factor=1.7, mode="linear"), kind="linear", size=(15,), scales=(1.7,)),
        case("resample", [line], lambda x: F.interpolate(x, scale_factor=1.7, mode="nearest"), kind="nearest", size=(15,), scales=(1.7,)),
        case("resample", [floats(1, 1, 2, 3, 2)], lambda x: F.interpolate(x, (4, 4, 4), mode="trilinear"), kind="linear", size=(4, 4, 4)),
    ]
    return cases
