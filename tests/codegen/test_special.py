"""Special functions, shifts, divisors, representations and running extremes in native code."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, region, tensor

from mlc.codegen.templates.elementwise import Elementwise
from mlc.codegen.templates.scan import Scan
from mlc.ir import DType, GraphBuilder, Value

LINE = np.array([0.0, -0.0, 1e-9, 0.25, -0.5, 0.75, 1.0, 2.5, -2.5, 7.9, 8.1, -9.3, 19.0, 25.0, np.nan, 100.5])
FAMILIES = {
    "gamma": ("lgamma", "digamma", "trigamma", "log2", "log10"),
    "error functions": ("erfc", "erfcx", "erfinv", "ndtri"),
    "Bessel functions": ("i0", "i0e", "i1", "i1e", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"),
}


def each(ops: tuple[str, ...]) -> object:
    return lambda b, *operands: [b.call(op, *operands) for op in ops]


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("family", FAMILIES)
def test_special_functions(family: str, dtype: DType) -> None:
    values = LINE.astype(dtype.numpy)
    # I0(100) is no fp32 number.
    for line in (values[:15] if family == "Bessel functions" else values, np.array([-0.99999, 0.9999, 0.3], dtype.numpy)):
        graph = region([tensor(line.shape, dtype)], each(FAMILIES[family]))  # type: ignore[arg-type]
        check(Elementwise(), graph, inputs=[line], tolerance=1e-6 if dtype is DType.FLOAT32 else 1e-11)


@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT8, DType.INT64])
def test_shifts_and_divisors(dtype: DType) -> None:
    low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    x = np.array([0, 1, 5, 96, 36, high, low + 1, 84, 84], dtype.numpy)
    y = np.array([0, 1, 3, 7, 8, 84, 100, 3, 126], dtype.numpy)
    check(Elementwise(), region([tensor(x.shape, dtype)] * 2, each(("shift_left", "shift_right", "gcd"))), inputs=[x, y])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_representations(dtype: DType) -> None:
    tiny = np.finfo(dtype.numpy).smallest_subnormal
    x = np.array([0.0, -0.0, 1.0, -3.7, tiny, -1e30, np.inf, -np.inf, 1e-37], dtype.numpy)

    y = x[::-1].copy()

    def build(b: GraphBuilder, x: Value, y: Value, neighbour: Value) -> list[Value]:
        parts = [b.call(op, x) for op in ("signbit", "mantissa", "exponent")]
        return [*parts, b.call("eq", b.call("nextafter", x, y, dtype=dtype), neighbour)]

    check(Elementwise(), region([tensor(x.shape, dtype)] * 3, build), inputs=[x, y, np.nextafter(x, y)], tolerance=1e-7)


@pytest.mark.parametrize("shape", [(3, 21), (21, 19)], ids=str)
@pytest.mark.parametrize(("kind", "dtype"), [("max", DType.FLOAT32), ("min", DType.INT64), ("logsumexp", DType.FLOAT32)])
def test_running_extremes_and_log_sums(kind: str, dtype: DType, shape: tuple[int, ...]) -> None:
    axis = 1 if shape[0] == 3 else 0
    values = (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype.numpy)
    if kind != "min":
        values[0, 5], values[1, 2], values[2, 0] = np.nan, np.inf, -np.inf
    check(Scan(), region([tensor(shape, dtype)], lambda b, x: b.call("scan", x, kind=kind, axis=axis)), inputs=[values])


def test_log_sums_in_double_precision() -> None:
    graph = region([tensor((2, 9), DType.FLOAT64)], lambda b, x: b.call("scan", x, kind="logsumexp", axis=1))
    check(Scan(), graph, tolerance=1e-14)
