"""Assembly: from a graph of fused nodes to a program with its native library and packed weights."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import Error, LoweringError
from ..ir import Graph, GraphBuilder, Node, TensorType, Value
from ..ir.program import Program, Signature, Step
from .binding import bind, root_of
from .build import CompiledKernel, cache_directory, compile_kernel, in_parallel, link_library, versions
from .entry import ENTRY, entry_source
from .kernels import KernelNode, control_walk, kernel_nodes, known_constants, label_of
from .space import Config, Space
from .target import Target
from .task import Numerics, Task
from .template import Template

Choose: TypeAlias = "Callable[[Task, Template, Space], Config]"
"""Picks the config of a task: from the database, by the cost model, or the default."""

Progress: TypeAlias = "Callable[[int, int, str], None]"
"""Told (kernels done, kernels in all, label) as kernels are compiled."""


@dataclass(frozen=True)
class Assembled:
    """A program and its two blobs: path of the native library, bytes of the packed constants (aligned)."""

    program: Program
    library: pathlib.Path
    weights: np.ndarray


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
    constants = known_constants(graph)
    kernels = kernel_nodes(graph, target, threads or target.threads, numerics, constants)
    compiled = _compile(kernels, choose, progress)
    binding = bind(graph, kernels, compiled, constants)
    library = _link(binding.steps, [compiled[kernel.task.key][1] for kernel in kernels], len(graph.inputs))
    program = Program(
        name=name,
        signature=signature,
        steps=binding.steps,
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
    return kernel_nodes(graph, target, threads or target.threads, numerics, known_constants(graph))


def _require_static(graph: Graph) -> None:
    for value in [*graph.inputs, *(value for node in control_walk(graph) for value in node.outputs)]:
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
        root = root_of(value)
        writable = root.node is not None and root.node.op != "constant" and root not in claimed and value.tensor.layout.is_row_major
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


def _link(steps: Sequence[Step], kernels: Sequence[CompiledKernel], inputs: int) -> pathlib.Path:
    """The shared library of the program, in the cache under the hash of what it is made of."""
    source = entry_source(steps, inputs)
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
