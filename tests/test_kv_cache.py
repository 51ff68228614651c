"""Caches of keys and values in 8 and 4 bits: the same tokens as in eager PyTorch, and kernels that read the integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, StaticCache

import mlc
from mlc.errors import OptionError
from mlc.ir.encodings import Grouped, pack_codes
from mlc.kv_cache import NibbleLayer, static_cache

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
        torch.testing.assert_close(ours.value_numbers, theirs.value_numbers, rtol=1e-4, atol=1e-6)
    exact = logits(llama, StaticCache(config=CONFIG, max_cache_len=32))
    assert 1e-5 < float((wanted - exact).norm() / exact.norm()) < 0.03
    token = fast.report().programs[-1]
    attention = [kernel.label for kernel in token.kernels if "attention" in kernel.label]
    assert len(attention) == 2 and all("mul" in label for label in attention)
    assert not any(kernel.label == "cast" for kernel in token.kernels)


def test_a_compiled_decoder_keeps_its_cache_in_4_bits(llama: LlamaForCausalLM) -> None:
    fast = mlc.compile(llama, strict=True)
    eager, compiled = static_cache(CONFIG, 32, bits=4), static_cache(CONFIG, 32, bits=4)
    wanted = logits(llama, eager)
    assert float((logits(fast, compiled) - wanted).norm() / wanted.norm()) < 1e-5
    for ours, theirs in zip(compiled.layers, eager.layers, strict=True):
        assert ours.keys.dtype == torch.int8 and ours.keys.shape == (1, 2, 32, 8)
        assert float((ours.values != theirs.values).float().mean()) < 0.01
        torch.testing.assert_close(ours.value_numbers, theirs.value_numbers, rtol=1e-4, atol=1e-6)
    # A rounding is off by a thirtieth of the range of a group at most; random weights pass it on to the logits as it is.
    exact = logits(llama, StaticCache(config=CONFIG, max_cache_len=32))
    assert 1e-3 < float((wanted - exact).norm() / exact.norm()) < 0.2
    token = fast.report().programs[-1]
    assert sum("attention" in kernel.label and "concat" in kernel.label for kernel in token.kernels) == 2


@pytest.mark.parametrize("width", [16, 64, 80])
def test_4_bits_mean_what_the_encoding_means(width: int) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 3, 5, width) * torch.logspace(-3, 3, 5)[:, None]
    states[0, 0] = 0
    codes, sixteenths = NibbleLayer.encoded(states)
    scheme = Grouped("i4", {16: 16, 64: 32, 80: 16}[width], 3, "f32")
    scales = (sixteenths * 16).numpy()
    nibbles = np.concatenate([codes.numpy() << 4, codes.numpy() & -16], -1) >> 4
    parts = {"codes": nibbles, "scales": scales}
    scheme.check(parts, states.shape)
    decoded = NibbleLayer.decoded(codes, [sixteenths], torch.float32).numpy()
    assert np.array_equal(decoded, scheme.decode(parts))
    # Nearest numbers but where 8 would have been, and as many bytes as packed codes have.
    errors = np.abs(decoded - states.numpy()) / np.abs(np.repeat(scales, scheme.group, -1))
    assert np.all(errors <= np.where(nibbles == 7, 1.0, 0.5) * 1.0001)
    assert codes.numel() == pack_codes(nibbles, 4).nbytes


@pytest.mark.parametrize("queries", [1, 7, 20])
@pytest.mark.parametrize("width", [16, 64, 80])
def test_attention_decodes_4_bits_where_they_are_read(width: int, queries: int) -> None:
    class Decoded(nn.Module):
        def forward(self, q: Tensor, *parts: Tensor) -> Tensor:
            k, v = (NibbleLayer.decoded(parts[n], parts[n + 1 : n + 2], q.dtype) for n in (0, 2))
            return nn.functional.scaled_dot_product_attention(q, k, v)

    torch.manual_seed(0)
    parts = [part for _ in range(2) for part in NibbleLayer.encoded(torch.randn(2, 3, 41, width))]
    q = torch.randn(2, 3, queries, width)
    fast = mlc.compile(Decoded(), example_inputs=(q, *parts), strict=True)
    with torch.inference_mode():
        wanted = Decoded()(q.double(), *parts)
        assert float((fast(q, *parts) - wanted).norm() / wanted.norm()) < 1e-6
    assert (len(fast.report().programs[0].kernels) == 1) == (queries < 8)


def test_what_has_no_cache_of_so_few_bits_says_so() -> None:
    with pytest.raises(OptionError, match="in 8 or 4 bits, not in 3"):
        static_cache(CONFIG, 32, bits=3)
    with pytest.raises(OptionError, match="15 elements cannot lie in pairs"):
        NibbleLayer.encoded(torch.zeros(1, 1, 1, 15))


@pytest.mark.parametrize("bits", [8, 4])
def test_generating_takes_such_a_cache(llama: LlamaForCausalLM, bits: int) -> None:
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        wanted = llama.generate(prompt, past_key_values=static_cache(CONFIG, 32, bits), **options)
        found = mlc.compile(llama, strict=True).generate(prompt, past_key_values=static_cache(CONFIG, 32, bits), **options)
    assert torch.equal(found, wanted)


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
