"""Constants that are hashed while a model is traced are those that are hashed afterwards."""

from __future__ import annotations

import torch
from torch import nn

from mlc.frontend.constants import ConstantPool, hashed_meanwhile


def test_a_pool_hands_on_what_it_knows() -> None:
    large = torch.arange(1 << 15, dtype=torch.float32)
    pool = hashed_meanwhile([large])
    again = ConstantPool(pool)
    assert again.constant(large) is pool.constant(large)
    assert pool.constant(large).digest == ConstantPool().constant(large).digest


def test_a_tensor_that_was_written_meanwhile_is_another_constant() -> None:
    large = torch.zeros(1 << 15)
    early = hashed_meanwhile([large]).constant(large)
    pool = hashed_meanwhile([large])
    large.add_(1)
    assert ConstantPool(pool).constant(large).digest != early.digest


def test_what_is_no_plain_tensor_is_left_for_later() -> None:
    """Subclasses, other devices, types without a constant, and what has to be copied."""
    square = torch.zeros(256, 256)
    tensors = [
        square.to("meta"),
        square.T[:, 1:],
        square.to(torch.complex64),
        square.to_sparse(),
        torch.nn.UninitializedParameter(),
        torch._neg_view(square),
        torch.quantize_per_tensor(square, 0.1, 0, torch.qint32),
    ]
    pool = hashed_meanwhile(tensors)
    assert len(pool) == 0
    with torch.inference_mode():
        inference = torch.zeros(1 << 15)
    assert hashed_meanwhile([inference, nn.Parameter(square)]).constant(inference).type.shape == (1 << 15,)
