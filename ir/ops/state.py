"""Mutable buffers: reads and writes, ordered by tokens.

A token (:class:`~mlc.ir.types.TokenType`) stands for one version of a buffer. A graph gets the buffers it uses as token inputs and
gives their last versions back as token outputs. Each read and write consumes a token and yields the next, and the verifier lets a
token be consumed once only, so the operations on one buffer form a chain, and doing them in place computes what the graph says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..types import DENSE, TensorType, TokenType, Type
from .definition import Attributes, Op, Trait, no_flops, register, require

if TYPE_CHECKING:
    from ..graph import Graph


class _StateOp(Op):
    """An operation whose first operand is a token with a buffer; its last result is the next token of that buffer."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        require(not regions, self.name, "takes no regions")
        require(len(inputs) == len(self.operands), self.name, f"takes {', '.join(self.operands)}, got {len(inputs)} operands")
        token, *values = inputs
        require(isinstance(token, TokenType), self.name, f"the operand 'state' is a {token}, a token is needed")
        assert isinstance(token, TokenType)
        buffer = token.buffer
        require(buffer is not None, self.name, "the token has no buffer, it only orders")
        assert buffer is not None
        for value in values:
            fits = isinstance(value, TensorType) and (value.dtype, value.shape) == (buffer.dtype, buffer.shape)
            require(fits, self.name, f"a {value} does not fit the buffer {buffer}; cast or broadcast it first")
        return (buffer.with_encoding(DENSE), token) if self.name == "state_read" else (token,)


register(
    _StateOp(
        "state_read",
        ("state",),
        lambda inputs, attributes: (),
        lambda inputs, attributes: (inputs[0], inputs[0]),
        no_flops,
        traits=frozenset({Trait.STATE}),
        doc="what the buffer holds at this point, and the next token",
    )
)
register(
    _StateOp(
        "state_write",
        ("state", "x"),
        lambda inputs, attributes: (),
        lambda inputs, attributes: inputs[1],
        no_flops,
        traits=frozenset({Trait.STATE}),
        doc="replaces what the buffer holds by x (same dtype and shape); yields the next token",
    )
)
