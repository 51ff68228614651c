"""Programs written by hand in C, so that the runtime is tested without code generation."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlc
from mlc.ir.program import BufferRef, ConstantSlot, KernelCall, Program, Signature, Space, TensorSpec
from mlc.runtime.executable import Executable

PRELUDE = """
#include "mlc_abi.h"
#include <stdio.h>
#include <string.h>
"""

ADD = """
typedef struct { const float* a; const float* b; float* out; int64_t n; } work;
static int32_t part(int32_t index, int32_t count, void* closure) {
  const work* w = closure;
  for (int64_t i = w->n * index / count; i < w->n * (index + 1) / count; ++i) w->out[i] = w->a[i] + w->b[i];
  return 0;
}
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  work w = {io[0], io[1], io[2], SIZE};
  if (c->profile) c->profile(c, 0, 1);
  const int32_t code = c->parallel_for(c, part, 0, &w);
  if (c->profile) c->profile(c, 0, 0);
  return code;
}
"""
"""out = a + b over SIZE floats, in one part per thread."""


def build(source: str, folder: Path, **macros: int) -> Path:
    """Compiles C source into a shared library under ``folder``."""
    source = PRELUDE + source
    flags = [f"-D{name}={value}" for name, value in macros.items()]
    name = hashlib.sha256((source + repr(flags)).encode()).hexdigest()[:16]
    library = folder / f"{name}.so"
    include = Path(mlc.__file__).parent / "runtime" / "native"
    (folder / f"{name}.c").write_text(source)
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", f"-I{include}", *flags, "-o", library, folder / f"{name}.c"], check=True
    )
    return library


def spec(name: str, *shape: int, dtype: str = "f32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def leaf(index: int) -> dict[str, Any]:
    return {"kind": "leaf", "index": index}


def call_tree(args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """The input tree of positional and keyword entries."""
    kwargs = kwargs or {}
    return {
        "kind": "tuple",
        "items": [
            {"kind": "tuple", "items": list(args)},
            {"kind": "dict", "keys": list(kwargs), "items": list(kwargs.values())},
        ],
    }


def program(
    signature: Signature, *, weights: bytes = b"", arena: int = 0, threads: int = 2, kernels: int = 1, flops: int = 1000, **fields: Any
) -> Program:
    calls = tuple(
        KernelCall(f"kernel_{i}", (BufferRef(Space.INPUT, 0, 64),), f"label_{i}", f"task_{i}", "", f"model.py:{i}", flops, 4 * flops)
        for i in range(kernels)
    )
    slots = (ConstantSlot(0, len(weights), hashlib.sha256(weights).hexdigest()),) if weights else ()
    defaults: dict[str, Any] = {"name": "test", "target": "cpu", "features": ()}
    return Program(
        signature=signature,
        steps=calls,
        constants=slots,
        constant_bytes=len(weights),
        arena_bytes=arena,
        arena_lower_bound=arena,
        threads=threads,
        **(defaults | fields),
    )


def adder(folder: Path, shape: tuple[int, ...] = (4, 8), **fields: Any) -> Executable:
    """An executable for ``a + b``."""
    signature = Signature((spec("a", *shape), spec("b", *shape)), (spec("out", *shape),))
    return Executable(program(signature, **fields), build(ADD, folder, SIZE=int(np.prod(shape))))


MLP = """
static void dense(const float* x, const float* w, const float* b, float* y, int relu) {
  for (int j = 0; j < 16; ++j) y[j] = b[j];
  for (int k = 0; k < 16; ++k)
    for (int j = 0; j < 16; ++j) y[j] += x[k] * w[k * 16 + j];
  if (relu) for (int j = 0; j < 16; ++j) y[j] = y[j] > 0 ? y[j] : 0;
}
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  const float* weights = c->constants;
  if (c->profile) c->profile(c, 0, 1);
  dense(io[0], weights, weights + 256, arena, 1);
  if (c->profile) c->profile(c, 0, 0);
  if (c->profile) c->profile(c, 1, 1);
  dense(arena, weights + 272, weights + 528, io[1], 0);
  if (c->profile) c->profile(c, 1, 0);
  return 0;
}
"""
"""Two dense layers of width 16 with a relu between: weight [in, out] and bias of one, then of the other."""


def mlp(folder: Path, seed: int = 0, **fields: Any) -> tuple[Executable, np.ndarray]:
    """The two-layer perceptron on one row, and its 544 parameters."""
    weights = np.random.default_rng(seed).standard_normal(544).astype(np.float32)
    signature = Signature((spec("x", 1, 16),), (spec("out", 1, 16),))
    made = program(signature, weights=weights.tobytes(), arena=64, kernels=2, **fields)
    return Executable(made, build(MLP, folder), weights), weights


def mlp_reference(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(x @ weights[:256].reshape(16, 16) + weights[256:272], 0)
    return hidden @ weights[272:528].reshape(16, 16) + weights[528:]
