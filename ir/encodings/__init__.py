"""What the encodings of constants mean: from numbers to codes and scales, back, and to bits; in NumPy, the reference of every kernel.

One module for each family. :func:`scheme_of` finds the semantics of an :class:`~mlc.ir.encoding.Encoding`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import EncodingError
from ..encoding import Encoding
from .affine import Affine
from .bits import pack_codes, packed_bytes, unpack_codes
from .block_scaled import BlockScaled
from .codebook import Codebook
from .grouped import Grouped
from .scheme import Parts, PartType, Scheme
from .ternary import Ternary

__all__ = [
    "SCHEMES",
    "Affine",
    "BlockScaled",
    "Codebook",
    "Grouped",
    "PartType",
    "Parts",
    "Scheme",
    "Ternary",
    "pack_codes",
    "packed_bytes",
    "scheme_of",
    "unpack_codes",
]

SCHEMES: Mapping[str, type[Scheme]] = {kind.name: kind for kind in (Affine, Grouped, BlockScaled, Codebook, Ternary)}
"""The semantics of encodings by name."""


def scheme_of(encoding: Encoding) -> Scheme:
    """The semantics of ``encoding``; EncodingError for one that constants are not held in as codes."""
    if encoding.name not in SCHEMES:
        raise EncodingError(f"constants are not held as codes in the encoding {encoding} (those that are: {', '.join(SCHEMES)})")
    return SCHEMES[encoding.name].of(encoding)
