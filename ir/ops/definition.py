"""What an operation is: its signature, type inference, NumPy reference, cost and decomposition, in one place."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

import numpy as np

from ...errors import TypeInferenceError
from ..encodings import SCHEMES, scheme_of
from ..types import DENSE, TensorType, Type
from .attributes import AXES, AXIS, FLOAT, NOT_NEGATIVE, USUAL, AttributeKind, is_attribute, plain

if TYPE_CHECKING:
    from ..graph import Attribute, Graph, GraphBuilder, Node, Value

Attributes: TypeAlias = "Mapping[str, Any]"
Infer: TypeAlias = Callable[[Sequence[TensorType], Attributes], "TensorType | tuple[TensorType, ...]"]
Reference: TypeAlias = Callable[[Sequence[np.ndarray], Attributes], "np.ndarray | tuple[np.ndarray, ...]"]
Flops: TypeAlias = Callable[[Sequence[TensorType], Attributes, Sequence[TensorType]], int]
Decompose: TypeAlias = "Callable[[GraphBuilder, Sequence[Value], Attributes], Value]"


class _Required(enum.Enum):
    REQUIRED = "required"


REQUIRED: Final = _Required.REQUIRED
"""Marks an attribute that has no default."""


class Trait(enum.Enum):
    """What passes and templates may assume of an operation."""

    ELEMENTWISE = enum.auto()
    """Each output element depends on the same element of every (broadcast) operand."""
    COMMUTATIVE = enum.auto()
    VIEW = enum.auto()
    """Output elements are input elements at other indices; computes nothing."""
    REDUCTION = enum.auto()
    """Combines many elements of a tensor into one."""
    CONTRACTION = enum.auto()
    """Multiplies and sums: matmul, convolution, attention."""
    NORMALISATION = enum.auto()
    """Statistics over some axes, then elementwise: softmax, norms."""
    SOURCE = enum.auto()
    """Has no operands: constant, iota, full."""
    CONTROL = enum.auto()
    """Decides at run time which of its regions run, and how often: cond, while, loop."""
    STATE = enum.auto()
    """Reads or writes a mutable buffer: must stay in the order its tokens say."""


@dataclass(frozen=True)
class Cost:
    """Work of one node: floating-point operations, bytes its operands and results occupy."""

    flops: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Op:
    """The definition of one operation.

    ``operands`` names the operands; a trailing ``?`` marks one that may be left out (only at the end), a trailing ``*`` any number.
    ``attributes`` gives each attribute's default or :data:`REQUIRED`. ``reference`` gets arrays in which every float is float64
    (integers and booleans keep their dtype) and may return wider results than the inferred type; the interpreter rounds them.
    ``decompose`` expresses the operation by simpler ones. ``kinds`` says which values attributes take where that differs from
    :data:`~mlc.ir.ops.attributes.USUAL`. ``reads`` counts the bytes read from the operands where that is not all of each.

    Inference ignores encodings (operands count as dense) and yields dense results: like a layout, an encoding says how a value is
    stored, not which value it is, and is given to a result explicitly.
    """

    name: str
    operands: tuple[str, ...]
    infer: Infer
    reference: Reference
    flops: Flops
    attributes: Mapping[str, Any] = field(default_factory=dict)
    traits: frozenset[Trait] = frozenset()
    decompose: Decompose | None = None
    doc: str = ""
    kinds: Mapping[str, AttributeKind] = field(default_factory=dict)
    reads: Flops | None = None

    def kind_of(self, attribute: str) -> AttributeKind | None:
        """Which values ``attribute`` takes; None when that is not declared."""
        return self.kinds.get(attribute) or USUAL.get(attribute)

    def complete_attributes(self, given: Mapping[str, Attribute]) -> dict[str, Attribute]:
        """``given`` in the order of the definition, defaults filled in, sequences as tuples, integers as floats where floats are meant.

        TypeInferenceError for a missing or unknown attribute.
        """
        unknown = sorted(set(given) - set(self.attributes))
        if unknown:
            raise TypeInferenceError(f"{self.name} has no attribute '{unknown[0]}' (it has: {', '.join(self.attributes) or 'none'})")
        complete: dict[str, Attribute] = {}
        for name, default in self.attributes.items():
            value = given.get(name, default)
            if value is REQUIRED:
                raise TypeInferenceError(f"{self.name} needs the attribute '{name}'")
            value = plain(value)
            if type(value) is int and self.kind_of(name) in (FLOAT, NOT_NEGATIVE):
                value = float(value)
            complete[name] = value
        return complete

    def normalise_axes(self, attributes: Mapping[str, Attribute], inputs: Sequence[Type]) -> dict[str, Attribute]:
        """``attributes`` with axes that count from the end of the first operand (-1 is the last) counted from the front."""
        normal = dict(attributes)
        if not inputs or not isinstance(inputs[0], TensorType):
            return normal
        rank = inputs[0].rank
        for name, value in attributes.items():
            kind = self.kind_of(name)
            if kind is AXIS and type(value) is int:
                normal[name] = normalise_axis(self.name, value, rank)
            elif kind is AXES and isinstance(value, tuple):
                normal[name] = tuple(normalise_axis(self.name, axis, rank) for axis in value if isinstance(axis, int))
        return normal

    def check_attributes(self, attributes: Attributes) -> None:
        """TypeInferenceError unless exactly the defined attributes are there, each with a value of its kind."""
        if attributes.keys() != self.attributes.keys():
            self.complete_attributes(attributes)
            missing = ", ".join(sorted(set(self.attributes) - set(attributes)))
            raise TypeInferenceError(f"{self.name} lacks the attributes {missing}")
        for name, value in attributes.items():
            kind = self.kind_of(name)
            if not (kind.accept(value) if kind is not None else is_attribute(value)):
                wanted = kind.description if kind is not None else "a value that the text form can hold"
                raise TypeInferenceError(f"{self.name}: attribute '{name}' is {value!r}, it must be {wanted}")

    @overload
    def infer_types(
        self, inputs: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph] = ()
    ) -> tuple[TensorType, ...]: ...

    @overload
    def infer_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph] = ()) -> tuple[Type, ...]: ...

    def infer_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph] = ()) -> tuple[Type, ...]:
        """Result types for operands of these types; TypeInferenceError when operands, attributes or regions do not fit.

        Only operations that take tokens yield tokens.
        """
        self.check_attributes(attributes)
        return self.result_types(inputs, attributes, regions)

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        """What :meth:`infer_types` does once the attributes are checked; operations over tokens or regions override it."""
        if regions:
            raise TypeInferenceError(f"{self.name} takes no regions")
        tensors = [type if type.encoding.is_dense else type.with_encoding(DENSE) for type in self.check_operands(inputs)]
        result = self.infer(tensors, attributes)
        return result if isinstance(result, tuple) else (result,)

    def check_results(self, inferred: Sequence[Type], types: Sequence[Type]) -> None:
        """TypeInferenceError unless ``types`` are the ``inferred`` ones but for layout and encoding."""
        if len(inferred) != len(types):
            raise TypeInferenceError(f"{self.name} yields {len(inferred)} results, {len(types)} types are given")
        for expected, type in zip(inferred, types, strict=True):
            if not self.result_fits(expected, type):
                raise TypeInferenceError(f"{self.name} yields {expected}, not {type}")

    def result_fits(self, inferred: Type, type: Type) -> bool:
        """Whether a result that is ``inferred`` may have ``type``: the same dtype and shape; layout and encoding are free."""
        if isinstance(inferred, TensorType) and isinstance(type, TensorType):
            return inferred.dtype is type.dtype and inferred.shape == type.shape
        return inferred == type

    def check_operands(self, inputs: Sequence[Type]) -> list[TensorType]:
        """The operand types, after checking their number and that they are tensors."""
        variadic = bool(self.operands) and self.operands[-1].endswith("*")
        fewest = sum(not name.endswith(("?", "*")) for name in self.operands)
        most = math.inf if variadic else len(self.operands)
        if not fewest <= len(inputs) <= most:
            raise TypeInferenceError(f"{self.name}({', '.join(self.operands)}) got {len(inputs)} operands")
        tensors = []
        for name, type in zip([*self.operands, *[self.operands[-1]] * len(inputs)] if variadic else self.operands, inputs, strict=False):
            if not isinstance(type, TensorType):
                raise TypeInferenceError(f"operand '{name}' of {self.name} is a {type}, not a tensor")
            tensors.append(type)
        return tensors

    def evaluate(self, inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
        """The reference results, floats in float64."""
        wide = [array.astype(np.float64) if _is_float(array) else array for array in inputs]
        with np.errstate(all="ignore"):
            result = self.reference(wide, attributes)
        return result if isinstance(result, tuple) else (result,)

    def cost(self, inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> Cost:
        """Work of the operation on operands and results of these (static) types."""
        return Cost(
            self.flops(inputs, attributes, outputs),
            self.reads(inputs, attributes, outputs) if self.reads is not None else tensor_bytes(inputs),
            tensor_bytes(outputs),
        )

    def cost_of_node(self, node: Node) -> Cost:
        """Work of a (statically shaped) node; a token costs nothing by itself."""
        inputs, outputs = ([value.type for value in values if isinstance(value.type, TensorType)] for values in (node.inputs, node.outputs))
        return self.cost(inputs, node.attributes, outputs)

    def has(self, trait: Trait) -> bool:
        return trait in self.traits


def _is_float(array: np.ndarray) -> bool:
    # Those of ml_dtypes are no subtypes of np.floating.
    return array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


_REGISTRY: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Adds ``op`` to the registry; each name exists once."""
    if op.name in _REGISTRY:
        raise ValueError(f"operation '{op.name}' is defined twice")
    _REGISTRY[op.name] = op
    return op


