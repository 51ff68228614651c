"""Kernels as C99 functions, printed from lowered TIR."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.tirx import transform

from ...errors import LoweringError
from .expressions import Expressions, c_type, dtype_of, flat_index

STACK_LIMIT = 512
"""Bytes of a local array above which it lies in the kernel's workspace: microcontrollers have a stack of a few kilobytes."""

_ALIGNMENT = 8


@dataclass(frozen=True)
class CKernel:
    """A kernel in C99: a static function ``int32_t symbol(parameters)``.

    ``parameters`` are the C types that the pointers point to, the workspace's (``char``) included; ``helpers`` the functions of
    ``expressions.REINTERPRET`` that it calls; ``stack_bytes`` the size of its local arrays.
    """

    symbol: str
    parameters: tuple[str, ...]
    text: str
    helpers: tuple[str, ...]
    workspace_bytes: int
    stack_bytes: int

    def encode(self) -> bytes:
        """As bytes, for the cache of compiled kernels."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(content: bytes) -> CKernel:
        fields = json.loads(content)
        return CKernel(**{**fields, "parameters": tuple(fields["parameters"]), "helpers": tuple(fields["helpers"])})


def kernel_source(function: Any, symbol: str, workspace_bytes: int) -> CKernel:
    """``function`` as C. LoweringError for what C99 cannot say.

    A kernel with ``workspace_bytes`` takes its workspace as the last parameter; large local arrays are put behind it.
    """
    return _Printer(_lowered(function, symbol), symbol, workspace_bytes).kernel()


def _lowered(function: Any, symbol: str) -> Any:
    """After intrinsic lowering and unrolling. Loops to be vectorised stay loops: the C compiler has vectors, if there are any."""
    device = tvm.target.Target({"kind": "c"})
    module = tvm.IRModule({symbol: function.with_attr({"global_symbol": symbol, "tirx.noalias": True})})
    passes = tvm.ir.transform.Sequential([transform.BindTarget(device.with_host(device)), transform.LowerIntrin(), transform.UnrollLoop()])
    with tvm.transform.PassContext(opt_level=3, config={"tirx.UnrollLoop": {"auto_max_step": 0, "explicit_unroll": True}}):
        return passes(module)[symbol]


@dataclass(frozen=True)
class _Line:
    """A line of C, and the variable or array that it defines or stores to, if that is all it does."""

    text: str
    defines: str = ""


class _Printer:
    """One function on its way to text. Names are looked up by the identity of variables and buffers."""

    def __init__(self, function: Any, symbol: str, workspace_bytes: int) -> None:
        self._function = function
        self._symbol = symbol
        self._lines: list[_Line] = []
        self._depth = 1
        self._known: dict[int, list[tuple[Any, str]]] = {}
        self._taken: set[str] = {"workspace_memory"}
        self._index_variables: set[str] = set()
        self._has_workspace = bool(workspace_bytes)
        self._workspace = -(-workspace_bytes // _ALIGNMENT) * _ALIGNMENT
        self._stack = 0
        self._written: set[str] = set()
        self._expressions = Expressions(self._name, lambda variable: self._name(variable) in self._index_variables)

    def kernel(self) -> CKernel:
        parameters = list(self._function.params)
        types = [c_type(str(parameter.ty.element_type.dtype)) for parameter in parameters]
        names = [self._declare(parameter, parameter.name.removesuffix("_pointer")) for parameter in parameters]
        self._statement(self._function.body)
        body = [line.text for line in _without_unread(self._lines)]
        const = ["" if name in self._written else "const " for name in names]
        head = []
        if self._has_workspace:
            types[-1] = "char"
            memory = names.pop()
            if _mentions(body, memory):
                head.append(f"  float* const {memory} = (float*)workspace_memory;")
        elif self._workspace:
            types.append("char")
        declared = [f"{qualifier}{type}* restrict {name}" for qualifier, type, name in zip(const, types, names, strict=False)]
        if self._workspace:
            names.append("workspace_memory")
            declared.append("void* restrict workspace_memory")
        unused = [f"  (void){name};" for name in names if not _mentions([*head, *body], name)]
        lines = [f"static int32_t {self._symbol}({', '.join(declared) or 'void'}) {{", *unused, *head, *body, "}"]
        helpers = tuple(sorted(self._expressions.helpers))
        return CKernel(self._symbol, tuple(types), "\n".join(lines), helpers, self._workspace, self._stack)

    def _declare(self, thing: Any, wanted: str) -> str:
        """A C name of its own for a variable or a buffer."""
        name = re.sub(r"\W", "_", wanted)
        while name in self._taken:
            name += "_"
        return self._call(thing, name)

    def _call(self, thing: Any, name: str) -> str:
        self._taken.add(name)
        self._known.setdefault(hash(thing), []).append((thing, name))
        return name

    def _name(self, thing: Any) -> str:
        for known, name in self._known.get(hash(thing), ()):
            if known.same_as(thing):
                return name
        raise LoweringError(f"'{thing}' is used outside of the scope that defines it")

    def _emit(self, line: str, defines: str = "") -> None:
        self._lines.append(_Line("  " * self._depth + line, defines))

    def _block(self, head: str, body: Any) -> None:
        self._emit(f"{head} {{")
        self._depth += 1
        self._statement(body)
        self._depth -= 1
        self._emit("}")

    def _statement(self, statement: Any) -> None:
        text = self._expressions.text
        if isinstance(statement, tirx.SeqStmt):
            self._sequence(list(statement.seq))
        elif isinstance(statement, tirx.For):
            name = self._declare(statement.loop_var, statement.loop_var.name)
            self._index_variables.add(name)
            low, extent = text(statement.min), text(statement.extent)
            high = extent if low == "0" else str(int(low) + int(extent)) if low.isdigit() and extent.isdigit() else f"({low}) + ({extent})"
            self._block(f"for (int32_t {name} = {low}; {name} < {high}; ++{name})", statement.body)
        elif isinstance(statement, tirx.IfThenElse):
            self._block(f"if ({text(statement.condition)})", statement.then_case)
            if statement.else_case is not None:
                self._block("else", statement.else_case)
        elif isinstance(statement, tirx.BufferStore):
            name = self._name(statement.buffer)
            self._written.add(name)
            self._emit(f"{name}[{text(flat_index(statement))}] = {text(statement.value)};", name)
        elif isinstance(statement, tirx.Bind):
            index = dtype_of(statement.var) == "int32" and self._expressions.indexes(statement.value)
            value = text(statement.value)
            name = self._declare(statement.var, statement.var.name)
            if index:
                self._index_variables.add(name)
            self._emit(f"const {c_type(dtype_of(statement.var))} {name} = {value};", name)
        elif isinstance(statement, tirx.DeclBuffer):
            self._view(statement)
        elif isinstance(statement, tirx.AllocBuffer):
            self._allocate(statement.buffer)
        elif isinstance(statement, tirx.AttrStmt):
            self._statement(statement.body)
        elif isinstance(statement, tirx.Return):
            self._emit(f"return {text(statement.value)};")
        elif isinstance(statement, tirx.Evaluate):
            if not isinstance(statement.value, tirx.IntImm):
                self._emit(f"{text(statement.value)};")
        else:
            raise LoweringError(f"there is no C99 for the statement {type(statement).__name__}")

    def _sequence(self, statements: list[Any]) -> None:
        """Statements in order. What the emitter binds by way of memory, for the sake of TVM's analyzer, is bound directly."""
        position = 0
        while position < len(statements):
            bound = _bound_through_memory(statements[position : position + 3])
            self._statement(bound or statements[position])
            position += 3 if bound is not None else 1

    def _view(self, declaration: Any) -> None:
        """A buffer over a parameter has the parameter's name; one over a part of the workspace is a pointer of its own."""
        buffer, data = declaration.buffer, declaration.data
        if isinstance(data, tirx.Var):
            self._call(buffer, self._name(data))
            return
        name = self._declare(buffer, buffer.name)
        self._emit(f"{c_type(str(buffer.dtype))}* const {name} = {self._expressions.text(data)};", name)

    def _allocate(self, buffer: Any) -> None:
        dtype = str(buffer.dtype)
        type, count = c_type(dtype), int(buffer.shape[0])
        nbytes = count * (int(re.sub(r"\D", "", dtype)) // 8 if dtype != "bool" else 4)
        name = self._declare(buffer, buffer.name)
        if nbytes <= STACK_LIMIT:
            self._stack += nbytes
            self._emit(f"{type} {name}[{count}];", name)
            return
        self._emit(f"{type}* const {name} = ({type}*)(void*)((char*)workspace_memory + {self._workspace});", name)
        self._workspace += -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _bound_through_memory(statements: Sequence[Any]) -> Any | None:
    """``x = value`` for the statements ``t[1]; t[0] = value; x = t[0]``, else None (see ``Emitter.bind``)."""
    if len(statements) < 3:
        return None
    alloc, store, bind = statements
    if not (isinstance(alloc, tirx.AllocBuffer) and isinstance(store, tirx.BufferStore) and isinstance(bind, tirx.Bind)):
        return None
    load = bind.value
    same = isinstance(load, tvm.ir.TensorLoad) and load.source.same_as(alloc.buffer) and store.buffer.same_as(alloc.buffer)
    return tirx.Bind(bind.var, store.value) if same and int(alloc.buffer.shape[0]) == 1 else None


def _mentions(lines: Sequence[str], name: str) -> bool:
    return any(re.search(rf"\b{name}\b", line) for line in lines)


def _without_unread(lines: list[_Line]) -> list[_Line]:
    """The lines without those that define what no other line reads (the C compiler would warn); expressions have no effects."""
    while True:
        reads = Counter(word for line in lines for word in _WORD.findall(line.text))
        for line in lines:
            reads[line.defines] -= 1
        parameters = {line.defines for line in lines} - {line.defines for line in lines if _DECLARATION.match(line.text)}
        kept = [line for line in lines if not line.defines or line.defines in parameters or reads[line.defines] > 0]
        if len(kept) == len(lines):
            return lines
        lines = kept


_WORD = re.compile(r"[A-Za-z_]\w*")
_DECLARATION = re.compile(r"\s*(const )?\w+(\* const)? \w+(\[\d+\]| =)")
