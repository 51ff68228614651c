"""Random weights that keep a network alive.

Freshly built networks hide mistakes: their biases are zero and their norm weights one, so that a compiler which drops a term
still gives the right answer; and with plain normal weights the activations of a deep network vanish or explode. Here every
parameter is drawn such that activations stay of the order of one at every layer and no term can be dropped unnoticed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def randomise(model: nn.Module, example_inputs: Sequence[Any], seed: int = 0) -> nn.Module:
    """Draw every floating-point parameter of ``model`` and every batch norm's statistics from ``seed``; returns it in eval mode.

    Weights have variance 1 / fan-in, biases a standard deviation of 0.1, the weights of norms lie between 0.8 and 1.2, embeddings
    have variance 1. Batch norms get the statistics of a forward pass over ``example_inputs``, slightly perturbed. Other buffers
    (position numbers, rotary frequencies) define what the model computes and stay.
    """
    generator = torch.Generator().manual_seed(seed)
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    drawn: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in drawn and parameter.is_floating_point():
                    drawn.add(id(parameter))
                    parameter.copy_(_draw(module, name, parameter, uses[id(parameter)] > 1, generator))
        _calibrate_batch_norms(model, example_inputs, generator)
    return model.eval()


def _draw(module: nn.Module, name: str, parameter: Tensor, tied: bool, generator: torch.Generator) -> Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if name.endswith("bias") or name.startswith("bias_"):
        return 0.1 * noise
    if isinstance(module, nn.Embedding):
        # An embedding that is also the output projection must not blow up the logits.
        return noise * (2.0 / math.sqrt(parameter.shape[-1]) if tied else 1.0)
    if parameter.dim() == 1:
        return 0.8 + 0.4 * torch.rand(parameter.shape, generator=generator)
    if name.endswith("weight") or name.startswith("weight_"):  # a recurrent layer's are called weight_ih_l0 and the like
        return noise / math.sqrt(_fan_in(module, parameter))
    return noise  # tokens and positions that a model keeps as bare parameters


def _fan_in(module: nn.Module, weight: Tensor) -> float:
    """How many terms are summed for one output of ``module``."""
    if isinstance(module, _TRANSPOSED):
        overlap = math.prod(k / s for k, s in zip(weight.shape[2:], module.stride, strict=True))
        return weight.shape[0] / module.groups * overlap
    if type(module).__name__ == "Conv1D":  # GPT-2's linear layer, stored as (in, out)
        return weight.shape[0]
    return math.prod(weight.shape[1:])


def _calibrate_batch_norms(model: nn.Module, example_inputs: Sequence[Any], generator: torch.Generator) -> None:
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # running statistics become those of this pass
    model(*example_inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None, "a batch norm of the zoo keeps running statistics"
        mean += 0.1 * variance.sqrt() * torch.randn(mean.shape, generator=generator)
        variance *= 0.8 + 0.4 * torch.rand(variance.shape, generator=generator)
