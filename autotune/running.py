"""Runs candidates: maps inputs, verifies results, takes times. Served by a run worker, which a bad candidate may take down.

Imports little, so that a worker is quickly replaced.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pathlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..codegen.constant_layout import ConstantLayout, constant_layouts_of, stored
from ..errors import MeasurementError
from ..ir import DType, TensorType, constant_of, parse_type
from ..ir.program import ALIGNMENT

NORM_TOLERANCE = 1e-4
"""Largest norm-wise error of a float output against float64."""

ELEMENT_TOLERANCE = 2e-3
"""Largest error of one element, relative to its size plus the root mean square of all."""

_OFTEN = 0.1
"""How much of the step between narrow floats the norm-wise error may have: one number in a hundred rounded the other way."""

_GUARD = 4096
_GUARD_BYTE = 0xA5
_POISON_BYTE = 0xFF
"""All bits set: a NaN in every float type, and no valid boolean."""

_HUGE = 2 << 20
_MOST_GAP = 16 * _GUARD
"""Bytes between two arrays, at most: what a way of the second-level cache has."""
_REGION = 8 * _HUGE
"""Bytes mapped at once, at least."""
_SAMPLE_SECONDS = 2e-4


class Memory:
    """An aligned array with guard bytes before and behind.

    Arrays lie one behind the other in huge pages, as they do in a program's arena: what they have of the caches does not depend on where
    the system finds pages. They start at different places within a page, else loads and stores would seem to meet, and some pages apart.
    """

    _gaps: ClassVar = random.Random(0)
    _region: ClassVar[np.ndarray] = np.empty(0, np.uint8)
    """What is left of the last mapping; arrays keep theirs alive."""

    @classmethod
    def arrange(cls, arrangement: int) -> None:
        """Has the arrays to come lie apart as this arrangement says: how a kernel's operands meet in the caches differs by it."""
        cls._gaps = random.Random(arrangement)

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._start = _GUARD + ALIGNMENT * Memory._gaps.randrange(_MOST_GAP // ALIGNMENT)
        size = -(-(self._start + self.nbytes + _GUARD) // _GUARD) * _GUARD
        if len(Memory._region) < size:
            Memory._region = _mapped(max(size, _REGION))
        self._bytes, Memory._region = Memory._region[:size], Memory._region[size:]
        self.body = self._bytes[self._start : self._start + self.nbytes]
        self.array = self.body.view(dtype).reshape(shape)

    @property
    def address(self) -> int:
        return int(self._bytes.ctypes.data) + self._start

    def poison(self) -> None:
        """Fills the array with values that no kernel gives, and its surroundings with guard bytes."""
        self._bytes[:] = _GUARD_BYTE
        self.body[:] = _POISON_BYTE

    @property
    def intact(self) -> bool:
        """Whether the guard bytes are as they were."""
        before, behind = self._bytes[: self._start], self._bytes[self._start + self.nbytes :]
        return bool((before == _GUARD_BYTE).all() and (behind == _GUARD_BYTE).all())


def _mapped(size: int) -> np.ndarray:
    """Fresh memory from the start of a huge page on, in huge pages where the system has them."""
    # Private: of shared memory most systems have small pages only.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    mapping = mmap.mmap(-1, size + _HUGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(mapping, np.uint8)
    start = -whole.ctypes.data % _HUGE
    return whole[start : start + size]


class _Areas(ctypes.Structure):
    """``mlc_areas`` of native/measure.c."""

    _fields_: ClassVar = [
        ("memory", ctypes.POINTER(ctypes.c_void_p)),
        ("bytes", ctypes.POINTER(ctypes.c_uint64)),
        ("count", ctypes.c_int32),
    ]

    @staticmethod
    def of(memories: Sequence[Memory]) -> _Areas:
        addresses = (ctypes.c_void_p * len(memories))(*(memory.address for memory in memories))
        sizes = (ctypes.c_uint64 * len(memories))(*(memory.nbytes for memory in memories))
        return _Areas(addresses, sizes, len(memories))


@dataclass(frozen=True)
class _Loaded:
    """A candidate ready to be called: one pointer table for each input set."""

    entry: int
    tables: tuple[Any, ...]
    workspace: Memory
    cold: tuple[Memory, ...]
    library: ctypes.CDLL


class KernelRunner:
    """Holds the case of one task and the candidates loaded for it."""

    def __init__(self) -> None:
        self._case: dict[str, Any] = {}
        self._folder = pathlib.Path()
        self._timing: ctypes.CDLL | None = None
        self._inputs: list[list[Memory]] = []
        self._outputs: list[Memory] = []
        self._packed: dict[tuple[int, ConstantLayout], Memory] = {}
        self._loaded: dict[str, _Loaded] = {}

    def open(self, timing: str, case: str) -> None:
        """Takes the inputs of the manifest ``case``; ``timing`` is the timing library."""
        self._timing = ctypes.CDLL(timing)
        self._timing.mlc_measure_time.argtypes = [
            *[ctypes.c_void_p] * 3,
            ctypes.c_int32,
            *[ctypes.POINTER(_Areas)] * 2,
            *[ctypes.c_int32] * 2,
            ctypes.c_double,
            ctypes.c_void_p,
        ]
        self._timing.mlc_measure_call.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int32]
        self._case = json.loads(pathlib.Path(case).read_text())
        self._folder = pathlib.Path(case).parent
        self._packed = {}
        self.arrange(0)

    def arrange(self, arrangement: int) -> None:
        """Places inputs and outputs anew; candidates are to be loaded again. Large constants stay: what comes from memory in any case is
        equally far everywhere."""
        Memory.arrange(arrangement)
        self._loaded = {}
        self._packed = {wanted: memory for wanted, memory in self._packed.items() if memory.nbytes >= _REGION}
        self._inputs = [[] if item["constant"] else [_copy(self._map(name)) for name in item["files"]] for item in self._case["inputs"]]
        self._outputs = [Memory(tuple(item["shape"]), DType.parse(item["dtype"]).numpy) for item in self._case["outputs"]]

    def load(self, name: str, library: str, entry: str, workspace_bytes: int, constant_layouts: list[list[Any]]) -> None:
        """Loads a candidate under ``name``."""
        wanted = constant_layouts_of(constant_layouts)
        handle = ctypes.CDLL(library)
        function = ctypes.cast(getattr(handle, entry), ctypes.c_void_p).value
        constants = {index: self._constant(index, wanted.get(index)) for index, item in enumerate(self._case["inputs"]) if item["constant"]}
        tables = []
        for variant in range(self._variants):
            memories = [constants[index] if index in constants else self._inputs[index][variant] for index in range(len(self._inputs))]
            addresses = [memory.address for memory in (*memories, *self._outputs)]
            tables.append((ctypes.c_void_p * len(addresses))(*addresses))
        workspace = Memory((workspace_bytes,), np.dtype(np.uint8))
        assert function is not None
        self._loaded[name] = _Loaded(function, tuple(tables), workspace, tuple(constants.values()), handle)

    def verify(self, name: str) -> str:
        """Why a candidate is wrong; empty when it is right on every input set, also when sets alternate."""
        kernel = self._loaded[name]
        for variant in (*range(self._variants), 0):
            for memory in (*self._outputs, kernel.workspace):
                memory.poison()
            for item, memory in zip(self._case["outputs"], self._outputs, strict=True):
                if item["held"] is not None:
                    memory.array[...] = self._map(item["held"][variant])
            code = self._timing_library.mlc_measure_call(
                kernel.entry, ctypes.addressof(kernel.tables[variant]), kernel.workspace.address, self._case["threads"]
            )
            if code:
                return f"returned error code {code}"
            if not all(memory.intact for memory in (*self._outputs, kernel.workspace)):
                return "wrote outside its outputs"
            if not self._inputs_unchanged(variant):
                return "wrote to its inputs"
            for position, (item, memory) in enumerate(zip(self._case["outputs"], self._outputs, strict=True)):
                mask = self._map(item["mask"]) if item["mask"] else None
                if reason := difference(memory.array, self._map(item["files"][variant]), mask, self._case["rounding"]):
                    return f"output {position} on inputs {variant}: {reason}"
        return ""

    def _inputs_unchanged(self, variant: int) -> bool:
        """Whether the inputs that are no constants hold what they held; they do afterwards."""
        unchanged = True
        for item, memories in zip(self._case["inputs"], self._inputs, strict=True):
            if memories:
                wanted = self._map(item["files"][variant])
                if not np.array_equal(wanted.reshape(-1).view(np.uint8), memories[variant].body):
                    memories[variant].array[...] = wanted
                    unchanged = False
        return unchanged

    def time(self, name: str, seconds: float, cold: bool) -> list[float]:
        """Seconds per call of samples taken within about ``seconds``; with ``cold``, constants are evicted before each sample, and
        the threads write equal shares of the other inputs."""
        kernel = self._loaded[name]
        first = self._sample(kernel, 1, 2, seconds, cold)
        if min(first) >= seconds:  # as many samples as there would be later
            return first
        calls = 1 if cold else max(1, min(1000, int(_SAMPLE_SECONDS / max(min(first), 1e-9))))
        return self._sample(kernel, calls, 400, seconds, cold)

    def _sample(self, kernel: _Loaded, calls: int, samples: int, seconds: float, cold: bool) -> list[float]:
        evicted = _Areas.of(kernel.cold if cold else ())
        written = _Areas.of([memories[0] for memories in self._inputs if memories] if cold else ())
        times = (ctypes.c_double * samples)()
        taken = self._timing_library.mlc_measure_time(
            kernel.entry,
            ctypes.addressof(kernel.tables[0]),
            kernel.workspace.address,
            self._case["threads"],
            evicted,
            written,
            calls,
            samples,
            seconds,
            ctypes.addressof(times),
        )
        if taken < 1:
            raise MeasurementError("the kernel returned an error code while it was timed")
        return list(times[:taken])

    @property
    def _timing_library(self) -> ctypes.CDLL:
        if self._timing is None:
            raise MeasurementError("open a case first")
        return self._timing

    @property
    def _variants(self) -> int:
        return max((len(item["files"]) for item in self._case["inputs"]), default=1)

    def _map(self, name: str) -> np.ndarray:
        """An array of the case, mapped."""
        found: np.ndarray = np.load(self._folder / name, mmap_mode="r", allow_pickle=False)
        return found

    def _constant(self, index: int, layout: ConstantLayout | None) -> Memory:
        """Constant input ``index`` packed as a kernel wants it (None: as its type says)."""
        item = self._case["inputs"][index]
        type = parse_type(item["type"])
        assert isinstance(type, TensorType)
        wanted = layout or type.layout
        if (index, wanted) not in self._packed:
            constant = constant_of(self._map(item["files"][0]).view(type.dtype.numpy), type)
            self._packed[index, wanted] = _copy(stored(constant, wanted))
        return self._packed[index, wanted]


def difference(got: np.ndarray, wanted: np.ndarray, mask: np.ndarray | None = None, rounding: float = 0.0) -> str:
    """How ``got`` differs from the reference ``wanted`` beyond rounding; empty when it does not.

    ``rounding`` is the relative step between the narrow floats that some value is rounded to on the way: where fp32 lies near the middle of
    two, the kernel may take the other one.
    """
    if mask is not None:
        got, wanted = got[mask], wanted[mask]
    if wanted.dtype.kind != "f":
        wrong = int(np.count_nonzero(got.view(np.uint8) != wanted.astype(got.dtype).view(np.uint8))) if got.size else 0
        return f"{wrong} bytes differ" if wrong else ""
    wide = got.astype(np.float64)
    finite = np.isfinite(wanted)
    same = np.where(np.isnan(wanted), np.isnan(wide), wide == wanted)
    if not finite.all() and not same[~finite].all():
        return "not the same NaN or infinity as the reference"
    if not np.isfinite(wide[finite]).all():
        return f"{int(np.count_nonzero(~np.isfinite(wide[finite])))} of {wide.size} elements not finite (not written?)"
    error, size = np.abs(wide[finite] - wanted[finite]), np.abs(wanted[finite])
    if not size.size:
        return ""
    scale = float(np.sqrt(np.mean(np.square(size)))) or 1e-30
    relative = float(np.sqrt(np.mean(np.square(error)))) / scale
    worst = float((error / (size + scale)).max())
    if relative > NORM_TOLERANCE + _OFTEN * rounding or worst > ELEMENT_TOLERANCE + rounding:
        return f"relative error {relative:.1e}, worst element {worst:.1e}"
    return ""


def _copy(array: np.ndarray) -> Memory:
    memory = Memory(array.shape, array.dtype)
    memory.array[...] = array
    return memory
