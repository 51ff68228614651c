"""Inputs that candidates are run on and the outputs they must give, as files that run workers map."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..codegen.task import Task
from ..codegen.templates import template_for
from ..ir import DType, Graph, Node, TensorType, Trait, Value, constant_of, interpret, lookup

SETS = 2
"""Different sets of inputs on which a candidate must be right."""

_SINGLE = DType.FLOAT32.nbytes

_INDEX_OPS = ("take", "take_along", "take_nd", "scatter_along", "scatter_nd")
_POSITIVE = {"log": (0,), "sqrt": (0,), "rsqrt": (0,), "reciprocal": (0,), "batch_norm": (2,)}
"""Operands that must be positive for a finite result."""


def example_inputs(task: Task, variant: int, seed: int = 0) -> list[np.ndarray]:
    """Arrays in logical order for the inputs of ``task``. Constants are the same in all variants, the others differ; encoded constants are
    what they decode to.

    Floats are normal in even variants and uniform with some zeros in odd ones, scaled so that contractions give values around
    one; integers used as indices stay in range.
    """
    arrays = []
    for position, value in enumerate(task.graph.inputs):
        array = _drawn(task, position, variant, seed)
        arrays.append(constant_of(array, value.tensor).array() if position in task.constant_inputs else array)
    return arrays


def _drawn(task: Task, position: int, variant: int, seed: int) -> np.ndarray:
    """Random numbers for an input, not rounded to its encoding."""
    constant = position in task.constant_inputs
    generator = np.random.default_rng([seed, position, 0 if constant else variant + 1])
    return _random(task.graph, task.graph.inputs[position], generator, plain=constant or variant % 2 == 0)


def _random(graph: Graph, value: Value, generator: np.random.Generator, plain: bool) -> np.ndarray:
    type = value.tensor
    shape = type.static_shape
    if type.dtype is DType.BOOL:
        return generator.random(shape) < 0.7
    if type.dtype.is_integer:
        low, high = _integer_range(graph, value, type)
        return generator.integers(low, high, shape, endpoint=True).astype(type.dtype.numpy)
    if plain:
        array = generator.standard_normal(shape, dtype=np.float32)
    else:
        array = generator.uniform(-2, 2, shape).astype(np.float32)
        array[generator.random(shape) < 0.05] = 0
    if any(position in _POSITIVE.get(node.op, ()) for node, position in _uses(graph, value)):
        array = np.abs(array) + np.float32(0.1)
    fan_in = max((_fan_in(node.op, type) for node, position in _uses(graph, value) if position == 1), default=1)
    return np.asarray(array / np.float32(math.sqrt(fan_in))).astype(type.dtype.numpy)


def _uses(graph: Graph, value: Value) -> list[tuple[Node, int]]:
    """Nodes that read ``value``, and as which operand."""
    return [
        (node, position) for node in set(graph.users.get(value, ())) for position, operand in enumerate(node.inputs) if operand is value
    ]


def _integer_range(graph: Graph, value: Value, type: TensorType) -> tuple[int, int]:
    """Inclusive bounds that keep indices valid, through views; small numbers where ``value`` is no index."""
    extents = []
    seen, pending = {value}, [value]
    while pending:
        for node, position in _uses(graph, pending.pop()):
            if node.op in _INDEX_OPS and position == 1:
                extents.append(_indexed_extent(node))
            elif node.op == "put" and position >= 2:
                extents.append(_put_extent(node, position))
            elif lookup(node.op).has(Trait.VIEW) or node.op in ("cast", "concat") or _counts_on(node):
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                pending.extend(new)
    if extents:
        return 0, max(min(extents) - 1, 0)
    return (0 if type.dtype is DType.UINT8 else -8), 8


def _indexed_extent(node: Node) -> int:
    shape = node.inputs[0].tensor.static_shape
    if node.op in ("take_nd", "scatter_nd"):
        return min(shape[: node.inputs[1].tensor.static_shape[-1]])
    axis = node.attributes.get("axis", 0)
    assert isinstance(axis, int)
    return shape[axis]


def _counts_on(node: Node) -> bool:
    """Whether the node adds 0, 1, ... to a number: the positions in a cache from the first one on."""
    return node.op == "add" and any(operand.op == "iota" for operand in node.inputs)


def _put_extent(node: Node, position: int) -> int:
    """How many first positions there are for which those that count on from there are valid too."""
    axes = node.attributes["axes"]
    assert isinstance(axes, tuple)
    axis = axes[position - 2]
    assert isinstance(axis, int)
    return node.inputs[0].tensor.static_shape[axis] - node.inputs[position].tensor.elements + 1


def _fan_in(op: str, type: TensorType) -> int:
    """How many products an output sums, for the second operand of a contraction."""
    shape = type.static_shape
    if op == "linear":
        return shape[1]
    if op == "matmul":
        return shape[-2]
    return math.prod(shape[1:]) if op in ("conv", "conv_transpose") else 1


def write_case(task: Task, folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes inputs and reference outputs of ``task`` into ``folder``, stored as kernels see them; the manifest's path.

    The manifest names files without their folder, so that a case can be moved to another machine.
    Constants are stored in logical order and not encoded, since every kernel may want them in another form; the references are the
    interpreter's, in float64 where they are floats.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [example_inputs(task, variant, seed) for variant in range(SETS)]
    results = [interpret(task.graph, arrays, wide=True) for arrays in inputs]
    manifest: dict[str, Any] = {
        "threads": task.threads,
        "rounding": _rounding(task.graph),
        "inputs": [
            _write_constant(task, position, seed, folder)
            if position in task.constant_inputs
            else _write_input(task, position, [arrays[position] for arrays in inputs], folder)
            for position in range(len(task.graph.inputs))
        ],
        "outputs": [
            _write_output(value.tensor, position, [arrays[position] for arrays in results], folder) | {"held": None}
            for position, value in enumerate(task.graph.outputs)
        ],
    }
    template = template_for(task.graph)
    updated = template.in_place(task.graph) if template is not None else None
    if updated is not None:
        manifest["outputs"][0]["held"] = _write_held(task, updated, inputs, folder)
    path = folder / "case.json"
    path.write_text(json.dumps(manifest))
    return path


def _rounding(graph: Graph) -> float:
    """The relative step between the narrowest floats that values of ``graph`` are rounded to; 0 where all are in fp32 or wider."""
    values = (*graph.inputs, *(value for node in graph.walk() for value in node.outputs))
    dtypes = {value.type.dtype for value in values if isinstance(value.type, TensorType)}
    return max((float(ml_dtypes.finfo(dtype.numpy).eps) for dtype in dtypes if dtype.is_float and dtype.nbytes < _SINGLE), default=0.0)


def _write_constant(task: Task, position: int, seed: int, folder: pathlib.Path) -> dict[str, object]:
    name = f"input{position}.npy"
    np.save(folder / name, _drawn(task, position, 0, seed))
    return {"constant": True, "type": str(task.graph.inputs[position].tensor), "files": [name]}


def _write_input(task: Task, position: int, variants: Sequence[np.ndarray], folder: pathlib.Path) -> dict[str, object]:
    layout = task.graph.inputs[position].tensor.layout
    names = []
    for variant, array in enumerate(variants):
        name = f"input{position}.{variant}.npy"
        np.save(folder / name, layout.pack(array))
        names.append(name)
    return {"constant": False, "files": names}


def _write_held(task: Task, updated: int, inputs: Sequence[Sequence[np.ndarray]], folder: pathlib.Path) -> list[str]:
    """What the output must hold before the kernel updates it in place."""
    layout = task.graph.outputs[0].tensor.layout
    names = [f"held.{variant}.npy" for variant in range(len(inputs))]
    for name, arrays in zip(names, inputs, strict=True):
        np.save(folder / name, layout.pack(arrays[updated]))
    return names


def _write_output(type: TensorType, position: int, variants: Sequence[np.ndarray], folder: pathlib.Path) -> dict[str, object]:
    names = []
    for variant, array in enumerate(variants):
        name = f"output{position}.{variant}.npy"
        np.save(folder / name, type.layout.pack(np.asarray(array)))
        names.append(name)
    # Lanes beyond the logical extents may hold anything.
    padded = type.elements != math.prod(type.physical_shape)
    mask = None
    if padded:
        mask = f"mask{position}.npy"
        np.save(folder / mask, type.layout.pack(np.ones(type.static_shape, dtype=np.bool_)))
    return {"dtype": type.dtype.text, "shape": list(type.physical_shape), "files": names, "mask": mask}
