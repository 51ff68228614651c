"""Special functions: gamma, error and Bessel functions, the normal distribution."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import Value
from ..conversion import Conversion
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


def _direct(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, c.cast(x, c.dtype))

    return convert


for _name in ("log2", "log10", "lgamma", "digamma", "erfc", "erfinv", "i0"):
    converts(getattr(aten, _name).default)(_direct(_name))
for _name in ("erfcx", "i0e", "i1", "i1e", "ndtri", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"):
    converts(getattr(aten, f"special_{_name}").default)(_direct(_name))
converts(aten.special_modified_bessel_i0.default)(_direct("i0"))
converts(aten.special_modified_bessel_i1.default)(_direct("i1"))


@converts(aten.polygamma.default)
def polygamma(c: Conversion, order: int, x: Value) -> Value:
    if order > 1:
        raise Unsupported(f"the polygamma function of order {order}: only 0 and 1 are known")
    return c.call("trigamma" if order else "digamma", c.cast(x, c.dtype))
