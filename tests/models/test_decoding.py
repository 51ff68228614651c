"""Greedy decoding with a static cache gives eager PyTorch's tokens: through generate, and by a loop over a module that keeps its cache."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CompileConfig,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    StaticCache,
)
from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

import mlc
import mlc.dynamo
from mlc import ExportError, SignatureError

STEPS = 200


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    """Random biases and norms too, and weights large enough that the next token depends on more than the last."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (3 / parameter.shape[-1]) ** 0.5 if parameter.dim() == 2 else 1 + 0.1 * noise)
    return model.eval()


def llama() -> PreTrainedModel:
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 4, "num_key_value_heads": 2}
    return randomised(LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, bos_token_id=0, eos_token_id=0, **sizes)))


def gpt2() -> PreTrainedModel:
    config = GPT2Config(vocab_size=97, n_embd=48, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0)
    return randomised(GPT2LMHeadModel(config))


@pytest.fixture(scope="module")
def expected(prompt: Tensor) -> Tensor:
    """What eager PyTorch generates."""
    tokens = generate(llama(), prompt)
    assert len(set(tokens[0].tolist())) > 10
    return tokens


@pytest.fixture(scope="module")
def prompt() -> Tensor:
    return torch.randint(0, 97, (2, 5), generator=torch.Generator().manual_seed(0))


def generate(model: PreTrainedModel, prompt: Tensor, **more: Any) -> Tensor:
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "use_cache": True}
    return model.generate(prompt, max_new_tokens=STEPS, cache_implementation="static", **options, **more)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_generate_runs_prefill_and_decoding_compiled(prompt: Tensor, expected: Tensor) -> None:
    model = llama()
    fast = mlc.compile(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert torch.equal(generate(fast, prompt), expected)
    prefill, decode = fast.executables
    assert sorted(spec.shape for spec in decode.signature.inputs if spec.mutated)[-1] == (2, 2, 4 + STEPS, 12)
    # Again, with another cache of that shape and by another way: nothing new is compiled, nothing is left over from before.
    model.forward = fast
    assert torch.equal(generate(model, prompt), expected)
    assert fast.executables == (prefill, decode)
    with torch.no_grad(), pytest.raises(SignatureError, match="StaticCache"):
        model(prompt)  # compiled too, and makes a cache
    with pytest.warns(UserWarning, match="gradients"):
        assert model(prompt, use_cache=False).logits.requires_grad  # by the model's own forward


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_generate_compiles_decoding_through_its_compile_config(prompt: Tensor, expected: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    compile_program = mlc.dynamo.compile_program
    monkeypatch.setattr(mlc.dynamo, "compile_program", lambda *args, **kwargs: compiled.append(1) or compile_program(*args, **kwargs))
    torch._dynamo.reset()
    model = llama()
    compile_config = CompileConfig(backend="mlc", fullgraph=True)
    compile_config._compile_all_devices = True  # else generate compiles on accelerators only
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(2):  # the second time with another cache, by the same program
            assert torch.equal(generate(model, prompt, compile_config=compile_config), expected)
    assert len(compiled) == 1
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:While compiling:UserWarning")
def test_a_module_that_keeps_its_cache_decodes_in_a_loop() -> None:
    model = gpt2()
    cache = {"batch_size": 1, "max_cache_len": STEPS + 8}
    model.generation_config = GenerationConfig(use_cache=True, cache_implementation="static", cache_config=cache)
    module = TorchExportableModuleWithStaticCache(model).eval()
    reference = copy.deepcopy(module)

    def decode(step: Callable[..., Tensor], first: int) -> list[int]:
        tokens = [first]
        with torch.no_grad():
            for position in range(STEPS):
                logits = step(input_ids=torch.tensor([tokens[-1:]]), cache_position=torch.tensor([position]))
                tokens.append(int(logits[0, -1].argmax()))
        return tokens

    fast = mlc.compile(module)
    assert decode(fast, 3) == decode(reference, 3)
    torch.testing.assert_close(module.key_cache_1, reference.key_cache_1, rtol=1e-4, atol=1e-4)
    assert decode(fast.session(), 11) == decode(reference, 11)
    (executable,) = fast.executables
    assert len(executable.program.states) == 6 and all(state.initial is None for state in executable.program.states)


class Attending(nn.Module):
    """What a layer does with a cache that it is given."""

    def forward(self, x: Tensor, cache: StaticCache) -> tuple[Tensor, StaticCache]:
        keys, values = cache.update(x, 2 * x, 0)
        return torch.nn.functional.scaled_dot_product_attention(x, keys, values), cache


def static_cache(length: int = 8) -> StaticCache:
    cache = StaticCache(LlamaConfig(num_hidden_layers=1), max_cache_len=length)
    cache.early_initialization(1, 2, 4, torch.float32, torch.device("cpu"))
    return cache


def test_cache_objects_are_arguments_and_results() -> None:
    fast, model = mlc.compile(Attending()), Attending()
    mine, theirs = static_cache(), static_cache()
    with torch.no_grad():
        for step in range(3):
            x = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(step))
            result, same = fast(x, mine)
            assert same is mine
            torch.testing.assert_close(result, model(x, theirs)[0])
        torch.testing.assert_close(mine.layers[0].values, theirs.layers[0].values)
        assert mine.layers[0].cumulative_length == 3 and len(fast.executables) == 1
        fast(x, static_cache(9))  # another length is another signature
        assert len(fast.executables) == 2


def test_what_a_call_does_to_a_cache_besides_updating_it_is_refused() -> None:
    class Growing(nn.Module):
        def forward(self, x: Tensor, cache: StaticCache) -> Tensor:
            cache.layers[0].keys = torch.cat([cache.layers[0].keys, x], 2)
            return cache.layers[0].keys.sum()

    class Counting(nn.Module):
        def forward(self, x: Tensor, cache: StaticCache) -> Tensor:
            cache.layers[0].batch_size += 1
            return x + 1

    x = torch.randn(1, 2, 1, 4)
    with torch.no_grad(), pytest.raises(ExportError, match=r"replaces tensors of the StaticCache.*static cache"):
        mlc.compile(Growing())(x, static_cache())
    with torch.no_grad(), pytest.raises(ExportError, match=r"changes 'layers\[0\].batch_size' of the StaticCache"):
        mlc.compile(Counting())(x, static_cache())
