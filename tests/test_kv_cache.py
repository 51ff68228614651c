"""Caches of keys and values in 8 bits: the same tokens as in eager PyTorch, and kernels that read the integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, StaticCache

import mlc
from mlc.errors import OptionError
from mlc.kv_cache import static_cache

CONFIG = LlamaConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=200
)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def logits(model: object, cache: StaticCache) -> Tensor:
    """Of a prompt of ten tokens and of two more, one by one."""
    tokens = torch.arange(12)[None] * 7 % 200
    with torch.inference_mode():
        parts = [model(input_ids=part, past_key_values=cache, use_cache=True).logits for part in tokens.split([10, 1, 1], dim=1)]  # type: ignore[operator]
    return torch.cat(parts, 1)


def test_a_compiled_decoder_keeps_its_cache_in_8_bits(llama: LlamaForCausalLM) -> None:
    fast = mlc.compile(llama, strict=True)
    eager, compiled = static_cache(CONFIG, 32), static_cache(CONFIG, 32)
    wanted = logits(llama, eager)
    assert float((logits(fast, compiled) - wanted).norm() / wanted.norm()) < 1e-5
    for ours, theirs in zip(compiled.layers, eager.layers, strict=True):
        assert ours.keys.dtype == ours.values.dtype == torch.int8
        assert (ours.keys.int() - theirs.keys.int()).abs().max() <= 1
        torch.testing.assert_close(ours.value_scales, theirs.value_scales, rtol=1e-4, atol=1e-6)
    exact = logits(llama, StaticCache(config=CONFIG, max_cache_len=32))
    assert 1e-5 < float((wanted - exact).norm() / exact.norm()) < 0.03
    token = fast.report().programs[-1]
    attention = [kernel.label for kernel in token.kernels if "attention" in kernel.label]
    assert len(attention) == 2 and all("mul" in label for label in attention)
    assert not any(kernel.label == "cast" for kernel in token.kernels)


def test_generating_takes_such_a_cache(llama: LlamaForCausalLM) -> None:
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        wanted = llama.generate(prompt, past_key_values=static_cache(CONFIG, 32), **options)
        assert torch.equal(mlc.compile(llama, strict=True).generate(prompt, past_key_values=static_cache(CONFIG, 32), **options), wanted)


def test_layers_that_forget_keep_their_own_caches() -> None:
    config = MistralConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, num_key_value_heads=2, sliding_window=8)
    with pytest.raises(OptionError, match="StaticSlidingWindowLayer, whose caches stay as they are"):
        static_cache(config, 32)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("queries", [1, 20])
def test_attention_over_keys_and_values_in_fewer_bits(dtype: torch.dtype, queries: int) -> None:
    class Decoded(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, scales: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k.to(q.dtype) * scales, v.to(q.dtype) * scales)

    torch.manual_seed(0)
    k, v = ((torch.randn(2, 3, 40, 16) * 9).to(dtype) for _ in range(2))
    arguments = (torch.randn(2, 3, queries, 16), k, v, torch.rand(2, 3, 40, 1) / 9)
    fast = mlc.compile(Decoded(), example_inputs=arguments, strict=True)
    with torch.inference_mode():
        wanted = Decoded()(arguments[0].double(), k, v, arguments[3].double())
        assert float((fast(*arguments) - wanted).norm() / wanted.norm()) < 1e-6
    # Where each key meets many queries it is decoded once.
    assert (len(fast.report().programs[0].kernels) == 1) == (queries == 1)