def lookup(name: str) -> Op:
    """The definition of an operation; TypeInferenceError when there is none of that name."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise TypeInferenceError(f"there is no operation '{name}'; the operations are those of mlc.ir.ops") from None


def registry() -> Mapping[str, Op]:
    """All operations by name."""
    return dict(_REGISTRY)


def elements_written(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    """One operation per result element: the cost of most elementwise operations."""
    return sum(type.elements for type in outputs)


def no_flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    """The cost of operations that only move data."""
    return 0


def tensor_bytes(types: Sequence[TensorType]) -> int:
    """Bytes of the logical elements of (static) types; of encoded ones those of codes and scales."""
    return sum(
        scheme_of(type.encoding).nbytes(type.static_shape) if type.encoding.name in SCHEMES else type.elements * type.dtype.nbytes
        for type in types
    )


def reads_what_it_writes(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    """Bytes read by operations that pick some elements of their first operand: those elements, and the other operands (indices)."""
    return tensor_bytes(outputs) + tensor_bytes(inputs[1:])


def require(condition: bool, op: str, message: str) -> None:
    """TypeInferenceError ``op: message`` unless ``condition``."""
    if not condition:
        raise TypeInferenceError(f"{op}: {message}")


def normalise_axis(op: str, axis: int, rank: int) -> int:
    """``axis`` counted from the front; TypeInferenceError when out of range."""
    require(-rank <= axis < rank, op, f"axis {axis} is out of range for rank {rank}")
    return axis % rank
