"""Transformers from Hugging Face configurations with random weights; nothing is downloaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .randomise import randomise


def _tokens(length: int, vocabulary: int, batch: int, seed: int) -> Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def vit_b16(layers: int = 12, size: int = 224, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """ViT-B/16 with a classifier. Input (batch, 3, size, size), output logits (batch, 1000)."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(num_hidden_layers=layers, image_size=size, num_labels=1000, attn_implementation="sdpa")
    inputs = (torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)),)
    return randomise(ViTForImageClassification(config), inputs, seed), inputs


def bert_base(layers: int = 12, length: int = 128, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """BERT-base encoder with its pooler. Input token numbers (batch, length), hidden states (batch, length, 768)."""
    from transformers import BertConfig, BertModel

    config = BertConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    inputs = (_tokens(length, config.vocab_size, batch, seed),)
    return randomise(BertModel(config), inputs, seed), inputs


def gpt2(layers: int = 12, length: int = 128, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """GPT-2 (124M) with its tied language-model head. Input token numbers (batch, length), logits (batch, length, 50257)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=layers, use_cache=False, attn_implementation="sdpa")
    inputs = (_tokens(length, config.vocab_size, batch, seed),)
    return randomise(GPT2LMHeadModel(config), inputs, seed), inputs


def llama(layers: int = 8, length: int = 128, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Llama of width 1024 with 16 query and 4 key heads. Input token numbers (batch, length), logits (batch, length, 32000)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        use_cache=False,
        attn_implementation="sdpa",
    )
    inputs = (_tokens(length, config.vocab_size, batch, seed),)
    return randomise(LlamaForCausalLM(config), inputs, seed), inputs


def llama_token(layers: int = 8, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The same Llama for a single token."""
    return llama(layers, 1, batch, seed)
