"""Assembly: from a graph of fused nodes to a program with its native library and packed weights."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import Error, LoweringError
from ..ir import Constant, DerivedConstant, Graph, GraphBuilder, Layout, Node, TensorType, Value, canonicalise, is_alias, lookup, node_cost
from ..ir.program import ALIGNMENT, BufferRef, ConstantSlot, KernelCall, Program, Signature, Space
from .build import CompiledKernel, cache_directory, compile_kernel, in_parallel, link_library, versions
from .entry import ENTRY, entry_source
from .memory_plan import Lifetime, MemoryPlan, aligned, plan_memory
from .space import Config
from .space import Space as ConfigSpace
from .target import Target
from .task import Numerics, Task
from .template import Template
from .templates import template_for

Choose: TypeAlias = "Callable[[Task, Template, ConfigSpace], Config]"
"""Picks the config of a task: from the database, by the cost model, or the default."""

Progress: TypeAlias = "Callable[[int, int, str], None]"
"""Told (kernels done, kernels in all, label) as kernels are compiled."""


@dataclass(frozen=True)
class Assembled:
    """A program and its two blobs: path of the native library, bytes of the packed constants (aligned)."""

    program: Program
    library: pathlib.Path
    weights: np.ndarray


@dataclass(frozen=True)
class KernelNode:
    """A kernel call to be: the fused node, its task and the template that takes it."""

    node: Node
    task: Task
    template: Template


def assemble(
    graph: Graph,
    target: Target,
    signature: Signature,
    choose: Choose,
    *,
    threads: int | None = None,
    numerics: Numerics = Numerics.FAST,
    name: str = "model",
    progress: Progress | None = None,
) -> Assembled:
    """Compiles every node of ``graph`` and lays out its memory.

    Top-level nodes are fusions, constants, views that cost nothing (aliases), or single operations, which are wrapped. LoweringError,
    with the user's source line, when no template takes a node; BuildError when the tool chain fails.
    """
    graph = _with_output_copies(graph)
    _require_static(graph)
    constants = _constants(graph)
    kernels = kernel_nodes(graph, target, threads or target.threads, numerics, constants)
    compiled = _compile(kernels, choose, progress)
    binding = _bind(graph, kernels, compiled, constants)
    library = _link(binding.calls, [compiled[kernel.task.key][1] for kernel in kernels], len(graph.inputs))
    program = Program(
        name=name,
        signature=signature,
        calls=binding.calls,
        constants=binding.slots,
        constant_bytes=binding.weights.nbytes,
        arena_bytes=binding.plan.nbytes,
        arena_lower_bound=binding.plan.lower_bound,
        target=str(target),
        features=target.features,
        threads=threads or target.threads,
        entry=ENTRY,
    )
    return Assembled(program, library, binding.weights)


def tasks_of(graph: Graph, target: Target, *, threads: int | None = None, numerics: Numerics = Numerics.FAST) -> list[KernelNode]:
    """The kernel calls that :func:`assemble` would compile for ``graph``, in order: what there is to tune."""
    graph = _with_output_copies(graph)
    _require_static(graph)
    return kernel_nodes(graph, target, threads or target.threads, numerics, _constants(graph))


def kernel_nodes(graph: Graph, target: Target, threads: int, numerics: Numerics, constants: Mapping[Value, Constant]) -> list[KernelNode]:
    """A task and a template for every top-level node that needs a kernel; LoweringError that lists all nodes without one."""
    kernels, refused = [], []
    for node in graph.nodes:
        if node.op == "constant" or _is_free(node, constants):
            continue
        region = canonicalise(node.regions[0] if node.op == "fusion" else _wrapped(node))
        template = template_for(region)
        if template is None:
            refused.append(f"  {label_of(node)} ({node.location}) on {', '.join(str(value.type) for value in node.inputs)}")
            continue
        constant_inputs = frozenset(position for position, value in enumerate(node.inputs) if value in constants)
        kernels.append(KernelNode(node, Task(region, constant_inputs, target, threads, numerics), template))
    if refused:
        raise LoweringError(
            "no kernel template takes these operations; replace them in the model, or compile that part with PyTorch:\n"
            + "\n".join(refused)
        )
    return kernels


def label_of(node: Node) -> str:
    """A short description of a fused node: its computing operations joined by +."""
    if node.op != "fusion":
        return node.op
    ops = [inner.op for inner in node.regions[0].nodes if not _is_plumbing(inner)]
    return "+".join(ops) or "+".join(inner.op for inner in node.regions[0].nodes) or "copy"


def _is_plumbing(node: Node) -> bool:
    return node.op in ("constant", "full", "reshape", "permute", "broadcast_to", "slice", "relayout", "cast")


def _is_free(node: Node, constants: Mapping[Value, Constant]) -> bool:
    """Whether the node needs no kernel: its result shares its operand's memory, is a constant, or has no elements."""
    known = len(node.outputs) == 1 and node.output in constants
    return known or is_alias(node) or all(value.tensor.elements == 0 for value in node.outputs)


