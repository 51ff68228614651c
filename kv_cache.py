"""Caches of keys and values in 8 or 4 bits, for decoders of Hugging Face's transformers.

In 8 bits each key and value of a head is stored as integers with a scale of its own: the largest magnitude over 127. In 4 bits each group
of 32 of its elements has a scale: what is stored is the encoding ``grouped(storage=i4, group=32, scale=f32)`` of ``ir/encodings``, with
the element of largest magnitude for the code -8 (the scale has its sign). In eager PyTorch such a cache saves memory. Compiled, attention
over few queries reads the integers, so that a token over a long context takes less time as well.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import StaticCache, StaticLayer

from .errors import OptionError

_LARGEST = 127
_SMALLEST_SCALE = 1e-30
"""What the scale of zeros is."""
_GROUP = 32
_LOWEST = -8
"""The code of 4 bits that stands for the largest magnitude of a group."""


def static_cache(config: Any, max_cache_len: int, bits: int = 8) -> StaticCache:
    """A transformers ``StaticCache`` of ``max_cache_len`` tokens for a model of this ``config``, stored in ``bits``, 8 or 4.

    Pass it as ``past_key_values``, to calls or to ``generate``. OptionError for other ``bits``, and for models whose layers do not keep all
    tokens (sliding windows, recurrent layers).
    """
    if bits not in _LAYERS:
        raise OptionError(f"keys and values are stored in {' or '.join(map(str, _LAYERS))} bits, not in {bits}")
    cache = StaticCache(config=config, max_cache_len=max_cache_len)
    others = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not StaticLayer})
    if others:
        raise OptionError(f"this model has layers of the kinds {', '.join(others)}, whose caches stay as they are; use its own cache")
    cache.layers = [_LAYERS[bits](max_cache_len) for _ in cache.layers]
    return cache


class EncodedLayer(StaticLayer):  # type: ignore[misc]
    """The cache of one layer: ``keys`` and ``values`` are codes, ``key_numbers`` and ``value_numbers`` what decoding them takes besides,
    each [batch, heads, tokens, some]."""

    keys: Tensor
    values: Tensor
    key_numbers: list[Tensor]
    value_numbers: list[Tensor]

    @staticmethod
    @abstractmethod
    def encoded(states: Tensor) -> list[Tensor]:
        """The codes of ``states``, then the numbers."""

    @staticmethod
    @abstractmethod
    def decoded(codes: Tensor, numbers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """What codes and numbers stand for."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes the buffers for states like these."""
        super().lazy_initialization(key_states, value_states)
        self.keys, *self.key_numbers = self.encoded(self.keys)
        self.values, *self.value_numbers = self.encoded(self.values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Stores what the next tokens' keys and values are; all keys and values, decoded."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[-2]
        places = torch.arange(count, device=self.device) + self.cumulative_length
        self.cumulative_length.add_(count)
        return (
            self._written(self.keys, self.key_numbers, key_states, places),
            self._written(self.values, self.value_numbers, value_states, places),
        )

    def _written(self, codes: Tensor, numbers: Sequence[Tensor], states: Tensor, places: Tensor) -> Tensor:
        """The decoded content of ``codes`` and ``numbers`` after ``states`` were stored at ``places``."""
        for buffer, part in zip((codes, *numbers), self.encoded(states), strict=True):
            buffer.index_copy_(2, places, part)
        return self.decoded(codes, numbers, states.dtype)


class ByteLayer(EncodedLayer):
    """In 8 bits: codes are int8 [batch, heads, tokens, width], the numbers scales [batch, heads, tokens, 1]."""

    @staticmethod
    def encoded(states: Tensor) -> list[Tensor]:
        scale = (states.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=_SMALLEST_SCALE)
        return [torch.round(states / scale).to(torch.int8), scale]

    @staticmethod
    def decoded(codes: Tensor, numbers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        (scale,) = numbers
        return codes.to(dtype) * scale


class NibbleLayer(EncodedLayer):
    """In 4 bits: codes are int8 [batch, heads, tokens, width / 2], whose lower halves are the first half of a key; the numbers are
    sixteenths of scales, float32 [batch, heads, tokens, groups]: where it lies in a byte, an upper code is sixteen times what it is.
    A group is the largest power of two up to 32 elements that divides the width."""

    @staticmethod
    def encoded(states: Tensor) -> list[Tensor]:
        width = states.shape[-1]
        if width % 2:
            raise OptionError(f"keys or values of {width} elements cannot lie in pairs of 4 bits; store them in 8 bits")
        groups = states.float().reshape(*states.shape[:-1], -1, math.gcd(width, _GROUP))
        least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = torch.where(most > -least, most, least) / _LOWEST
        scale = torch.where(scale.abs() < _SMALLEST_SCALE, 1.0, scale)
        codes = torch.round(groups / scale).clamp(_LOWEST, -_LOWEST - 1).to(torch.int8).flatten(-2)
        return [(codes[..., : width // 2] & 15) | (codes[..., width // 2 :] << 4), (scale / 16).squeeze(-1)]

    @staticmethod
    def decoded(codes: Tensor, numbers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        (sixteenths,) = numbers
        whole = torch.cat([codes << 4, codes & -16], -1)
        groups = whole.reshape(*sixteenths.shape, whole.shape[-1] // sixteenths.shape[-1])
        return torch.flatten(groups.float() * sixteenths[..., None], -2).to(dtype)


_LAYERS: dict[int, type[EncodedLayer]] = {8: ByteLayer, 4: NibbleLayer}
