"""Buffers on the stack that begin at a cache line.

TVM asks LLVM for at most 16 bytes of alignment of a stack buffer, whatever its declaration says. Half of all vectors of 32 bytes, and
nearly all of 64, would then cross a cache line, or none of them: that is for chance to decide, where the stack of a thread begins.
"""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from typing import Any

CACHE_LINE = 64
"""Bytes."""
_BUFFER = re.compile(r"(= alloca \[\d+ x \w+\]), align 16\b")


def with_aligned_stack(module: Any) -> Any:
    """The LLVM ``module`` with every buffer that optimisation left on the stack at a multiple of a cache line.

    A function with such buffers aligns its stack once, where it begins.
    """
    import tvm

    text, count = _BUFFER.subn(rf"\1, align {CACHE_LINE}", str(module.inspect_source("ll")))
    if not count:
        return module
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        path = os.path.join(folder, "kernel.ll")
        pathlib.Path(path).write_text(text)
        return tvm.runtime.load_module(path)
