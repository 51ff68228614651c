"""The frame of a kernel: its pointer parameters, buffers over them, and the finished TIR function."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tvm import tirx
from tvm.ir import PointerType, PrimType

from ...errors import LoweringError
from ...ir import Dim, DType, Graph, Layout, TensorType, Value, product
from ..constant_layout import ConstantForm, ConstantLayout
from . import halves, vector_functions
from .access import layout_offset
from .emitter import Emitter, Expr, bytes_of, truth_as
from .extent import extent_of, is_dim, size_parameter
from .llvm_functions import with_functions
from .streaming import stream_functions, stream_store

_STORAGE = {
    DType.BOOL: "uint8",
    DType.UINT8: "uint8",
    DType.INT8: "int8",
    DType.INT16: "int16",
    DType.INT32: "int32",
    DType.INT64: "int64",
    DType.FLOAT32: "float32",
    DType.FLOAT64: "float64",
    **halves.STORAGE,
}

MOST_ELEMENTS = 2**31
"""A tensor must have less: offsets are 32-bit integers."""


def storage_dtype(dtype: DType) -> str:
    """How elements lie in memory, as a TIR dtype; LoweringError for types that kernels do not compute with yet."""
    try:
        return _STORAGE[dtype]
    except KeyError:
        raise LoweringError(f"kernels cannot compute with {dtype.text} yet; use {', '.join(sorted(d.text for d in _STORAGE))}") from None


def compute_dtype(dtype: DType) -> str:
    """The TIR dtype of an element once loaded."""
    return "bool" if dtype is DType.BOOL else storage_dtype(halves.arithmetic(dtype))


def computes(dtype: DType) -> bool:
    """Whether kernels can compute with ``dtype``."""
    return dtype in _STORAGE


class Kernel:
    """A kernel under construction for the region ``graph``.

    Parameters are the graph's inputs, its outputs, a workspace of ``workspace_bytes`` if that is not zero, then the value of each
    symbol of the graph. ``layouts`` says of inputs that are stored otherwise than their type says (packed constants) how; what is stored
    in a form of its own is read by :meth:`part`. Outputs in ``streamed`` (of fp32) are stored past the caches. Emit statements through
    ``emitter``, then take :meth:`finish`.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        workspace_bytes: Dim = 0,
        layouts: Mapping[int, ConstantLayout] | None = None,
        streamed: Collection[int] = (),
    ) -> None:
        self.graph = graph
        self._streamed = frozenset(streamed)
        self._stream_widths: set[int] = set()
        self._functions: dict[str, str] = {}
        self.emitter = Emitter()
        self.emitter.declare_symbols(graph.symbols)
        self._parameters: list[Any] = []
        self._declarations: list[Any] = []
        self._layouts = dict(layouts or {})
        self.inputs: dict[Value, Any] = {}
        self._input_layouts: dict[Value, ConstantLayout] = {}
        self._pointers: dict[Value, Any] = {}
        for position, value in enumerate(graph.inputs):
            layout = self._layouts.get(position, value.tensor.layout)
            self._input_layouts[value] = layout
            self.inputs[value] = self._parameter(f"in{position}", value.tensor, layout)
            self._pointers[value] = self._parameters[-1]
        self.outputs: list[Any] = [self._parameter(f"out{position}", value.tensor) for position, value in enumerate(graph.outputs)]
        self.workspace_bytes = workspace_bytes
        self._workspace = None
        if workspace_bytes != 0:
            self._workspace = self._pointer("workspace", "float32")

    def load(self, value: Value, indices: Sequence[Expr]) -> Expr:
        """The element of a graph input at logical ``indices``, in its compute dtype."""
        type = value.tensor
        layout = self._input_layouts[value]
        if not isinstance(layout, Layout):
            raise LoweringError(f"%{value.name} is stored as {layout}, which has no elements of its own")
        offset = layout_offset(layout, type.shape, indices)
        return from_storage(self.emitter.load(self.inputs[value], offset), type.dtype)

    def store(self, position: int, indices: Sequence[Expr], value: Expr) -> None:
        """Stores an element of output ``position`` at logical ``indices``."""
        type = self.graph.outputs[position].tensor
        offset = layout_offset(type.layout, type.shape, indices)
        stored = to_storage(self.emitter, value, type.dtype)
        if position in self._streamed and (lanes := self.emitter.vector_store(self.outputs[position], stored, offset, stream_store)):
            self._stream_widths.add(lanes)
            return
        self.emitter.store(self.outputs[position], stored, offset)

    def workspace(self, count: Dim, dtype: str, byte_offset: Dim = 0, name: str = "scratch") -> Any:
        """A flat buffer of ``count`` elements over the workspace from ``byte_offset`` (a multiple of 64) on.

        LoweringError when it does not fit.
        """
        nbytes = count * bytes_of(dtype)
        fits = is_dim(self.workspace_bytes) or (byte_offset + nbytes <= self.workspace_bytes and byte_offset % 64 == 0)
        if self._workspace is None or not fits:
            raise LoweringError(f"{nbytes} bytes at {byte_offset} do not fit a workspace of {self.workspace_bytes} bytes")
        return self._view(self._workspace, extent_of(self.workspace_bytes) // 4, extent_of(byte_offset) // 4, count, dtype, name)

    def part(self, value: Value, dtype: str, word: int, count: int, name: str = "part") -> Any:
        """A flat buffer of ``count`` elements over an input that is stored in a form of its own, from the 4-byte ``word`` (a multiple of
        16) on."""
        return self._view(self._pointers[value], word + 1, word, count, dtype, name)

    def declare_functions(self, functions: Mapping[str, str]) -> None:
        """Adds functions, by name, that the kernel calls: definitions in LLVM's language."""
        self._functions.update(functions)

    def finish(self) -> Any:
        """The TIR function: returns 0 after the emitted statements."""
        functions = {**self._functions, **stream_functions(self._stream_widths)}
        body = [*self._declarations, with_functions(self.emitter.finish(), functions), tirx.Return(tirx.IntImm("int32", 0))]
        sizes = [size_parameter(name) for name in self.graph.symbols]
        function = tirx.PrimFunc([*self._parameters, *sizes], tirx.SeqStmt(body), ret_type=PrimType("int32"))
        return vector_functions.marked(function, self.emitter.vector_calls)

    def _pointer(self, name: str, dtype: str) -> Any:
        pointer = tirx.Var(name, PointerType(PrimType(dtype)))
        self._parameters.append(pointer)
        return pointer

    def _parameter(self, name: str, type: TensorType, layout: ConstantLayout | None = None) -> Any:
        if isinstance(layout, ConstantForm):
            return self._pointer(f"{name}_pointer", "float32")
        count = product((layout or type.layout).physical_shape(type.shape))
        # Symbolic ones are looked at when the program is called.
        if not is_dim(count) and count >= MOST_ELEMENTS:
            raise LoweringError(f"{type} has {count} elements; kernels address less than 2**31")
        return self._buffer(name, count, storage_dtype(type.dtype))

    def _buffer(self, name: str, count: Dim, dtype: str) -> Any:
        """A buffer of ``count`` elements over a parameter of its own."""
        pointer = self._pointer(f"{name}_pointer", dtype)
        extent = extent_of(count) if is_dim(count) else max(count, 1)
        buffer = tirx.decl_buffer((extent,), dtype, name=name, data_alignment=64)
        self._declarations.append(tirx.DeclBuffer(buffer, data=pointer))
        return buffer

    def _view(self, pointer: Any, size: Expr | int, offset: Expr | int, count: Dim, dtype: str, name: str) -> Any:
        """A flat buffer over a part of what ``pointer`` points to: ``count`` elements from element ``offset`` on, of ``size`` in all."""
        pointer_dtype = str(pointer.ty.element_type.dtype)
        whole = tirx.decl_buffer((size,), pointer_dtype, name=self.emitter.fresh("whole"), data_alignment=64)
        buffer = tirx.decl_buffer((extent_of(count),), dtype, name=self.emitter.fresh(name), data_alignment=64)
        self._declarations.append(tirx.DeclBuffer(whole, data=pointer))
        address = tirx.address_of(tirx.BufferLoad(whole, [tirx.IntImm("int32", offset) if isinstance(offset, int) else offset]))
        if dtype != pointer_dtype:
            address = tirx.reinterpret(PointerType(PrimType(dtype)), address)
        self._declarations.append(tirx.DeclBuffer(buffer, data=address))
        return buffer


def from_storage(value: Expr, dtype: DType) -> Expr:
    """A loaded element as it is computed with: booleans are stored as bytes, numbers of 16 bits widen to fp32."""
    if dtype in halves.HALVES:
        return halves.loaded(value, dtype)
    return tirx.NE(value, tirx.const(0, "uint8")) if dtype is DType.BOOL else value


def to_storage(emitter: Emitter, value: Expr, dtype: DType) -> Expr:
    """A computed element as it is stored."""
    if dtype in halves.HALVES:
        return halves.stored(emitter.bind, value, dtype)
    return truth_as(value, "uint8") if dtype is DType.BOOL else value
