"""The reduction template: every kind, along and across rows, with fused neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, region, tensor

from mlc.codegen.task import Numerics
from mlc.codegen.templates.reduction import Reduction
from mlc.ir import DType

TEMPLATE = Reduction()
NHWC = (0, 2, 3, 1)
CASES = [((5, 37), (1,)), ((37, 5), (0,)), ((2, 3, 200), (2,)), ((3, 4, 5, 6), (1, 3)), ((9,), (0,)), ((4, 1), (1,)), ((3, 70), (0, 1))]


@pytest.mark.parametrize("kind", ["sum", "mean", "prod", "max", "min"])
@pytest.mark.parametrize(("shape", "axes"), CASES, ids=str)
def test_kinds_and_axes(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    graph = region([tensor(shape)], lambda b, x: b.call("reduce", x, kind=kind, axes=axes))
    check(TEMPLATE, graph, all_configs=shape == (2, 3, 200))


@pytest.mark.parametrize("kind", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positions_of_extremes(kind: str, axis: int) -> None:
    graph = region([tensor((3, 41, 20))], lambda b, x: b.call("reduce", x, kind=kind, axes=(axis,), keepdims=axis == 1))
    # Rounded, so that ties occur and the first must win.
    check(TEMPLATE, graph, inputs=[np.round(np.random.default_rng(0).standard_normal((3, 41, 20))).astype(np.float32)])


@pytest.mark.parametrize("kind", ["any", "all"])
def test_truth(kind: str) -> None:
    for dtype in (DType.BOOL, DType.INT64, DType.FLOAT32):
        check(TEMPLATE, region([tensor((6, 3), dtype)], lambda b, x: b.call("reduce", x, kind=kind, axes=(1,))))


@pytest.mark.parametrize("dtype", [DType.INT64, DType.INT32, DType.FLOAT64, DType.UINT8])
def test_other_dtypes(dtype: DType) -> None:
    for kind in ("sum", "max", "min"):
        check(TEMPLATE, region([tensor((5, 21), dtype)], lambda b, x, kind=kind: b.call("reduce", x, kind=kind, axes=(1,))))


def test_global_average_pool_of_channels_last() -> None:
    def build(b, x):
        return b.call("relu", b.call("reduce", x, kind="mean", axes=(2, 3), keepdims=True))

    for channels in (3, 16, 70, 256):
        check(TEMPLATE, region([tensor((2, channels, 7, 7), order=NHWC)], build, [NHWC]))


def test_prologue_and_epilogue() -> None:
    def build(b, x, y, scale):
        total = b.call("reduce", b.call("square", b.call("sub", x, y)), kind="sum", axes=(1,), keepdims=True)
        flat = b.call("reshape", b.call("sqrt", total), shape=(6,))
        return [b.call("mul", flat, scale), b.call("permute", total, order=(1, 0, 2))]

    check(TEMPLATE, region([tensor((6, 30, 1)), tensor((6, 30, 1)), tensor((6,))], build))


def test_reduction_of_a_permuted_operand() -> None:
    graph = region([tensor((8, 5, 40))], lambda b, x: b.call("reduce", b.call("permute", x, order=(2, 0, 1)), kind="sum", axes=(1,)))
    check(TEMPLATE, graph, threads=2, all_configs=True)


def test_nan_wins_in_strict_numerics() -> None:
    values = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    values[1, 17] = np.nan
    for kind in ("max", "min", "argmax"):
        graph = region([tensor((3, 40))], lambda b, x, kind=kind: b.call("reduce", x, kind=kind, axes=(1,)))
        check(TEMPLATE, graph, inputs=[values], numerics=Numerics.STRICT)
