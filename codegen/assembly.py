"""Assembly: from a graph of fused nodes to a program with its native library and packed weights."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import Error, LoweringError
from ..ir import Constant, Graph, Node, TokenType, control_walk
from ..ir.program import Form, Program, Signature, Step
from .binding import bind
from .build import CompiledKernel, cache_directory, compile_candidate, host_sources, in_parallel, link_library, versions
from .entry import ENTRY, entry_source
from .kernels import KernelNode, kernel_nodes, known_constants, label_of, locations_of, wrapped
from .sizes import SymbolicSizes, uncertain_counts
from .space import Config, Space
from .storage import assign_storage
from .target import Kind, Target
from .task import Numerics, Task
from .template import Template
from .templates import template_for

Choose: TypeAlias = "Callable[[Task, Template, Space], Config]"
"""Picks the config of a task: from the database, by the cost model, or the default."""

Progress: TypeAlias = "Callable[[int, int, str], None]"
"""Told (kernels done, kernels in all, label) as kernels are compiled."""


@dataclass(frozen=True)
class Assembled:
    """A program and its two blobs: path of the native library (by the program's form: of sources), bytes of the packed constants
    (aligned)."""

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
    states: Sequence[tuple[str, Constant]] = (),
) -> Assembled:
    """Compiles every node of ``graph`` and lays out its memory.

    Top-level nodes are fusions, constants, views that cost nothing (aliases), reads and writes of states, or single operations, which are
    wrapped. ``states`` gives name and first content of each state; their tokens follow the inputs of the ``signature``. LoweringError,
    with the user's source line, when no template takes a node; BuildError when the tool chain fails; CapacityError
    when the program does not fit the target's memory.
    """
    if signature.symbols and target.kind in (Kind.CORTEX_M, Kind.CUDA):
        raise LoweringError(f"programs for '{target}' have fixed sizes; compile with static shapes (without dynamic_shapes)")
    _check_sizes(graph, {spec.name for spec in signature.symbols})
    storage = assign_storage(graph, functools.partial(_updated, kind=target.kind))
    graph = storage.graph
    constants = known_constants(graph)
    kernels = kernel_nodes(graph, target, threads or target.threads, numerics, constants)
    compiled = _compile(kernels, choose, progress)
    binding = bind(storage, kernels, compiled, constants, states, len(signature.inputs))
    objects = {native.symbol: native for _, native in compiled.values()}
    needed = None
    if target.kind is Kind.CORTEX_M:
        if states:
            names = ", ".join(name for name, _ in states)
            raise LoweringError(
                f"programs for '{target}' cannot keep state between calls yet ({names}); return what changes as an output, and pass "
                "it in again"
            )
        from .c.assembly import assemble_sources

        content, needed = assemble_sources(binding.steps, objects, binding.plan.nbytes, signature, target)
        library = _cached_program(hashlib.sha256(content).hexdigest()[:32], ".json", lambda path: path.write_bytes(content))
    else:
        sizes = None
        if signature.symbols:
            symbols = tuple(spec.name for spec in signature.symbols)
            sizes = SymbolicSizes(symbols, binding.slots, uncertain_counts(kernels, compiled, graph.symbols))
        library = _link(binding.steps, objects, signature, target, sizes)
    program = Program(
        name=name,
        signature=signature,
        steps=binding.steps,
        constants=binding.constants,
        constant_bytes=binding.weights.nbytes,
        arena_bytes=binding.plan.nbytes,
        arena_lower_bound=binding.plan.lower_bound,
        target=str(target),
        features=target.features,
        threads=threads or target.threads,
        entry=ENTRY,
        states=binding.states,
        form=Form.LIBRARY if needed is None else Form.SOURCES,
        footprint=needed,
        slots=binding.slots,
    )
    return Assembled(program, library, binding.weights)


def tasks_of(graph: Graph, target: Target, *, threads: int | None = None, numerics: Numerics = Numerics.FAST) -> list[KernelNode]:
    """The kernel calls that :func:`assemble` would compile for ``graph``, in order: what there is to tune."""
    _check_sizes(graph, set(graph.symbols))
    graph = assign_storage(graph, functools.partial(_updated, kind=target.kind)).graph
    return kernel_nodes(graph, target, threads or target.threads, numerics, known_constants(graph))


def _updated(node: Node, kind: Kind) -> int | None:
    """Which operand of a top-level node its kernel updates in place; None for nearly all."""
    region = node.regions[0] if node.op == "fusion" else wrapped(node) if node.op == "put" else None
    if region is None or all(inner.op != "put" for inner in region.nodes):
        return None
    template = template_for(region, kind)
    return template.in_place(region) if template is not None else None


def _check_sizes(graph: Graph, known: set[str]) -> None:
    """LoweringError where a size depends on a symbol that is not ``known``, or where what changes in place has no fixed size."""
    for value in [*graph.inputs, *(value for node in control_walk(graph) for value in node.outputs)]:
        tensor = value.type.buffer if isinstance(value.type, TokenType) else value.type
        where = value.node.location if value.node is not None else "an input of the model"
        if tensor is None or (isinstance(value.type, TokenType) and not tensor.is_static):
            raise LoweringError(
                f"%{value.name}: {value.type} ({where}) changes in place and has no static shape; "
                "leave its dimensions out of dynamic_shapes"
            )
        for dim in tensor.shape:
            if not isinstance(dim, int) and any(str(free) not in known for free in dim.free_symbols):
                raise LoweringError(f"%{value.name}: {value.type} ({where}) has a size that no input of the signature tells")


def _compile(kernels: Sequence[KernelNode], choose: Choose, progress: Progress | None) -> dict[str, tuple[Config, CompiledKernel]]:
    """The chosen config and the compiled kernel of every task, by task key."""
    distinct = {kernel.task.key: kernel for kernel in kernels}
    # One after the other: a database connection and a cost model belong to one thread.
    # Schedules are chosen for typical sizes, so that a database tuned on static shapes serves symbolic ones.
    configs = {}
    for key, kernel in distinct.items():
        configs[key] = choose(kernel.task.representative, kernel.template, kernel.template.space(kernel.task))
    done = 0

    def compile_one(kernel: KernelNode) -> tuple[Config, CompiledKernel]:
        nonlocal done
        task, template = kernel.task, kernel.template
        config = configs[task.key]
        try:
            compiled = compile_candidate(task, template, config)
        except Error as error:
            located = type(error)(f"{label_of(kernel.node)} ({kernel.node.location}): {error}")
            located.locations = locations_of(kernel.node)
            raise located from error
        done += 1
        if progress is not None:
            progress(done, len(distinct), label_of(kernel.node))
        return config, compiled

    return dict(zip(distinct, in_parallel(compile_one, distinct.values()), strict=True))


def _link(
    steps: Sequence[Step], kernels: Mapping[str, CompiledKernel], signature: Signature, target: Target, sizes: SymbolicSizes | None
) -> pathlib.Path:
    """The shared library of the program."""
    entry = entry_source(steps, len(signature.inputs), len(signature.outputs), on_device=target.kind is Kind.CUDA, sizes=sizes)
    sources = {"entry.c": entry, **host_sources(target)}
    name = hashlib.sha256("|".join([versions(), *sources.values(), *kernels]).encode()).hexdigest()[:32]
    objects = [kernel.object for kernel in kernels.values()]
    return _cached_program(name, ".so", lambda path: link_library(objects, sources, [ENTRY], path))


def _cached_program(name: str, suffix: str, write: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """The file of that name among the cached programs, made by ``write`` unless it is there; ``name`` is a hash of its content."""
    folder = cache_directory() / "programs"
    path = folder / f"{name}{suffix}"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mlc-"))
        path = folder / f"{name}{suffix}"
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", suffix=suffix, delete=False) as file:
        temporary = pathlib.Path(file.name)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
