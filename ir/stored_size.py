"""How much of a tensor is stored, by what its type says: codes count as such, zeros that are left out do not."""

from __future__ import annotations

from .encoding import Encoding
from .encodings import SCHEMES, scheme_of
from .types import TensorType

_COLUMN_BYTES = 2
"""The place of an entry of a panel."""
_BITS_PER_BYTE = 8


def is_stored_densely(type: TensorType) -> bool:
    """Whether each element of a tensor is stored as the bits of its dtype."""
    return not type.encoding.is_sparse and type.encoding.name not in SCHEMES


def stored_share(type: TensorType) -> float:
    """The part of a (static) tensor's elements that is stored: 1 unless zeros are left out, else what there is room for, which is no less
    than what is not zero."""
    if type.is_empty:
        return 1.0
    match type.encoding.name:
        case "block_sparse":
            kept = float(_parameter(type.encoding, "entries") * _parameter(type.encoding, "width"))
        case "bitmap":
            kept = float(_parameter(type.encoding, "elements"))
        case "nm_sparse":
            return _parameter(type.encoding, "n") / _parameter(type.encoding, "m")
        case _:
            return 1.0
    # The last panel may have fewer rows than its width.
    return min(1.0, kept / type.elements)


def stored_bytes(type: TensorType) -> float:
    """Bytes of a (static) tensor as it is stored: of one held as codes with its scales, of a sparse one with the places of its elements."""
    values = type.encoding.values
    whole = float(scheme_of(values).nbytes(type.static_shape) if values.name in SCHEMES else type.nbytes)
    size = whole / max(type.elements, 1)
    match type.encoding.name:
        case "block_sparse":
            entries, width = _parameter(type.encoding, "entries"), _parameter(type.encoding, "width")
            return entries * (width * size + _COLUMN_BYTES)
        case "bitmap":
            return _parameter(type.encoding, "elements") * size + type.elements / _BITS_PER_BYTE
        case "nm_sparse":
            kept = _parameter(type.encoding, "n") / _parameter(type.encoding, "m")
            return type.elements * (size * kept + 1 / _BITS_PER_BYTE)
    return whole


def _parameter(encoding: Encoding, name: str) -> int:
    value = dict(encoding.parameters)[name]
    assert isinstance(value, int)
    return value