def _wrapped(node: Node) -> Graph:
    """A region that computes the single operation ``node``."""
    builder = GraphBuilder(node.op)
    inputs = [builder.input(value.type) for value in node.inputs]
    inner = builder.append(Node(node.op, inputs, node.attributes, [value.type for value in node.outputs], node.regions, node.location))
    return builder.finish(inner.outputs)


def _require_static(graph: Graph) -> None:
    for value in graph.values():
        if not isinstance(value.type, TensorType) or not value.type.is_static:
            where = value.node.location if value.node is not None else "an input of the model"
            raise LoweringError(
                f"%{value.name}: {value.type} ({where}) has no static shape; code is generated for static shapes only: "
                "compile once per shape, without dynamic_shapes"
            )


def _with_output_copies(graph: Graph) -> Graph:
    """``graph`` with a copy for every output that no kernel can write in place: an input, a constant, a value returned twice, or
    one that does not lie in memory in row-major order."""
    claimed: set[Value] = set()
    copies: list[Node] = []
    outputs: list[Value] = []
    for value in graph.outputs:
        root = _root(value)
        writable = root.node is not None and root.node.op != "constant" and root not in claimed and _lies_row_major(value)
        if writable:
            claimed.add(root)
            outputs.append(value)
            continue
        builder = GraphBuilder("copy")
        operand = builder.input(value.type)
        region = builder.finish([builder.add("relayout", operand, types=[value.tensor.with_layout(None)]).output])
        location = value.node.location if value.node is not None else graph.nodes[0].location if graph.nodes else None
        copy = Node("fusion", [value], {}, [value.tensor.with_layout(None)], [region], *([location] if location else []))
        copy.output.name = f"{value.name}.copy{len(copies)}"
        copies.append(copy)
        outputs.append(copy.output)
    return Graph(graph.inputs, (*graph.nodes, *copies), tuple(outputs), graph.name, graph.symbols)


def _lies_row_major(value: Value) -> bool:
    return value.tensor.layout.is_row_major


def _root(value: Value) -> Value:
    """The value whose buffer ``value`` occupies."""
    while value.node is not None and is_alias(value.node):
        value = value.node.inputs[0]
    return value


def _constants(graph: Graph) -> dict[Value, Constant]:
    """The values known at compile time: constants and views of constants."""
    known: dict[Value, Constant] = {}
    for node in graph.nodes:
        if node.op == "constant":
            value = node.output.constant
            assert value is not None
            known[node.output] = value
        elif node.op in ("reshape", "permute", "relayout") and node.inputs[0] in known:
            known[node.output] = _view_of(node, known[node.inputs[0]])
    return known


def _view_of(node: Node, operand: Constant) -> Constant:
    if node.op == "relayout":
        return operand

    def evaluate() -> np.ndarray:
        result = lookup(node.op).reference([operand.array()], node.attributes)
        return np.asarray(result[0] if isinstance(result, tuple) else result)

    attributes = tuple(sorted(node.attributes.items()))
    return DerivedConstant(node.op, (operand,), attributes, 0, node.output.tensor.with_layout(None), evaluate)


def _compile(kernels: Sequence[KernelNode], choose: Choose, progress: Progress | None) -> dict[str, tuple[Config, CompiledKernel]]:
    """The chosen config and the compiled kernel of every task, by task key."""
    distinct = {kernel.task.key: kernel for kernel in kernels}
    # One after the other: a database connection and a cost model belong to one thread.
    configs = {key: choose(kernel.task, kernel.template, kernel.template.space(kernel.task)) for key, kernel in distinct.items()}
    done = 0

    def compile_one(kernel: KernelNode) -> tuple[Config, CompiledKernel]:
        nonlocal done
        task, template = kernel.task, kernel.template
        config = configs[task.key]
        try:
            key = f"{task.key}|{config}|{template.name}|{template.revision}"
            compiled = compile_kernel(key, task.target, lambda: template.lower(task, config))
        except Error as error:
            raise type(error)(f"{label_of(kernel.node)} ({kernel.node.location}): {error}") from error
        done += 1
        if progress is not None:
            progress(done, len(distinct), label_of(kernel.node))
        return config, compiled

    return dict(zip(distinct, in_parallel(compile_one, distinct.values()), strict=True))


@dataclass(frozen=True)
class _Binding:
    calls: tuple[KernelCall, ...]
    slots: tuple[ConstantSlot, ...]
    weights: np.ndarray
    plan: MemoryPlan


