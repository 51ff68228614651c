"""Our decomposition table: PyTorch's default one, except for the composites that mlc keeps whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import default_decompositions

aten = torch.ops.aten

KEPT: tuple[OpOverload, ...] = (
    # By default attention and linear layers dissolve into bmm, softmax, expand and view.
    aten.scaled_dot_product_attention.default,
    aten.linear.default,
    aten.matmul.default,
    aten.layer_norm.default,
    aten.rms_norm.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.softplus.default,
    aten.square.default,
    # PyTorch's decomposition counts classes that are none.
    aten.multilabel_margin_loss_forward.default,
    aten.all.default,
    aten.all.dim,
    aten.all.dims,
    aten.split.Tensor,
    aten.unbind.int,
    aten.roll.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    # Resampling by fixed weights is one matrix product per axis; by default it becomes hundreds of gathers.
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_bilinear2d_aa.vec,
    # Recurrent layers become loops; by default they are unrolled, step by step.
    aten.lstm.input,
    aten.gru.input,
    aten.rnn_tanh.input,
    aten.rnn_relu.input,
    aten.lstm_cell.default,
    aten.gru_cell.default,
    aten.rnn_tanh_cell.default,
    aten.rnn_relu_cell.default,
    # Decomposed, they would draw other random numbers than PyTorch itself.
    aten.bernoulli.default,
    aten.rrelu.default,
)


def our_decompositions() -> dict[OpOverload, Callable[..., Any]]:
    """A fresh table for ``ExportedProgram.run_decompositions`` (which may change it)."""
    table: dict[OpOverload, Callable[..., Any]] = dict(default_decompositions().items())  # type: ignore[no-untyped-call]
    for operation in KEPT:
        table.pop(operation, None)
    return table
