"""Caches of keys and values in 8 bits, for decoders of Hugging Face's transformers.

Each key and value of a head is stored as 8-bit integers with a scale of its own: the largest magnitude over 127. In eager PyTorch such a
cache saves memory. Compiled, attention over few queries reads the integers, so that a token over a long context takes less time as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import StaticCache, StaticLayer

from .errors import OptionError

_LARGEST = 127
_SMALLEST_SCALE = 1e-30
"""What the scale of a row of zeros is."""


def static_cache(config: Any, max_cache_len: int) -> StaticCache:
    """A transformers ``StaticCache`` of ``max_cache_len`` tokens for a model of this ``config``, stored in 8 bits.

    Pass it as ``past_key_values``, to calls or to ``generate``. OptionError for models whose layers do not keep all tokens (sliding
    windows, recurrent layers).
    """
    cache = StaticCache(config=config, max_cache_len=max_cache_len)
    others = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not StaticLayer})
    if others:
        raise OptionError(f"this model has layers of the kinds {', '.join(others)}, whose caches stay as they are; use its own cache")
    cache.layers = [ByteLayer(max_cache_len) for _ in cache.layers]
    return cache


class ByteLayer(StaticLayer):  # type: ignore[misc]
    """The cache of one layer: ``keys`` and ``values`` are int8 [batch, heads, tokens, width], their scales [batch, heads, tokens, 1]."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor
    value_scales: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes the buffers for states like these."""
        super().lazy_initialization(key_states, value_states)
        self.key_scales, self.value_scales = torch.zeros_like(self.keys[..., :1]), torch.zeros_like(self.values[..., :1])
        self.keys, self.values = self.keys.to(torch.int8), self.values.to(torch.int8)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Stores what the next tokens' keys and values are; all keys and values, decoded."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[-2]
        places = torch.arange(count, device=self.device) + self.cumulative_length
        self.cumulative_length.add_(count)
        return (
            _written(self.keys, self.key_scales, key_states, places),
            _written(self.values, self.value_scales, value_states, places),
        )


def _written(codes: Tensor, scales: Tensor, states: Tensor, places: Tensor) -> Tensor:
    """The decoded content of ``codes`` and ``scales`` after ``states`` were stored at ``places``."""
    scale = (states.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=_SMALLEST_SCALE)
    codes.index_copy_(2, places, torch.round(states / scale).to(torch.int8))
    scales.index_copy_(2, places, scale)
    return codes.to(states.dtype) * scales
