"""Evaluates xgboost's boosters through the C interface of its library.

Importing the xgboost package brings in SciPy, and scikit-learn where it is installed: a second and more, which a compilation that only
predicts need not wait for. The library itself is loaded in a few milliseconds, and gives the same numbers.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import pathlib
from typing import Any

import numpy as np

from .model import Floats

_PREDICTION = json.dumps(
    {"type": 0, "training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": False, "missing": float("nan"), "cache_id": 0}
).encode()


class TreeEnsemble:
    """A booster in xgboost's binary form (UBJSON), ready to predict on one thread: starting several takes longer than such a prediction.

    ValueError, with what the library says, when it is no booster.
    """

    def __init__(self, stored: bytes) -> None:
        self._handle = ctypes.c_void_p()
        self._library = _library()
        self._call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._handle))
        self._call("XGBoosterSetParam", self._handle, b"nthread", b"1")
        self._call("XGBoosterLoadModelFromBuffer", self._handle, stored, ctypes.c_uint64(len(stored)))

    def __del__(self) -> None:
        if self._handle:
            self._library.XGBoosterFree(self._handle)

    def predict(self, features: np.ndarray) -> Floats:
        """What it predicts for ``features`` [n, F], in double precision [n]; ValueError when F is not the number of its features."""
        rows = np.ascontiguousarray(features, np.float32)
        extents, dimensions, result = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
        self._call(
            "XGBoosterPredictFromDense",
            self._handle,
            json.dumps({"data": [rows.ctypes.data, True], "shape": rows.shape, "typestr": rows.dtype.str, "version": 3}).encode(),
            _PREDICTION,
            None,
            ctypes.byref(extents),
            ctypes.byref(dimensions),
            ctypes.byref(result),
        )
        return np.ctypeslib.as_array(result, (len(rows),)).astype(np.float64)

    def _call(self, function: str, *arguments: Any) -> None:
        if getattr(self._library, function)(*arguments):
            raise ValueError(self._library.XGBGetLastError().decode(errors="replace").splitlines()[0])


@functools.cache
def _library() -> ctypes.CDLL:
    """The library of the installed package, found by the package's own rules without importing the package."""
    package = importlib.util.find_spec("xgboost")
    assert package is not None and package.origin is not None, "it is among mlc's requirements"
    rules = importlib.util.spec_from_file_location("_xgboost_libpath", pathlib.Path(package.origin).with_name("libpath.py"))
    assert rules is not None and rules.loader is not None
    module = importlib.util.module_from_spec(rules)
    rules.loader.exec_module(module)
    library = ctypes.CDLL(module.find_lib_path()[0])
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library
