"""Models of ``transformers`` by the names of their classes, from their configurations; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_HEADS = ("ForCausalLM", "LMHeadModel", "EncoderModel", "Model", "ForImageClassification", "ForObjectDetection", "ForDepthEstimation")
_FURTHER_HEADS = ("ForSemanticSegmentation", "ForPrediction", "ForConditionalGeneration")


def hugging_face(model: str, config: str | None = None, **options: Any) -> Callable[[], nn.Module]:
    """What constructs the class called ``model`` with ``options`` of its configuration; that class goes by the model's unless named."""

    def construct() -> nn.Module:
        import transformers

        stem = model
        for head in (*_HEADS, *_FURTHER_HEADS):
            stem = stem.removesuffix(head)
        made = getattr(transformers, config or f"{stem}Config")(**options)
        result: nn.Module = getattr(transformers, model)(made)
        return result

    return construct
