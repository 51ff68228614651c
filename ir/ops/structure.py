"""Operations that hold the graph together: constants and fused regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TypeInferenceError
from ..touched import touched_bytes
from ..types import TensorType, Type
from .attributes import CONSTANT
from .definition import REQUIRED, Attributes, Cost, Op, Trait, lookup, no_flops, register, require, tensor_bytes

if TYPE_CHECKING:
    from ..graph import Graph, Node

register(
    Op(
        "constant",
        (),
        lambda inputs, attributes: attributes["value"].type,
        lambda inputs, attributes: attributes["value"].array(),
        no_flops,
        {"value": REQUIRED},
        frozenset({Trait.SOURCE}),
        kinds={"value": CONSTANT},
        doc="a tensor known at compile time",
    )
)


class RegionOp(Op):
    """An operation over nested graphs. The interpreter runs the regions; the types of results are exactly those of the regions."""

    def result_fits(self, inferred: Type, type: Type) -> bool:
        return inferred == type

    def check_region(self, what: str, region: Graph, inputs: Sequence[Type]) -> None:
        """TypeInferenceError unless ``region`` takes operands of exactly these types."""
        require(
            len(inputs) == len(region.inputs),
            self.name,
            f"{len(inputs)} operands for {what} of {len(region.inputs)} inputs",
        )
        for position, (operand, inner) in enumerate(zip(inputs, region.inputs, strict=True)):
            require(operand == inner.type, self.name, f"operand {position} is {operand}, {what} takes {inner.type}")


def run_by_interpreter(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """The reference of operations with regions: there is none apart from the regions."""
    raise TypeInferenceError("operations with regions are evaluated by mlc.ir.interpret, node by node")


def region_flops(region: Graph) -> int:
    """FLOPs of every node of a region."""
    return sum(lookup(node.op).cost_of_node(node).flops for node in region.nodes)


class _Fusion(RegionOp):
    """``fusion(operands...) {region}``: the region's results; one kernel computes all of it."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        require(len(regions) == 1, "fusion", f"has one region, got {len(regions)}")
        self.check_region("the region", regions[0], inputs)
        return tuple(value.tensor for value in regions[0].outputs)

    def cost_of_region(self, region: Graph) -> Cost:
        """FLOPs of every node of the region; bytes of what it reads of its inputs, and of its outputs."""
        return Cost(
            region_flops(region),
            sum(touched_bytes(region, value) for value in region.inputs),
            tensor_bytes([value.tensor for value in region.outputs]),
        )

    def cost_of_node(self, node: Node) -> Cost:
        return self.cost_of_region(node.regions[0])


FUSION = _Fusion(
    "fusion",
    ("operands*",),
    lambda inputs, attributes: (),
    run_by_interpreter,
    no_flops,
    doc="the region's results for the operands as its inputs, computed by one kernel",
)
register(FUSION)
