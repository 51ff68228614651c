"""How the codes of an encoded weight become numbers, as kernels need to know it: integers, small floats, or indices into a table.

:class:`WeightFormat` says, for the weight of a matrix product, what :mod:`..ir.encodings` says for any tensor, less what does not matter
here: which codes there are, how many bits each takes in a packed panel, and what each group along the depth is multiplied by.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..ir import TensorType
from ..ir.encoding import STORED, Encoding

CHUNK = 32
"""Weights along the depth that are packed together: as many words of 32 bits as a code has bits."""
FLOAT16_FACTOR = {"e4m3": 2.0**8, "e5m2": 1.0}
"""What a float of 8 bits is over the float of 16 bits whose exponent and leading digits are its own."""
_STEPS = {"i8": 64.0, "e2m1": 2.0}
"""Elements of these block-scaled formats are integers over so much."""


class CodeKind(enum.Enum):
    """What a code is: an integer, a float of 8 bits, or an index into a table that is stored with the weight."""

    INTEGER = "integer"
    FLOAT = "float"
    INDEX = "index"


@dataclass(frozen=True)
class WeightFormat:
    """A weight of a product is ``factor * scale * (u - zero)``, with ``u`` an unsigned integer of ``bits`` bits: an integer code less the
    least one there is. Of the other kinds, ``zero`` is 0, and ``u`` stands for the number that its bits or the table say.

    ``group``: how many weights along the depth share a scale; None: all of a column. ``scale``: how it is stored, f32, f16, bf16 or e8m0.
    ``zero`` is a number, or None where one is stored with each scale, as ``zero_storage``: u8 or f32. ``factor`` is a power of two.
    ``least`` is the least code of integers, ``storage`` what floats, ternary numbers and floats of 4 bits are called.
    """

    kind: CodeKind
    bits: int
    group: int | None
    scale: str
    least: int = 0
    zero: int | None = 0
    zero_storage: str = "u8"
    factor: float = 1.0
    storage: str = ""

    @property
    def planes(self) -> tuple[int, ...]:
        """What each bit of an integer adds to it, lowest first (:func:`~.weight_packing.plane_codes`): together, the code."""
        if self.storage == "ternary":
            return (1, -1)
        return (*(1 << bit for bit in range(self.bits - 1)), -(1 << (self.bits - 1)) if self.least else 1 << (self.bits - 1))

    @property
    def tabulated(self) -> int:
        """Entries of the table."""
        return 1 << self.bits if self.kind is CodeKind.INDEX else 0


def weight_format(type: TensorType, columns_axis: int) -> WeightFormat | None:
    """The format of a weight of ``type``, whose axis ``columns_axis`` is the columns of a product and whose other axis its depth.

    None where kernels cannot read the codes: the encoding is not one of integers, floats or indices, or its scales lie otherwise than in
    groups of a multiple of :data:`CHUNK` along the depth.
    """
    if type.rank != 2 or not type.is_static or type.is_empty:
        return None
    found = _format(type.encoding, columns_axis)
    if found is None or (found.group is not None and found.group % CHUNK):
        return None
    return found


def _format(encoding: Encoding, columns_axis: int) -> WeightFormat | None:
    given = dict(encoding.parameters)
    axis = given.get("axis")
    along_depth = axis == 1 - columns_axis
    match encoding.name:
        case "affine" if axis in (None, columns_axis):
            return _affine(given)
        case "ternary" if axis in (None, columns_axis):
            return WeightFormat(CodeKind.INTEGER, 2, None, str(given["scale"]), -1, 1, storage="ternary")
        case "grouped" if along_depth:
            bits = int(str(given["storage"])[1:])
            least = -(1 << (bits - 1)) if str(given["storage"]).startswith("i") else 0
            zero = None if "zero_point" in given else -least
            return WeightFormat(CodeKind.INTEGER, bits, _count(given["group"]), str(given["scale"]), least, zero)
        case "block_scaled" if along_depth:
            return _block_scaled(str(given["storage"]), _count(given["block"]))
        case "codebook" if along_depth:
            return WeightFormat(CodeKind.INDEX, _count(given["bits"]), _count(given["group"]), str(given["scale"]))
    return None


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value


def _affine(given: dict[str, int | float | str]) -> WeightFormat | None:
    scale, zero = given["scale"], given.get("zero_point", 0)
    if not (scale == STORED or isinstance(scale, float)) or not (zero == STORED or isinstance(zero, int)):
        return None
    least = -128 if given["storage"] == "i8" else 0
    number = None if zero == STORED else int(zero) - least
    return WeightFormat(CodeKind.INTEGER, 8, None, "f32", least, number, "f32")


def _block_scaled(storage: str, block: int) -> WeightFormat:
    if storage == "i8":
        return WeightFormat(CodeKind.INTEGER, 8, block, "e8m0", -128, 128, factor=1 / _STEPS[storage])
    if storage == "e2m1":
        return WeightFormat(CodeKind.INDEX, 4, block, "e8m0", storage=storage)
    # Floats of 6 bits are floats of 8 bits as well, and stored as such.
    wide = storage if storage in FLOAT16_FACTOR else "e4m3"
    return WeightFormat(CodeKind.FLOAT, 8, block, "e8m0", factor=FLOAT16_FACTOR[wide], storage=wide)
