"""Times greedy decoding with a static cache, token by token: mlc beside eager PyTorch.

``python -m mlc.benchmarks.decode [--model gpt2 llama] [--layers 4] [--tokens 64] [--cache 512] [--json file]``. Models of Hugging Face in
their real widths and of reduced depth, with random weights; a prompt of 16 tokens is processed first. Eager PyTorch is timed with a cache
that grows (its default, each token concatenates) and with the static one that mlc updates in place. The systems take turns, a whole text
each; figures are medians. What each generates is compared.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, StaticCache

from .. import compile
from .models import randomise

_PROMPT = 16


@dataclass(frozen=True)
class Decoding:
    """Milliseconds of the prompt and of each further token (median), and whether the tokens are eager PyTorch's."""

    model: str
    system: str
    prompt: float
    token: float
    same: bool


def gpt2(layers: int) -> PreTrainedModel:
    """GPT-2 small but for its depth."""
    return GPT2LMHeadModel(GPT2Config(n_layer=layers))


def llama(layers: int) -> PreTrainedModel:
    """TinyLlama 1.1B but for its depth."""
    sizes = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, max_position_embeddings=2048, **sizes))


MODELS: dict[str, Callable[[int], PreTrainedModel]] = {"gpt2": gpt2, "llama": llama}


def measure(name: str, layers: int, tokens: int, cache: int, rounds: int = 3) -> list[Decoding]:
    """The figures of one model."""
    model: Any = MODELS[name](layers)
    prompt = torch.randint(0, model.config.vocab_size, (1, _PROMPT), generator=torch.Generator().manual_seed(0))
    model = randomise(model, (prompt,))
    fast = compile(model)

    def static() -> StaticCache:
        made = StaticCache(config=model.config, max_cache_len=cache)
        heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
        made.early_initialization(1, heads, model.config.hidden_size // model.config.num_attention_heads, model.dtype, model.device)
        return made

    systems: dict[str, tuple[Callable[..., Any], Callable[[], Cache]]] = {
        "eager, growing cache": (model, lambda: DynamicCache(config=model.config)),
        "eager, static cache": (model, static),
        "mlc, static cache": (fast, static),
    }
    runs: dict[str, list[tuple[list[int], list[float]]]] = {system: [] for system in systems}
    with torch.no_grad():
        for _ in range(rounds + 1):  # the first round warms up, and compiles
            for system, (step, make) in systems.items():
                runs[system].append(_decode(step, make(), prompt, tokens))
    reference = runs["eager, static cache"][0][0]
    figures = []
    for system, results in runs.items():
        times = [seconds for _, seconds in results[1:]]
        token = statistics.median(second for seconds in times for second in seconds[1:])
        first = statistics.median(seconds[0] for seconds in times)
        figures.append(Decoding(name, system, 1e3 * first, 1e3 * token, all(found == reference for found, _ in results)))
    return figures


def _decode(step: Callable[..., Any], cache: Cache, prompt: Tensor, tokens: int) -> tuple[list[int], list[float]]:
    """The tokens that follow the prompt, and the seconds that each took."""
    found: list[int] = []
    times = []
    ids = prompt
    for _ in range(tokens):
        begin = time.perf_counter()
        ids = step(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        times.append(time.perf_counter() - begin)
        found.append(int(ids))
    return found, times


def table(figures: Sequence[Decoding]) -> str:
    """The figures as text."""
    lines = ["model  system                prompt ms  token ms  same tokens"]
    lines += [
        f"{figure.model:<6} {figure.system:<22} {figure.prompt:8.2f}  {figure.token:8.3f}  {'yes' if figure.same else 'NO'}"
        for figure in figures
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mlc.benchmarks.decode", description="Time decoding with a static cache.")
    parser.add_argument("--model", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--cache", type=int, default=512, help="length of the static cache")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args(arguments)
    figures = [figure for name in options.model for figure in measure(name, options.layers, options.tokens, options.cache)]
    print(table(figures))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
