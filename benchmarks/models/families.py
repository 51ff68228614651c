"""Model families at their real widths and reduced depth: what ``python -m mlc.benchmarks.coverage`` compiles.

Every entry has the attention variant, the norms, the activations and the position encoding of the published model; depth (and the
vocabulary where it only adds bytes) is cut. Weights are random, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .hugging_face import hugging_face
from .plain import PLAIN
from .randomise import randomise

VOCABULARY = 8192
LENGTH = 128


@dataclass(frozen=True)
class Family:
    """One model: ``build(seed)`` gives it in eval mode with its keyword arguments."""

    name: str
    construct: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], dict[str, Tensor]]
    reference: Callable[[nn.Module], None] = field(default=lambda model: None)
    """Changes a copy of the model so that it can run in float64."""

    def build(self, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
        inputs = self.inputs(torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        return randomise(KeywordModule(self.construct()).eval(), (inputs,), seed).get_submodule("model"), inputs


class KeywordModule(nn.Module):
    """Passes one dictionary on as keyword arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        return self.model(**inputs)


def _tokens(generator: torch.Generator, length: int = LENGTH, batch: int = 1, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(3, vocabulary, (batch, length), generator=generator)


def _text(generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_ids": _tokens(generator)}


def _short_text(generator: torch.Generator) -> dict[str, Tensor]:
    """For models that gather a copy of an expert's weights for every token."""
    return {"input_ids": _tokens(generator, 32)}


def _masked_text(generator: torch.Generator) -> dict[str, Tensor]:
    mask = torch.ones(1, LENGTH, dtype=torch.int64)
    mask[:, LENGTH - 13 :] = 0
    return {"input_ids": _tokens(generator), "attention_mask": mask}


def _pair(generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_ids": _tokens(generator), "decoder_input_ids": _tokens(generator, 32)}


def _image(size: int = 224) -> Callable[[torch.Generator], dict[str, Tensor]]:
    return lambda generator: {"pixel_values": torch.randn(1, 3, size, size, generator=generator)}


def _image_and_text(size: int, length: int) -> Callable[[torch.Generator], dict[str, Tensor]]:
    return lambda generator: {"input_ids": _tokens(generator, length), "pixel_values": torch.randn(1, 3, size, size, generator=generator)}


def _decoder(model: str, **options: Any) -> Callable[[], nn.Module]:
    common = {"vocab_size": VOCABULARY, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return hugging_face(model, **{**common, **options})


def _use_batched_experts(model: nn.Module) -> None:
    """Float64 has no grouped matmul in PyTorch."""
    for module in model.modules():
        if (config := getattr(module, "config", None)) is not None:
            config._experts_implementation = "batched_mm"


def _mixture(model: str, implementation: str | None, **options: Any) -> Callable[[], nn.Module]:
    extra = {} if implementation is None else {"experts_implementation": implementation}
    return _decoder(model, num_hidden_layers=2, **options, **extra)


_MIXTRAL = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2, "num_local_experts": 4}
_QWEN_MOE = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "moe_intermediate_size": 352,
    "shared_expert_intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_experts": 8,
}

_VISION = (
    Family("ConvNeXt", hugging_face("ConvNextForImageClassification", depths=[1, 1, 2, 1]), _image()),
    Family(
        "EfficientNet",
        hugging_face("EfficientNetForImageClassification", width_coefficient=1.0, depth_coefficient=0.5, hidden_dim=1280, image_size=224),
        _image(),
    ),
    Family("Swin", hugging_face("SwinForImageClassification", depths=[2, 2, 2, 2]), _image()),
    Family("Swin-v2", hugging_face("Swinv2ForImageClassification", depths=[2, 2, 2, 2], image_size=256, window_size=8), _image(256)),
    Family("DeiT", hugging_face("DeiTForImageClassification", num_hidden_layers=2), _image()),
    Family("SegFormer", hugging_face("SegformerForSemanticSegmentation", depths=[1, 1, 1, 1]), _image()),
    Family(
        "DETR",
        hugging_face(
            "DetrForObjectDetection",
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            encoder_layers=2,
            decoder_layers=2,
        ),
        _image(256),
    ),
    Family(
        "YOLOS", hugging_face("YolosForObjectDetection", num_hidden_layers=2, image_size=[224, 224], num_detection_tokens=100), _image()
    ),
    Family(
        "DPT",
        hugging_face("DPTForDepthEstimation", num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], image_size=224, is_hybrid=False),
        _image(),
    ),
    Family(
        "VideoMAE",
        hugging_face("VideoMAEModel", num_hidden_layers=2, num_frames=8),
        lambda g: {"pixel_values": torch.randn(1, 8, 3, 224, 224, generator=g)},
    ),
    Family(
        "CLIP",
        hugging_face(
            "CLIPModel",
            text_config={"num_hidden_layers": 2, "vocab_size": VOCABULARY, "eos_token_id": 2},
            vision_config={"num_hidden_layers": 2},
        ),
        _image_and_text(224, 77),
    ),
    Family(
        "SigLIP",
        hugging_face("SiglipModel", text_config={"num_hidden_layers": 2, "vocab_size": VOCABULARY}, vision_config={"num_hidden_layers": 2}),
        _image_and_text(224, 64),
    ),
)

_ENCODERS = (
    Family("DistilBERT", hugging_face("DistilBertModel", n_layers=2, vocab_size=VOCABULARY), _masked_text),
    Family("RoBERTa", hugging_face("RobertaModel", num_hidden_layers=2, vocab_size=VOCABULARY), _masked_text),
    Family(
        "ALBERT",
        hugging_face(
            "AlbertModel", num_hidden_layers=2, vocab_size=VOCABULARY, hidden_size=768, num_attention_heads=12, intermediate_size=3072
        ),
        _masked_text,
    ),
    Family(
        "DeBERTa-v2",
        hugging_face(
            "DebertaV2Model",
            num_hidden_layers=2,
            vocab_size=VOCABULARY,
            hidden_size=768,
            num_attention_heads=12,
            intermediate_size=3072,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=256,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
        ),
        _masked_text,
    ),
    Family("T5", hugging_face("T5Model", num_layers=2, vocab_size=VOCABULARY, use_cache=False), _pair),
    Family(
        "BART",
        hugging_face(
            "BartModel",
            encoder_layers=2,
            decoder_layers=2,
            vocab_size=VOCABULARY,
            d_model=768,
            encoder_attention_heads=12,
            decoder_attention_heads=12,
            use_cache=False,
        ),
        _pair,
    ),
)

_DECODERS = (
    Family("OPT", _decoder("OPTForCausalLM", num_hidden_layers=2), _text),
    Family(
        "GPT-NeoX",
        _decoder("GPTNeoXForCausalLM", hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=2),
        _text,
    ),
    Family("Bloom", _decoder("BloomForCausalLM", hidden_size=1024, n_head=16, n_layer=2), _text),
    Family(
        "Mistral",
        _decoder(
            "MistralForCausalLM",
            hidden_size=1024,
            intermediate_size=3584,
            num_attention_heads=16,
            num_key_value_heads=4,
            num_hidden_layers=2,
            sliding_window=64,
        ),
        _text,
    ),
    Family("Mixtral", _mixture("MixtralForCausalLM", None, **_MIXTRAL), _text, _use_batched_experts),
    Family("Mixtral batched_mm", _mixture("MixtralForCausalLM", "batched_mm", **_MIXTRAL), _short_text),
    Family("Qwen2-MoE", _mixture("Qwen2MoeForCausalLM", None, **_QWEN_MOE), _text, _use_batched_experts),
    Family("Qwen2-MoE batched_mm", _mixture("Qwen2MoeForCausalLM", "batched_mm", **_QWEN_MOE), _short_text),
    Family(
        "Qwen3",
        _decoder(
            "Qwen3ForCausalLM",
            hidden_size=1024,
            intermediate_size=3072,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            num_hidden_layers=2,
        ),
        _text,
    ),
    Family(
        "Gemma2",
        _decoder(
            "Gemma2ForCausalLM",
            hidden_size=1152,
            intermediate_size=4608,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            num_hidden_layers=2,
            sliding_window=64,
        ),
        _text,
    ),
    Family(
        "Phi3",
        _decoder(
            "Phi3ForCausalLM", hidden_size=1024, intermediate_size=2816, num_attention_heads=16, num_key_value_heads=16, num_hidden_layers=2
        ),
        _text,
    ),
    Family("Falcon", _decoder("FalconForCausalLM", hidden_size=1024, num_attention_heads=16, num_hidden_layers=2), _text),
    Family("Mamba", _decoder("MambaForCausalLM", hidden_size=768, num_hidden_layers=2), lambda g: {"input_ids": _tokens(g, 64)}),
    Family(
        "Mamba2",
        _decoder("Mamba2ForCausalLM", hidden_size=768, num_heads=24, head_dim=64, num_hidden_layers=2, chunk_size=64),
        lambda g: {"input_ids": _tokens(g, 128)},
    ),
    Family(
        "RWKV",
        _decoder("RwkvForCausalLM", hidden_size=768, attention_hidden_size=768, num_hidden_layers=2),
        lambda g: {"input_ids": _tokens(g, 32)},
    ),
)

_SIGNALS = (
    Family(
        "Whisper",
        hugging_face(
            "WhisperModel",
            encoder_layers=2,
            decoder_layers=2,
            d_model=384,
            encoder_attention_heads=6,
            decoder_attention_heads=6,
            encoder_ffn_dim=1536,
            decoder_ffn_dim=1536,
            vocab_size=VOCABULARY,
            use_cache=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        ),
        lambda g: {"input_features": torch.randn(1, 80, 3000, generator=g), "decoder_input_ids": _tokens(g, 16)},
    ),
    Family("Wav2Vec2", hugging_face("Wav2Vec2Model", num_hidden_layers=2), lambda g: {"input_values": torch.randn(1, 16000, generator=g)}),
    Family(
        "PatchTST",
        hugging_face(
            "PatchTSTForPrediction",
            num_input_channels=7,
            context_length=512,
            prediction_length=96,
            patch_length=16,
            patch_stride=8,
            num_hidden_layers=2,
        ),
        lambda g: {"past_values": torch.randn(1, 512, 7, generator=g)},
    ),
)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        *_VISION,
        *_ENCODERS,
        *_DECODERS,
        *_SIGNALS,
        *(Family(name, construct, inputs) for name, (construct, inputs) in PLAIN.items()),
    )
}
"""The models by name, in the order of the table."""
