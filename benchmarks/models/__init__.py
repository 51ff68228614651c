"""The models that mlc is tested and timed on.

Each builder returns ``(model in eval mode, example inputs)`` with every weight drawn from a seed; the same builders are what the
command line takes: ``mlc run mlc.benchmarks.models:resnet50``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .convolutional import mobilenet_v1, mobilenet_v2, resnet50, unet
from .kernels import conv1x1_256_512_14, conv3x3_64_56, conv3x3_512_7, matmul_128x768x768, mlp_tiny
from .mlp import mlp
from .published import (
    bert_base_batch8,
    convnext_tiny,
    efficientnet_b0,
    mamba,
    resnet50_batch8,
    swin_tiny,
    t5_small_encoder,
    whisper_tiny_encoder,
)
from .randomise import randomise
from .transformer import bert_base, gpt2, llama, llama_token, vit_b16

__all__ = [
    "BENCHMARK",
    "CPU",
    "GROUPS",
    "KERNELS",
    "ZOO",
    "ZooModel",
    "bert_base",
    "bert_base_batch8",
    "conv1x1_256_512_14",
    "conv3x3_64_56",
    "conv3x3_512_7",
    "convnext_tiny",
    "efficientnet_b0",
    "expand",
    "gpt2",
    "llama",
    "llama_token",
    "mamba",
    "matmul_128x768x768",
    "mlp",
    "mlp_tiny",
    "mobilenet_v1",
    "mobilenet_v2",
    "randomise",
    "resnet50",
    "resnet50_batch8",
    "spec",
    "swin_tiny",
    "t5_small_encoder",
    "unet",
    "vit_b16",
    "whisper_tiny_encoder",
]


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo. ``shallow`` are the arguments of ``builder`` that cut its depth but keep its width."""

    name: str
    builder: Callable[..., tuple[nn.Module, tuple[Tensor, ...]]]
    shallow: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """How the command line names the full-size model."""
        return f"{__name__}:{self.builder.__name__}"

    def full(self, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
        return self.builder(seed=seed)

    def small(self, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Full width, reduced depth; of some a smaller input."""
        return self.builder(**self.shallow, seed=seed)


ZOO: Mapping[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("resnet50", resnet50, {"blocks": (2, 1, 1, 1)}),
        ZooModel("mobilenet_v2", mobilenet_v2, {"depth": 2}),
        ZooModel("vit_b16", vit_b16, {"layers": 2}),
        ZooModel("bert_base", bert_base, {"layers": 2}),
        ZooModel("gpt2", gpt2, {"layers": 2}),
        ZooModel("llama", llama, {"layers": 2}),
        ZooModel("llama_token", llama_token, {"layers": 2}),
        ZooModel("mlp", mlp),
        ZooModel("unet", unet, {"levels": 2, "size": 64}),
        ZooModel("convnext_tiny", convnext_tiny, {"depths": (1, 1, 1, 1)}),
        ZooModel("swin_tiny", swin_tiny, {"depths": (2, 1, 1, 1)}),
        ZooModel("efficientnet_b0", efficientnet_b0, {"depth": 0.1}),
        ZooModel("whisper_tiny_encoder", whisper_tiny_encoder, {"layers": 1, "seconds": 5}),
        ZooModel("t5_small_encoder", t5_small_encoder, {"layers": 1}),
        ZooModel("mamba", mamba, {"layers": 1, "length": 16}),
        ZooModel("resnet50_batch8", resnet50_batch8, {"blocks": (1, 1, 1, 1)}),
        ZooModel("bert_base_batch8", bert_base_batch8, {"layers": 1}),
    )
}

KERNELS: Mapping[str, ZooModel] = {
    builder.__name__: ZooModel(builder.__name__, builder)
    for builder in (matmul_128x768x768, conv3x3_64_56, conv1x1_256_512_14, conv3x3_512_7, mlp_tiny)
}
"""Single layers and a tiny network."""

BENCHMARK = ("resnet50", "mobilenet_v2", "vit_b16", "bert_base", "gpt2", "llama", "llama_token", "mlp")
"""The models that ``mlc bench`` times."""

CPU = (
    *BENCHMARK,
    "convnext_tiny",
    "swin_tiny",
    "efficientnet_b0",
    "whisper_tiny_encoder",
    "t5_small_encoder",
    "mamba",
    "resnet50_batch8",
    "bert_base_batch8",
)
"""The models that are compared with other systems on CPUs."""

GROUPS: Mapping[str, tuple[str, ...]] = {"models": BENCHMARK, "cpu": CPU, "all": tuple(ZOO), "kernels": tuple(KERNELS)}
"""Names that stand for several."""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` with the groups among them replaced by their members."""
    return tuple(member for name in names for member in GROUPS.get(name, (name,)))


def spec(name: str) -> str:
    """How the command line names the model called ``name``; ``name`` itself when it is not one of ours."""
    entry = ZOO.get(name) or KERNELS.get(name)
    return entry.spec if entry else name
