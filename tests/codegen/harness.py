"""Builds single kernels and runs them on NumPy arrays, through the C interface that programs use."""

from __future__ import annotations

import ctypes
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlc.codegen.build import c_compiler, c_object, compile_object, link_library
from mlc.codegen.target import Target

HOST = Target.parse("cpu")


def aligned(shape: Sequence[int], dtype: Any, fill: int | None = None) -> np.ndarray:
    """An uninitialised (or byte-filled) array, aligned to 64 bytes."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    body = raw[start : start + count]
    if fill is not None:
        body[:] = fill
    return body.view(dtype).reshape(shape)


# Parallel loops run in as many parts, one after the other.
_CONTEXT = """
#include "mlc_abi.h"
extern __attribute__((visibility("hidden"))) __thread const mlc_context* mlc_current_context;
static const mlc_context context = {.abi_version = MLC_ABI_VERSION, .threads = 3};
__attribute__((visibility("default"))) void use_context(void) { mlc_current_context = &context; }
"""


class NativeKernel:
    """A TIR function compiled and loaded; call it with arrays in the order of its parameters."""

    def __init__(self, function: Any, target: Target = HOST) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-test-")
        path = pathlib.Path(self._folder.name) / "kernel.so"
        objects = [compile_object(function, "kernel", target), c_object(_CONTEXT, c_compiler())]
        link_library(objects, {}, ["kernel", "use_context"], path)
        library = ctypes.CDLL(str(path))
        library.use_context()
        self._function = library.kernel
        self._function.restype = ctypes.c_int32

    def __call__(self, *arrays: np.ndarray) -> None:
        code = self._function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))
        assert code == 0
