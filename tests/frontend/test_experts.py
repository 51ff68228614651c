"""Mixtures of experts as Hugging Face computes them on the CPU: grouped by expert, or one matrix per token."""

from __future__ import annotations

import pytest
import torch
from eager import check, rand
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

import mlc

SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "use_cache": False}


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return model.eval()


def mixture(kind: str, implementation: str) -> nn.Module:
    if kind == "mixtral":
        config = MixtralConfig(**SIZES, num_key_value_heads=1, num_local_experts=5, num_experts_per_tok=2)
        return randomised(MixtralForCausalLM._from_config(config, experts_implementation=implementation))
    config = Qwen2MoeConfig(
        **SIZES, num_key_value_heads=2, moe_intermediate_size=8, shared_expert_intermediate_size=24, num_experts=5, num_experts_per_tok=2
    )
    return randomised(Qwen2MoeForCausalLM._from_config(config, experts_implementation=implementation))


@pytest.mark.parametrize(("kind", "implementation"), [("mixtral", "grouped_mm"), ("qwen2", "batched_mm")])
def test_experts_of_a_language_model(kind: str, implementation: str) -> None:
    model = mixture(kind, implementation)
    tokens = torch.arange(14).view(2, 7) * 2
    with torch.no_grad():
        expected = model(tokens).logits
        result = mlc.compile(model, example_inputs=(tokens,), strict=True)(tokens).logits
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_grouped_products_of_other_dtypes() -> None:
    """No template takes float64: it is computed by what defines it."""

    class Groups(nn.Module):
        def forward(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
            return torch.ops.transformers.grouped_mm_fallback(x, weight, ends)

    args = (rand(6, 4).double(), rand(3, 4, 5).double(), torch.tensor([2, 2, 6]))
    torch.testing.assert_close(mlc.compile(Groups().eval(), strict=True)(*args), Groups()(*args))


def test_histograms() -> None:
    values = torch.tensor([-1.0, 0.0, 0.5, 2.99, 3.0, 3.01, 1.0, 1.0, float("nan")])
    check(lambda x: (torch.histc(x, 3, 0, 3), torch.histc(x[:8].reshape(2, 4), 7, -2, 4)), (values,))
