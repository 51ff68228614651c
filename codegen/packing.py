"""The weights blob: constants in the layouts that kernels want, each once."""

from __future__ import annotations

import hashlib

import numpy as np

from ..ir import Constant
from ..ir.program import ALIGNMENT, BufferRef, ConstantSlot, Space
from .build import in_parallel
from .constant_layout import ConstantLayout, stored, stored_bytes
from .memory_plan import aligned


class PackedConstants:
    """The weights blob under construction: each constant once per layout."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ConstantLayout], tuple[Constant, int, int]] = {}
        self._end = 0

    def place(self, constant: Constant, layout: ConstantLayout) -> BufferRef:
        key = (constant.digest, layout)
        if key not in self._entries:
            nbytes = max(stored_bytes(constant, layout), 1)
            self._entries[key] = (constant, self._end, nbytes)
            self._end += aligned(nbytes)
        _, offset, nbytes = self._entries[key]
        return BufferRef(Space.CONSTANT, offset, nbytes)

    def finish(self) -> tuple[tuple[ConstantSlot, ...], np.ndarray]:
        """The slots, and the blob: an aligned array of bytes."""
        storage = np.empty(self._end + ALIGNMENT, dtype=np.uint8)
        start = -storage.ctypes.data % ALIGNMENT
        blob = storage[start : start + self._end]

        def pack(item: tuple[tuple[str, ConstantLayout], tuple[Constant, int, int]]) -> ConstantSlot:
            (_, layout), (constant, offset, nbytes) = item
            data = stored(constant, layout).reshape(-1).view(np.uint8)
            blob[offset : offset + data.nbytes] = data
            blob[offset + data.nbytes : offset + aligned(nbytes)] = 0
            return ConstantSlot(offset, nbytes, hashlib.sha256(blob[offset : offset + nbytes].data).hexdigest())

        slots = in_parallel(pack, self._entries.items())
        return tuple(slots), blob
