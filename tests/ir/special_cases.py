"""Special functions and operations on the representation of numbers, where they are finite, singular and undefined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from op_case import INF, NAN, Case, case, integers

from mlc.ir import DType

LINE = np.array([0.0, -0.0, 1e-9, 0.25, -0.5, 0.75, 1.0, 2.5, -2.5, 7.9, 8.1, -9.3, 19.0, 40.0, NAN])
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "erfc": torch.erfc,
    "erfcx": torch.special.erfcx,
    "i0": torch.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
}
BESSEL = ("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1")
SHIFTS = {"shift_left": torch.bitwise_left_shift, "shift_right": torch.bitwise_right_shift}


def special_cases() -> list[Case]:
    cases = [Case(name, (LINE,), function, {}, "line") for name, function in FUNCTIONS.items()]
    # PyTorch's own Bessel functions are good to single precision only.
    cases += [Case(name, (np.linspace(0.5, 20, 7).astype(np.float32),), getattr(torch.special, name), {}, "line") for name in BESSEL]
    # Its trigamma is good to nine digits.
    cases.append(Case("trigamma", (LINE.astype(np.float32),), lambda x: torch.polygamma(1, x.double()).float(), {}, "line"))
    positive = np.array([0.0, 1e-300, 0.1, 1.0, 2.0**70, 1000.0, INF, NAN, -1.0])
    cases += [Case(name, (positive,), getattr(torch, name), {}, "line") for name in ("log2", "log10")]
    cases.append(case("erfinv", [np.array([0.0, -0.0, 1e-12, -0.3, 0.9, -0.999999, 1.0, -1.0, 1.5, NAN])], torch.erfinv))
    cases.append(case("ndtri", [np.array([0.0, 1e-200, 1e-9, 0.3, 0.7, 0.999, 1.0, 1.5, -0.1, NAN])], torch.special.ndtri))
    for dtype in (np.int8, np.uint8, np.int64):
        x = integers(8, low=0 if dtype is np.uint8 else -100, high=100, dtype=dtype)
        counts = np.array([0, 1, 3, 7, 8, 63, 64, 100], dtype)
        cases += [Case(name, (x, counts), function, {}, f"counts-{np.dtype(dtype)}", exact=True) for name, function in SHIFTS.items()]
        cases.append(Case("gcd", (x, x[::-1].copy()), torch.gcd, {}, f"numbers-{np.dtype(dtype)}", exact=True))
    cases += [Case(name, (np.array([-5, 5]), np.array([-1, -1])), function, {}, "negative") for name, function in SHIFTS.items()]
    edges = np.array([0.0, -0.0, 1.0, -1.0, 3.7, -1e-310, 5e-324, 1e300, INF, -INF])
    cases.append(case("signbit", [edges], torch.signbit))
    cases.append(Case("mantissa", (edges,), lambda x: torch.frexp(x)[0], {}, "edges", exact=True))
    cases.append(Case("exponent", (edges,), lambda x: torch.frexp(x)[1], {}, "edges", exact=True))
    cases.append(Case("nextafter", (edges, edges[::-1].copy()), torch.nextafter, {"dtype": DType.FLOAT64}, "edges", exact=True))
    return cases
