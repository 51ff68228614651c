"""Precision modes: how the weights of a layer are stored, by the words of ``mlc.compile(precision=...)``, and which layer gets which.

``MODES`` is the one table: a mode is one entry, which passes, driver, command line, reports and documentation read.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from ..errors import OptionError
from ..ir import DType, Encoding, Graph, TensorType, Trait, lookup
from ..ir.encodings import Affine, BlockScaled, Codebook, Grouped, Ternary


@dataclass(frozen=True)
class WeightAxes:
    """The axis of a weight along which results lie, and the one that is summed over, counted from the front."""

    output: int
    reduced: int


StoreWeight: TypeAlias = Callable[[WeightAxes], Encoding]

GROUP = 64
"""Elements along the reduced axis that share a scale, in modes with groups."""


class Compute(enum.Enum):
    """What the operands of matrix products and convolutions are multiplied in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


_HALVES = {DType.BFLOAT16: Compute.BF16, DType.FLOAT16: Compute.FP16}


@dataclass(frozen=True)
class Mode:
    """A precision mode. ``weights`` says how a weight is encoded (None: densely), ``compute`` what layers compute in."""

    name: str
    doc: str
    weights: StoreWeight | None = None
    compute: Compute = Compute.FP32


def _grouped(bits: int) -> StoreWeight:
    return lambda axes: Grouped(f"i{bits}", GROUP, axes.reduced, "f16").encoding


def _block_scaled(storage: str) -> StoreWeight:
    return lambda axes: BlockScaled(storage, axes.reduced).encoding


def _codebook(bits: int) -> StoreWeight:
    return lambda axes: Codebook(bits, GROUP, axes.reduced, "f16").encoding


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("fp32", "weights as they are, computed in float32"),
        Mode("bf16", "bfloat16 operands, or weights where the processor lacks them; sums in float32", compute=Compute.BF16),
        Mode("fp16", "weights of layers over few rows in float16; computed in float32", compute=Compute.FP16),
        Mode("int8", "8-bit weights, a scale for each output, times 8-bit activations; sums in int32", compute=Compute.INT8),
        Mode("w8", "8-bit integers, a scale for each output", lambda axes: Affine("i8", axes.output).encoding),
        Mode("w4", f"4-bit integers, a scale for {GROUP}", _grouped(4)),
        Mode("w3", f"3-bit integers, a scale for {GROUP}", _grouped(3)),
        Mode("w2", f"2-bit integers, a scale for {GROUP}", _grouped(2)),
        Mode("ternary", "-1, 0 or 1 times a scale for each output", lambda axes: Ternary(axes.output).encoding),
        Mode("mxfp8", "MXFP8, e4m3: 8-bit floats, a power of two for 32", _block_scaled("e4m3")),
        Mode("mxfp6", "MXFP6, e2m3: 6-bit floats, a power of two for 32", _block_scaled("e2m3")),
        Mode("mxfp4", "MXFP4, e2m1: 4-bit floats, a power of two for 32", _block_scaled("e2m1")),
        Mode("codebook4", f"one of 16 numbers of the tensor's own, a scale for {GROUP}", _codebook(4)),
        Mode("codebook3", f"one of 8 numbers of the tensor's own, a scale for {GROUP}", _codebook(3)),
    )
}
"""Every mode by name."""

AUTO = "auto"
"""The word for a mode of its own for each layer, chosen under a tolerance."""

FP32 = MODES["fp32"]


