"""Programs of graphs, compiled with the default config of every kernel."""

from __future__ import annotations

from mlc.codegen.assembly import Assembled, assemble
from mlc.codegen.target import Target
from mlc.ir import Graph, Value
from mlc.ir.program import Signature, TensorSpec

HOST = Target.parse("cpu")


def assembled(graph: Graph) -> Assembled:
    """``graph`` as a program for two threads; its nodes may be fused or not."""

    def spec(value: Value) -> TensorSpec:
        return TensorSpec(value.name, value.tensor.dtype.text, value.tensor.static_shape)

    signature = Signature(tuple(map(spec, graph.inputs)), tuple(map(spec, graph.outputs)))
    return assemble(graph, HOST, signature, lambda task, template, space: space.default, threads=2)
