"""Operations that vanish: copies, aliases, and checks that hold for the types the graph was traced with."""

from __future__ import annotations

from typing import Any

import torch

from ...ir import Value
from ..conversion import Conversion
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


@converts(
    aten.alias.default,
    aten.alias_copy.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
    aten.positive.default,
    aten.resolve_conj.default,
    aten.resolve_neg.default,
)
def identity(c: Conversion, x: Value, **options: Any) -> Value:
    return x


@converts(aten.dropout.default, aten.native_dropout.default)
def dropout(c: Conversion, x: Value, p: float, train: bool | None) -> Value | tuple[Value | None, ...]:
    if train is not False and p > 0:
        raise Unsupported("dropout is active: call model.eval() before compiling, or pass training=False to the function")
    return (x, None) if len(c.results) == 2 else x
