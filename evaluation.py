"""Runs a graph on this machine, compiled as models are: what passes ask to see the numbers in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .codegen.target import Target
from .ir import Graph, TensorType, Value, interpret
from .ir.program import Signature, TensorSpec
from .runtime.executable import Executable


class HostEvaluator:
    """Evaluates graphs, which need not be fused, in fp32 on this machine, whatever the model is compiled for.

    A graph with states or with symbolic sizes is interpreted. The last graph stays compiled.
    """

    def __init__(self) -> None:
        self._last: tuple[Graph, Executable] | None = None

    def __call__(self, graph: Graph, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The outputs of ``graph``; SignatureError when ``inputs`` do not fit it."""
        types = [value.type for value in (*graph.inputs, *graph.outputs)]
        if not all(isinstance(type, TensorType) and type.is_static for type in types):
            return interpret(graph, inputs)
        if self._last is None or self._last[0] is not graph:
            self._last = graph, _compiled(graph)
        executable = self._last[1]
        results = executable(*inputs)
        return results if isinstance(results, tuple) else (results,)


def _compiled(graph: Graph) -> Executable:
    from .codegen.assembly import assemble
    from .passes import Context, Pipeline

    host = Target.parse("cpu")
    fused = Pipeline.parse("lead-slices,layout,fuse,dead-code").run(graph, Context(host, host.threads))
    signature = Signature(tuple(map(_spec, graph.inputs)), tuple(map(_spec, graph.outputs)))
    made = assemble(fused, host, signature, lambda task, template, space: space.default, threads=host.threads, name=graph.name)
    return Executable(made.program, made.library, made.weights)


def _spec(value: Value) -> TensorSpec:
    return TensorSpec(value.name, value.tensor.dtype.text, value.tensor.static_shape)