def _bind(
    graph: Graph,
    kernels: Sequence[KernelNode],
    compiled: Mapping[str, tuple[Config, CompiledKernel]],
    constants: Mapping[Value, Constant],
) -> _Binding:
    """Gives every argument of every kernel its place in memory."""
    packed = _PackedConstants()
    places: dict[Value, BufferRef] = {}
    for position, value in enumerate(graph.inputs):
        places[value] = BufferRef(Space.INPUT, position, value.tensor.nbytes)
    for position, value in enumerate(graph.outputs):
        places[_root(value)] = BufferRef(Space.OUTPUT, position, value.tensor.nbytes)
    for value in graph.values():
        if value.tensor.elements == 0:
            places.setdefault(value, BufferRef(Space.ARENA, 0, 0))

    buffers, lifetimes = _lifetimes(kernels, compiled, constants, places)
    plan = plan_memory(lifetimes)
    for (owner, _), offset, lifetime in zip(buffers, plan.offsets, lifetimes, strict=True):
        if isinstance(owner, Value):
            places[owner] = BufferRef(Space.ARENA, offset, lifetime.nbytes)
    workspaces = {
        owner: BufferRef(Space.ARENA, offset, lifetime.nbytes)
        for (owner, _), offset, lifetime in zip(buffers, plan.offsets, lifetimes, strict=True)
        if isinstance(owner, int)
    }

    calls = []
    for index, kernel in enumerate(kernels):
        config, native = compiled[kernel.task.key]
        arguments = []
        for position, value in enumerate(kernel.node.inputs):
            if value in constants:
                layout = native.constant_layouts.get(position, value.tensor.layout)
                arguments.append(packed.place(constants[value], layout))
            else:
                arguments.append(places[_root(value)])
        arguments += [places[value] for value in kernel.node.outputs]
        if index in workspaces:
            arguments.append(workspaces[index])
        cost = node_cost(kernel.node)
        calls.append(
            KernelCall(
                symbol=native.symbol,
                arguments=tuple(arguments),
                label=label_of(kernel.node),
                task=kernel.task.key,
                config=str(config),
                location=str(kernel.node.location),
                flops=cost.flops,
                bytes=cost.bytes_read + cost.bytes_written,
            )
        )
    slots, weights = packed.finish()
    return _Binding(tuple(calls), slots, weights, plan)


def _lifetimes(
    kernels: Sequence[KernelNode],
    compiled: Mapping[str, tuple[Config, CompiledKernel]],
    constants: Mapping[Value, Constant],
    placed: Mapping[Value, BufferRef],
) -> tuple[list[tuple[Value | int, int]], list[Lifetime]]:
    """What needs arena memory, (value, or number of the kernel that needs a workspace; bytes), and when each is alive."""
    last_use: dict[Value, int] = {}
    for index, kernel in enumerate(kernels):
        for value in kernel.node.inputs:
            last_use[_root(value)] = index
    buffers: list[tuple[Value | int, int]] = []
    lifetimes = []
    for index, kernel in enumerate(kernels):
        for value in kernel.node.outputs:
            if value not in placed and value not in constants:
                buffers.append((value, value.tensor.nbytes))
                lifetimes.append(Lifetime(max(value.tensor.nbytes, 1), index, max(last_use.get(value, index), index)))
        workspace = compiled[kernel.task.key][1].workspace_bytes
        if workspace:
            buffers.append((index, workspace))
            lifetimes.append(Lifetime(workspace, index, index))
    return buffers, lifetimes


class _PackedConstants:
    """The weights blob under construction: each constant once per layout."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, Layout], tuple[Constant, int, int]] = {}
        self._end = 0

    def place(self, constant: Constant, layout: Layout) -> BufferRef:
        key = (constant.digest, layout)
        if key not in self._entries:
            nbytes = max(constant.type.with_layout(layout).nbytes, 1)
            self._entries[key] = (constant, self._end, nbytes)
            self._end += aligned(nbytes)
        _, offset, nbytes = self._entries[key]
        return BufferRef(Space.CONSTANT, offset, nbytes)

    def finish(self) -> tuple[tuple[ConstantSlot, ...], np.ndarray]:
        """The slots, and the blob: an aligned array of bytes."""
        storage = np.empty(self._end + ALIGNMENT, dtype=np.uint8)
        start = -storage.ctypes.data % ALIGNMENT
        blob = storage[start : start + self._end]

        def pack(item: tuple[tuple[str, Layout], tuple[Constant, int, int]]) -> ConstantSlot:
            (_, layout), (constant, offset, nbytes) = item
            data = layout.pack(constant.array()).reshape(-1).view(np.uint8)
            blob[offset : offset + data.nbytes] = data
            blob[offset + data.nbytes : offset + aligned(nbytes)] = 0
            return ConstantSlot(offset, nbytes, hashlib.sha256(blob[offset : offset + nbytes].data).hexdigest())

        slots = in_parallel(pack, self._entries.items())
        return tuple(slots), blob


def _link(calls: Sequence[KernelCall], kernels: Sequence[CompiledKernel], inputs: int) -> pathlib.Path:
    """The shared library of the program, in the cache under the hash of what it is made of."""
    source = entry_source(calls, inputs)
    distinct: dict[str, CompiledKernel] = {kernel.symbol: kernel for kernel in kernels}
    name = hashlib.sha256("|".join([versions(), source, *distinct]).encode()).hexdigest()[:32]
    folder = cache_directory() / "programs"
    path = folder / f"{name}.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mlc-"))
        path = folder / f"{name}.so"
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", suffix=".so", delete=False) as file:
        temporary = pathlib.Path(file.name)
    link_library([kernel.object for kernel in distinct.values()], {"entry.c": source}, [ENTRY], temporary)
    os.replace(temporary, path)
    return path
