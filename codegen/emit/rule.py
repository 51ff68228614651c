"""What computes an elementwise operation: one element of the result from those of the operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...ir import DType
from .emitter import Expr
from .math import Bind

Rule = Callable[[Bind, Sequence[Expr], Mapping[str, Any], DType], Expr]
"""(bind, operands, attributes, dtype of the operands) -> result."""
