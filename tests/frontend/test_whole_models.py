"""Whole models of tiny sizes, every weight random, against eager PyTorch in float64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from eager import check_round_trip, ints, leaf_indices, rand, tensors
from torch import Tensor, nn

from mlc import ir
from mlc.benchmarks.models import mobilenet_v2, resnet50, unet
from mlc.benchmarks.models.randomise import randomise
from mlc.frontend import import_model

Built = tuple[nn.Module, dict[str, Tensor]]


def tokens(length: int = 8) -> Tensor:
    return ints(1, length, low=3, high=64)


def image(size: int = 32) -> Tensor:
    return rand(1, 3, size, size)


def text_model(name: str, **changes: Any) -> Callable[[], Built]:
    """A Hugging Face text model by its name, as in BertModel and BertConfig."""

    def build() -> Built:
        import transformers

        family, _, kind = name.partition("For")
        sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = getattr(transformers, f"{family}Config")(**sizes | {"max_position_embeddings": 64, "pad_token_id": 0} | changes)
        return getattr(transformers, f"{family}For{kind}" if kind else f"{family}Model")(config), {"input_ids": tokens()}

    return build


def vision_model(name: str, size: int = 32, **changes: Any) -> Callable[[], Built]:
    def build() -> Built:
        import transformers

        config = getattr(transformers, f"{name}Config")(**changes)
        return getattr(transformers, f"{name}Model")(config), {"pixel_values": image(size)}

    return build


def gpt2() -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, use_cache=False)), {"input_ids": tokens()}


def t5() -> Built:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, use_cache=False)
    return T5Model(config), {"input_ids": tokens(), "decoder_input_ids": tokens(5)}


def zoo(built: tuple[nn.Module, tuple[Tensor, ...]], name: str) -> Built:
    model, (x,) = built
    return model, {name: x}


LLAMA = {"num_key_value_heads": 2, "use_cache": False}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32, "patch_size": 8}

MODELS: dict[str, Callable[[], Built]] = {
    "resnet": lambda: zoo(resnet50((1, 1, 1, 1), size=64), "x"),
    "mobilenet_v2": lambda: zoo(mobilenet_v2(1, size=64), "x"),
    "unet": lambda: zoo(unet(2, base=4, size=16), "x"),
    "bert": text_model("BertForSequenceClassification"),
    "gpt2": gpt2,
    "llama": text_model("LlamaForCausalLM", **LLAMA),
    "llama, padded": lambda: _with_mask(text_model("LlamaForCausalLM", **LLAMA)()),
    "mistral with a sliding window": text_model("MistralForCausalLM", **LLAMA, sliding_window=4),
    "t5": t5,
    "vit": vision_model("ViT", **VIT),
    "swin": vision_model("Swin", embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=32, patch_size=2),
    "convnext": vision_model("ConvNext", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    "lstm": lambda: (nn.LSTM(8, 12, 2, bidirectional=True, batch_first=True), {"input": rand(2, 3, 8)}),
    "transformer": lambda: (nn.Transformer(32, 4, 1, 1, 48, batch_first=True), {"src": rand(2, 5, 32), "tgt": rand(2, 6, 32)}),
}


def _with_mask(built: Built) -> Built:
    model, inputs = built
    return model, inputs | {"attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]])}


@pytest.mark.parametrize("name", MODELS)
def test_model_matches_eager_float64(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = MODELS[name]()
    if not any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        model = randomise(model, (), seed=1)
    imported = import_model(model, (), inputs)
    ir.verify(imported.graph)
    check_round_trip(imported.graph)
    with torch.no_grad():
        wide_inputs = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
        expected = tensors(copy.deepcopy(model).double()(**wide_inputs))
    outputs = ir.interpret(imported.graph, [x.numpy() for x in inputs.values()], wide=True)
    indices = leaf_indices(imported.signature.output_tree)
    assert len(indices) == len(expected)
    for index, truth in zip(indices, expected, strict=True):
        # Positions of rotary embeddings are explicitly float32, whatever the model's precision.
        error = np.abs(outputs[index] - truth.numpy()).max() / np.abs(truth.numpy()).max()
        assert error < 1e-5