@dataclass(frozen=True)
class Precision:
    """Which module gets which mode: pairs of a pattern and a mode's name, in the order given.

    A pattern is a module path, which stands for the module and all inside it, or one with ``*``, ``?`` or ``[...]`` as in file names,
    where ``*`` stands for any characters, dots included. The longest pattern that fits wins, of equally long ones the last; an empty one
    fits everything. A module that none fits gets fp32.
    """

    rules: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(given: object) -> Precision:
        """What a user gave: a mode, or a mapping from patterns to modes, or the text of one (``pattern=mode`` with commas between).

        OptionError for anything else, and for modes there are not. ``str`` of the result reads back.
        """
        if isinstance(given, str) and "=" in given:
            pairs = [pair.rpartition("=") for pair in given.split(",") if pair.strip()]
            return Precision.of({pattern.strip(): mode.strip() for pattern, _, mode in pairs})
        if isinstance(given, str):
            return Precision(() if _known(given) == FP32.name else (("", given),))
        if not isinstance(given, Mapping):
            raise OptionError(f"precision={given!r} is a {type(given).__name__}; give one of {_words()}, or a dict from module path to one")
        for pattern in given:
            if not isinstance(pattern, str):
                raise OptionError(f"precision={given!r}: {pattern!r} is no module path; give one as text, such as 'layers.0.mlp'")
        return Precision(tuple((pattern, _known(mode)) for pattern, mode in given.items()))

    def mode(self, module: str) -> Mode:
        """The mode of the module at a path."""
        best = -1
        found = FP32
        for pattern, name in self.rules:
            if len(pattern) >= best and _fits(pattern, module):
                best, found = len(pattern), MODES[name]
        return found

    def check_modules(self, modules: Collection[str]) -> None:
        """OptionError for a pattern that fits none of ``modules``."""
        for pattern, _ in self.rules:
            if pattern and not any(_fits(pattern, module) for module in modules):
                near = difflib.get_close_matches(pattern, sorted(modules), n=3, cutoff=0.5) or sorted(filter(None, modules))[:3]
                known = f"some are {', '.join(near)}" if near else "it has none with a name: give one mode for all of it"
                raise OptionError(f"precision: '{pattern}' is no module of this model that computes; {known}")

    def __str__(self) -> str:
        return ",".join(f"{pattern}={mode}" for pattern, mode in self.rules) or FP32.name


FP32_THROUGHOUT = Precision()
"""fp32 for every module."""


def _words() -> str:
    return ", ".join(f"'{name}'" for name in MODES)


def _known(mode: object) -> str:
    if not isinstance(mode, str) or mode not in MODES:
        what = " decides for a whole model: give it alone, to mlc.compile" if mode == AUTO else " is unknown"
        raise OptionError(f"precision {mode!r}{what}; use one of {_words()}")
    return mode


def _fits(pattern: str, module: str) -> bool:
    """Whether ``pattern`` fits the module at this path or one that it is in."""
    if not pattern:
        return True
    parts = module.split(".")
    paths = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return any(path == pattern or fnmatchcase(path, pattern) for path in paths)


def mode_label(given: Iterable[TensorType], read: Iterable[TensorType]) -> str:
    """What a report says of a kernel whose operands are of the types ``given`` and which reads them as those in ``read``: the modes of
    its encoded operands, in parentheses where it reads them decoded; fp32 without any."""
    words = []
    for type, as_read in zip(given, read, strict=True):
        if not type.encoding.is_dense:
            word = _mode_of(type.encoding)
            words.append(word if as_read.encoding == type.encoding else f"({word})")
    return " ".join(dict.fromkeys(words))


def narrow_label(region: Graph) -> str:
    """What a report says of a kernel that computes ``region`` with narrow operands: the mode of its contraction, '' where it has none."""
    for node in region.nodes:
        if lookup(node.op).has(Trait.CONTRACTION) and node.attributes.get("dtype") is DType.INT32:
            return Compute.INT8.value
        if lookup(node.op).has(Trait.CONTRACTION):
            weight = node.inputs[1]
            stored = weight.node.inputs[0] if weight.node is not None and weight.op == "cast" else weight
            if stored.tensor.dtype in _HALVES:
                return _HALVES[stored.tensor.dtype].value
    return ""


def table_label(region: Graph) -> str:
    """What a report says of a kernel that looks up rows of an 8-bit table: the mode of its numbers, '' where it does not."""
    tables = (node.inputs[0].tensor for node in region.nodes if node.op == "take")
    return "w8" if any(type.dtype is DType.INT8 and type.rank == 2 for type in tables) else ""


def _mode_of(encoding: Encoding) -> str:
    """The mode that stores weights like this, else the encoding's own name; of sparse ones the name after the mode of the numbers."""
    if encoding.is_sparse:
        return encoding.name if encoding.values.is_dense else f"{_mode_of(encoding.values)} {encoding.name}"
    placed = dict(encoding.parameters).get("axis", 0)
    assert isinstance(placed, int)
    for mode in MODES.values():
        if mode.weights is not None and mode.weights(WeightAxes(placed, placed)) == encoding:
            return mode.name
    return encoding.name
