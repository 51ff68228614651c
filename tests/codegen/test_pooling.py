"""Pooling and running sums."""

from __future__ import annotations

import pytest
from check import check, region, tensor

from mlc.codegen.templates.pooling import Pooling
from mlc.codegen.templates.scan import Scan
from mlc.ir import DType

POOLING, SCAN = Pooling(), Scan()
NHWC = (0, 2, 3, 1)


def pool(kind: str, window: tuple[int, int], stride: tuple[int, int], padding: object, dilation: tuple[int, int] = (1, 1), **more: object):
    def build(b, x):
        return b.call("window_reduce", x, kind=kind, window=window, stride=stride, padding=padding, dilation=dilation, **more)

    return build


BUILDS = {
    "max 3x3 stride 2": pool("max", (3, 3), (2, 2), ((1, 1), (1, 1))),
    "max dilated": pool("max", (2, 3), (1, 1), ((0, 1), (2, 2)), (2, 2)),
    "mean 2x2": pool("mean", (2, 2), (2, 2), ((0, 0), (0, 0))),
    "mean counting padding": pool("mean", (3, 3), (2, 2), ((1, 2), (1, 1)), uncounted=(1, 0)),
    "mean of real ones": pool("mean", (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False),
    "mean with a divisor": pool("mean", (3, 2), (1, 2), ((1, 1), (0, 0)), divisor=5),
    "mean over a large window": pool("mean", (7, 9), (1, 1), ((0, 0), (1, 1))),
}


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("order", [None, NHWC], ids=str)
def test_pooling(name: str, order: tuple[int, ...] | None) -> None:
    for channels in (5, 72):
        graph = region([tensor((2, channels, 9, 11), order=order)], BUILDS[name], [order] if order else [])
        check(POOLING, graph)


def test_pooling_with_neighbours_in_parallel() -> None:
    def build(b, x, y):
        return b.call("add", b.call("relu", BUILDS["max 3x3 stride 2"](b, b.call("neg", x))), y)

    graph = region([tensor((1, 40, 12, 12), order=NHWC), tensor((1, 40, 6, 6), order=NHWC)], build, [NHWC])
    check(POOLING, graph, threads=2, all_configs=True)


def test_integer_maximum() -> None:
    check(POOLING, region([tensor((1, 3, 6, 6), DType.INT64)], BUILDS["max 3x3 stride 2"]))


@pytest.mark.parametrize("kind", ["sum", "prod"])
@pytest.mark.parametrize(("shape", "axis"), [((5, 9), 1), ((9, 35), 0), ((2, 7, 3), 1), ((6,), 0)], ids=str)
def test_scans(kind: str, shape: tuple[int, ...], axis: int) -> None:
    check(SCAN, region([tensor(shape)], lambda b, x: b.call("scan", x, kind=kind, axis=axis)))


def test_positions_from_a_mask() -> None:
    def build(b, mask):
        counted = b.call("scan", b.call("cast", mask, dtype=DType.INT64), axis=1)
        return b.call("sub", counted, b.call("full", shape=(), value=1, dtype=DType.INT64))

    check(SCAN, region([tensor((3, 20), DType.BOOL)], build))
