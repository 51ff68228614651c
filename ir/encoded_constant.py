"""Encoded constants: tensors held as codes, scales and what else their encoding has, whose numbers are what these decode to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping

import numpy as np

from .constant import ArrayConstant, Constant, read_only
from .encoding import Encoding
from .encodings import SCHEMES, Scheme, scheme_of
from .encodings.scheme import CODES, SCALES, TABLE, ZERO_POINTS, Parts
from .short_sums import SHORT_SUMS, with_short_sums
from .sparse import fitted
from .types import TensorType


class EncodedConstant(Constant):
    """A constant whose type has an encoding of :mod:`mlc.ir.encodings`.

    :meth:`array` is the decoded tensor, for whoever does not know the encoding; who does reads the parts. ``digest`` must identify the
    content; ``parts`` is called at most once, when a part is first asked for. Made by :func:`encode` or :func:`encoded_from_parts`.
    """

    def __init__(self, type: TensorType, digest: str, parts: Callable[[], Parts]) -> None:
        self.type = type
        self.digest = digest
        self.scheme: Scheme = scheme_of(type.encoding)
        self._make: Callable[[], Parts] | None = parts
        self._parts: Mapping[str, np.ndarray] = {}
        self._decoded: np.ndarray | None = None
        self._lock = threading.Lock()

    @property
    def parts(self) -> Mapping[str, np.ndarray]:
        """The parts by name, read-only."""
        with self._lock:
            if self._make is not None:
                made = self._make()
                self.scheme.check(made, self.type.static_shape)
                self._parts = {name: read_only(part) for name, part in made.items()}
                self._make = None
            return self._parts

    @property
    def codes(self) -> np.ndarray:
        """An integer for each element, in logical order."""
        return self.parts[CODES]

    @property
    def scales(self) -> np.ndarray | None:
        """The scales where they are stored, in the dtype that they are stored in (uint8 for e8m0)."""
        return self.parts.get(SCALES)

    @property
    def zero_points(self) -> np.ndarray | None:
        """The zero points where they are stored."""
        return self.parts.get(ZERO_POINTS)

    @property
    def table(self) -> np.ndarray | None:
        """The table of a codebook."""
        return self.parts.get(TABLE)

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the parts, with codes packed."""
        return self.scheme.nbytes(self.type.static_shape)

    def array(self) -> np.ndarray:
        parts = self.parts
        with self._lock:
            if self._decoded is None:
                with np.errstate(over="ignore"):
                    self._decoded = read_only(self.scheme.decode(parts).astype(self.type.dtype.numpy, copy=False))
            return self._decoded


def encode(constant: Constant, encoding: Encoding) -> EncodedConstant:
    """``constant``, rounded to what ``encoding`` holds, when its data is first asked for.

    TypeInferenceError when the encoding does not fit the type; EncodingError when constants are not held in it. Asking for the parts raises
    EncodingError when the data is not finite.
    """
    type = constant.type.with_layout(None).with_encoding(encoding)
    digest = hashlib.sha256(f"encode|{type}|{constant.digest}".encode()).hexdigest()
    return EncodedConstant(type, digest, lambda: scheme_of(encoding).quantise(constant.array()))


def constant_of(array: np.ndarray, type: TensorType) -> Constant:
    """The constant of ``type`` for the numbers of ``array``: rounded to the type's encoding where that is one of codes, zero where a
    sparse encoding has no room for more numbers, and smaller where products would not fit a short sum."""
    if type.encoding.name == SHORT_SUMS:
        return ArrayConstant(with_short_sums(array, type.encoding))
    constant = ArrayConstant(fitted(array, type.encoding) if type.encoding.is_sparse else array)
    values = type.encoding.values
    return encode(constant, values) if values.name in SCHEMES else constant


def encoded_from_parts(type: TensorType, parts: Parts) -> EncodedConstant:
    """The constant of ``type``, which has an encoding, made of ``parts``. The arrays are not copied: they must not change afterwards.

    EncodingError when they are not the parts of such a constant.
    """
    scheme_of(type.encoding).check(parts, type.static_shape)
    content = hashlib.sha256(f"parts|{type}".encode())
    for name in sorted(parts):
        content.update(name.encode())
        content.update(read_only(parts[name]).reshape(-1).view(np.uint8).data)
    return EncodedConstant(type, content.hexdigest(), lambda: parts)
