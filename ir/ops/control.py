"""Control flow: operations that decide at run time which of their regions run.

Regions are closed: what they need of the enclosing graph is passed to them as operands. Mutable buffers pass through as tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..types import DType, TensorType, Type
from .definition import Attributes, Cost, Trait, no_flops, register, require, tensor_bytes
from .structure import RegionOp, region_flops, run_by_interpreter

if TYPE_CHECKING:
    from ..graph import Graph, Node


def _is_predicate(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype is DType.BOOL and type.shape == () and type.encoding.is_dense


def _tensors(types: Sequence[Type]) -> list[TensorType]:
    return [type for type in types if isinstance(type, TensorType)]


class _Cond(RegionOp):
    """``cond(predicate, operands...) {then} {else}``."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        require(len(regions) == 2, "cond", f"has two regions (then, else), got {len(regions)}")
        require(len(inputs) >= 1 and _is_predicate(inputs[0]), "cond", "the first operand is the predicate, a b1[]")
        for what, region in zip(("the first region", "the second region"), regions, strict=True):
            self.check_region(what, region, inputs[1:])
        then, otherwise = ([value.type for value in region.outputs] for region in regions)
        require(
            then == otherwise,
            "cond",
            f"the regions yield different types: {', '.join(map(str, then))} and {', '.join(map(str, otherwise))}",
        )
        return tuple(then)

    def cost_of_node(self, node: Node) -> Cost:
        """That of the dearer region; bytes of operands and results."""
        return Cost(
            max(region_flops(region) for region in node.regions),
            tensor_bytes(_tensors([value.type for value in node.inputs])),
            tensor_bytes(_tensors([value.type for value in node.outputs])),
        )


class _While(RegionOp):
    """``while(operands...) {condition} {body}``."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        require(len(regions) == 2, "while", f"has two regions (condition, body), got {len(regions)}")
        condition, body = regions
        self.check_region("the condition", condition, inputs)
        self.check_region("the body", body, inputs)
        yielded = [value.type for value in condition.outputs]
        require(
            len(yielded) == 1 and _is_predicate(yielded[0]), "while", f"the condition yields a b1[], not {', '.join(map(str, yielded))}"
        )
        writes = any(node.op == "state_write" for node in condition.walk())
        require(not writes, "while", "the condition must not write state: do it in the body")
        carried = [value.type for value in body.outputs]
        require(
            carried == list(inputs),
            "while",
            f"the body yields {', '.join(map(str, carried))}, the operands are {', '.join(map(str, inputs))}",
        )
        return tuple(carried)

    def cost_of_node(self, node: Node) -> Cost:
        """That of one round, as their number is not known; bytes of operands and results."""
        return Cost(
            sum(region_flops(region) for region in node.regions),
            tensor_bytes(_tensors([value.type for value in node.inputs])),
            tensor_bytes(_tensors([value.type for value in node.outputs])),
        )


register(
    _Cond(
        "cond",
        ("predicate", "operands*"),
        lambda inputs, attributes: (),
        run_by_interpreter,
        no_flops,
        traits=frozenset({Trait.CONTROL}),
        doc="the results of the first region if the predicate (b1[]) holds, else those of the second; both take the other operands",
    )
)
register(
    _While(
        "while",
        ("operands*",),
        lambda inputs, attributes: (),
        run_by_interpreter,
        no_flops,
        traits=frozenset({Trait.CONTROL}),
        doc="the operands, replaced by the results of the second region (the body) as long as the first (the condition) yields true",
    )
)
