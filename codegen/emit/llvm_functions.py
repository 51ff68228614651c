"""Functions in LLVM's language that a kernel brings along: for instructions that TIR does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import tirx
from tvm.ir import StringImm

_NONTEMPORAL = "!0 = !{i32 1}\n"
"""The operand of ``!nontemporal`` marks."""


def with_functions(body: Any, functions: Mapping[str, str]) -> Any:
    """``body`` together with definitions of functions, by name, that it calls; the code generator inlines them."""
    if not functions:
        return body
    text = "".join(functions[name] for name in sorted(functions)) + _NONTEMPORAL
    return tirx.AttrStmt(tirx.IntImm("int32", 0), "pragma_import_llvm", StringImm(text), body)
