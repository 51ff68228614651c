"""Codes of a few bits in bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TOGETHER = 8
"""Codes that fill whole bytes, whatever their width: as many bytes as a code has bits."""


def packed_bytes(shape: Sequence[int], bits: int) -> int:
    """Bytes of the packed codes of a tensor of ``shape``."""
    *rows, length = shape or (1,)
    return int(np.prod(rows, dtype=np.int64)) * -(-length * bits // 8)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The integers ``codes`` (the low ``bits`` of each, 1 to 8) along the last axis as a stream of bits, the least significant first.

    Code i of a row is bits ``i * bits`` to ``(i + 1) * bits`` of it. A row ends with its last byte, what is left of that is zero.
    """
    rows = np.atleast_1d(codes)
    length = rows.shape[-1]
    whole = -(-length // _TOGETHER) * _TOGETHER
    padded = np.zeros((*rows.shape[:-1], whole), np.uint8)
    padded[..., :length] = rows.view(np.uint8) if rows.dtype == np.int8 and rows.flags.c_contiguous else rows.astype(np.uint8)
    padded &= np.uint8((1 << bits) - 1)
    together = padded.reshape(*rows.shape[:-1], whole // _TOGETHER, _TOGETHER)
    words = np.zeros(together.shape[:-1], np.dtype("<u8"))
    for position in range(_TOGETHER):
        words |= together[..., position].astype(np.uint64) << np.uint64(position * bits)
    packed = words[..., None].view(np.uint8)[..., :bits].reshape(*rows.shape[:-1], whole * bits // 8)
    return np.ascontiguousarray(packed[..., : -(-length * bits // 8)])


def unpack_codes(packed: np.ndarray, bits: int, length: int, *, signed: bool = False) -> np.ndarray:
    """The codes, ``length`` along the last axis, of which :func:`pack_codes` made ``packed``: uint8, or int8 if ``signed``."""
    groups = -(-length // _TOGETHER)
    padded = np.zeros((*packed.shape[:-1], groups * bits), np.uint8)
    padded[..., : packed.shape[-1]] = packed
    words = np.zeros((*packed.shape[:-1], groups, 8), np.uint8)
    words[..., :bits] = padded.reshape(*packed.shape[:-1], groups, bits)
    numbers = words.view(np.dtype("<u8"))
    shifts = np.arange(_TOGETHER, dtype=np.uint64) * np.uint64(bits)
    codes = ((numbers >> shifts) & np.uint64((1 << bits) - 1)).astype(np.uint8)
    codes = codes.reshape(*packed.shape[:-1], groups * _TOGETHER)[..., :length]
    if not signed:
        return np.ascontiguousarray(codes)
    unused = 8 - bits
    return (codes << np.uint8(unused)).view(np.int8) >> np.int8(unused)
