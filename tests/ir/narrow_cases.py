"""Quantisation, and contractions of narrow operands that are summed in wider types."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from op_case import NAN, Case, case, floats, integers

from mlc.ir import DType


def _quantised(low: int, high: int, zero_point: int, dtype: torch.dtype) -> object:
    def function(x: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        steps = torch.round((x * rate).float()).double() + zero_point
        return torch.nan_to_num(steps, low).clamp(low, high).to(dtype)

    return function


def _summed(x: torch.Tensor, w: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
    product = x.long() @ w.long()
    return (product + bias[0] if bias else product).to(torch.int32)


def narrow_cases() -> list[Case]:
    codes, weights = integers(3, 40, low=0, high=256, dtype=np.uint8), integers(7, 40, low=-128, high=128, dtype=np.int8)
    image, kernel = integers(2, 4, 5, 6, low=0, high=256, dtype=np.uint8), integers(6, 2, 3, 2, low=-128, high=128, dtype=np.int8)
    halfway = np.array([[0.5, 1.5, 2.5, -0.5, -1.5], [1e9, -1e9, 130.4, -129.4, NAN]])
    per_row = np.array([[1.0], [0.5]])
    as_u8, as_i8 = _quantised(0, 255, 7, torch.uint8), _quantised(-128, 127, 0, torch.int8)

    def convolved(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x.double(), (0, 2, 1, 0), value=7.0)
        return F.conv2d(padded, w.double(), b.double(), (2, 1), 0, 1, 2).to(torch.int32)

    return [
        case("quantise", [halfway, per_row], as_u8, dtype=DType.UINT8, zero_point=7),
        case("quantise", [floats(4, 5) * 40, np.array(3.0)], as_i8, dtype=DType.INT8),
        case("matmul", [codes, weights.T.copy()], _summed, dtype=DType.INT32),
        case("linear", [codes, weights, integers(7, dtype=np.int32)], lambda x, w, b: _summed(x, w.T, b), dtype=DType.INT32),
        case("linear", [codes.astype(np.int8), weights], lambda x, w: _summed(x, w.T), dtype=DType.INT32),
        case(
            "conv",
            [image, kernel, integers(6, dtype=np.int32)],
            convolved,
            stride=(2, 1),
            padding=((1, 0), (0, 2)),
            dilation=(1, 1),
            groups=2,
            filling=7,
            dtype=DType.INT32,
        ),
    ]
