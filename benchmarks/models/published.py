"""Published networks of further families, at their published sizes unless said otherwise, from Hugging Face configurations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .convolutional import resnet50
from .hugging_face import hugging_face
from .randomise import randomise
from .transformer import bert_base

Made = tuple[nn.Module, tuple[Tensor, ...]]


def _on_image(model: nn.Module, size: int, batch: int, seed: int) -> Made:
    inputs = (torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)),)
    return randomise(model.eval(), inputs, seed), inputs


def _on_tokens(model: nn.Module, length: int, batch: int, seed: int) -> Made:
    inputs = (torch.randint(1, 8192, (batch, length), generator=torch.Generator().manual_seed(seed)),)
    return randomise(model.eval(), inputs, seed), inputs


def convnext_tiny(depths: Sequence[int] = (3, 3, 9, 3), size: int = 224, batch: int = 1, seed: int = 0) -> Made:
    """ConvNeXt-T (Liu et al., 2022) with a classifier. Input (batch, 3, size, size), output logits (batch, 1000)."""
    model = hugging_face("ConvNextForImageClassification", depths=list(depths), num_labels=1000)()
    return _on_image(model, size, batch, seed)


def swin_tiny(depths: Sequence[int] = (2, 2, 6, 2), size: int = 224, batch: int = 1, seed: int = 0) -> Made:
    """Swin-T (Liu et al., 2021) with a classifier. Input (batch, 3, size, size), output logits (batch, 1000)."""
    model = hugging_face("SwinForImageClassification", depths=list(depths), image_size=size, num_labels=1000)()
    return _on_image(model, size, batch, seed)


def efficientnet_b0(depth: float = 1.0, size: int = 224, batch: int = 1, seed: int = 0) -> Made:
    """EfficientNet-B0 (Tan and Le, 2019), ``depth`` multiplying its blocks. Input (batch, 3, size, size), output (batch, 1000)."""
    model = hugging_face(
        "EfficientNetForImageClassification",
        width_coefficient=1.0,
        depth_coefficient=depth,
        hidden_dim=1280,
        image_size=size,
        num_labels=1000,
    )()
    return _on_image(model, size, batch, seed)


def whisper_tiny_encoder(layers: int = 4, seconds: int = 30, batch: int = 1, seed: int = 0) -> Made:
    """The encoder of Whisper-tiny (Radford et al., 2022). Input log-mel spectrogram (batch, 80, 100 a second).

    Output (batch, 50 a second, 384). The published model is always given 30 seconds.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model = WhisperEncoder(WhisperConfig(encoder_layers=layers, max_source_positions=50 * seconds)).eval()
    inputs = (torch.randn(batch, 80, 100 * seconds, generator=torch.Generator().manual_seed(seed)),)
    return randomise(model, inputs, seed), inputs


def t5_small_encoder(layers: int = 6, length: int = 128, batch: int = 1, seed: int = 0) -> Made:
    """The encoder of T5-small (Raffel et al., 2020). Input token numbers (batch, length), output (batch, length, 512)."""
    return _on_tokens(hugging_face("T5EncoderModel", num_layers=layers)(), length, batch, seed)


def mamba(layers: int = 4, length: int = 128, batch: int = 1, seed: int = 0) -> Made:
    """Mamba (Gu and Dao, 2023) at the width of its 130M model, without a head.

    Input token numbers (batch, length), output (batch, length, 768). 4 of its 24 layers: the scan over the tokens is exported as
    ``length`` steps of some ten operations, which every system that compiles pays for in each layer.
    """
    return _on_tokens(hugging_face("MambaModel", num_hidden_layers=layers, use_cache=False)(), length, batch, seed)


def resnet50_batch8(blocks: Sequence[int] = (3, 4, 6, 3), seed: int = 0) -> Made:
    """ResNet-50 on eight images."""
    return resnet50(blocks, batch=8, seed=seed)


def bert_base_batch8(layers: int = 12, seed: int = 0) -> Made:
    """BERT-base on eight texts of 128 tokens."""
    return bert_base(layers, batch=8, seed=seed)
