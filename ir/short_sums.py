"""Weights of bytes whose products with unsigned bytes may be summed in 16 bits, several at once, whatever those bytes are.

Instructions of processors that multiply no bytes in 32 bits (vpmaddubsw) sum the products of two neighbours in 16 bits. They saturate
unless the weights are small enough; then a few such sums may even be added before they are widened. The encoding ``short_sums`` says of a
constant that it is so; its numbers are those of the array. Along its axis, inputs come in words of four; what shares a sum are the
first two numbers of each of some neighbouring words, and the last two.
"""

from __future__ import annotations

import functools

import numpy as np

from .encoding import Encoding

SHORT_SUMS = "short_sums"
"""The name of the encoding."""
LIMIT = 128
"""What the positive numbers of a sum add up to at most, and the negative ones in magnitude: 255 times it is below 2**15."""
_WORD = 4


def short_sums(words: int, axis: int = 1) -> Encoding:
    """The encoding of sums over so many neighbouring words along an axis."""
    return Encoding(SHORT_SUMS, (("words", words), ("axis", axis)))


def words_of(encoding: Encoding) -> int:
    """Over how many words the products of an encoding of this name may be summed."""
    words = dict(encoding.parameters)["words"]
    assert isinstance(words, int)
    return words


def has_short_sums(array: np.ndarray, encoding: Encoding) -> bool:
    """Whether ``array``, of int8, is what ``encoding`` says."""
    summed = _by_sum(array, encoding)
    return all(int(_added(_magnitudes(summed, sign)).max(initial=0)) <= LIMIT for sign in (1, -1))


def with_short_sums(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """``array``, of int8, with numbers nearer to zero where they add up to too much: all of one sign in a sum by the same factor."""
    summed = _by_sum(array, encoding)
    parts = [_shrunk(_magnitudes(summed, sign)) for sign in (1, -1)]
    whole = np.asarray(parts[0] - parts[1], np.int8).reshape(*summed.shape[:-4], -1)
    axis = _axis(encoding)
    return np.ascontiguousarray(np.moveaxis(whole[..., : array.shape[axis]], -1, axis))


def sums_of(magnitudes: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Of the numbers [outputs, inputs, ...] that share a sum, the total and that of their squares: [outputs, sums] each."""
    summed = _by_sum(magnitudes, encoding)
    return _added(summed).reshape(len(magnitudes), -1), _added(np.square(summed)).reshape(len(magnitudes), -1)


def _axis(encoding: Encoding) -> int:
    axis = dict(encoding.parameters)["axis"]
    assert isinstance(axis, int)
    return axis


def _by_sum(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """``array`` as [..., sums, words, halves of a word, numbers of a half]."""
    words = words_of(encoding)
    last = np.moveaxis(array, _axis(encoding), -1)
    groups = -(-last.shape[-1] // (_WORD * words))
    if missing := groups * _WORD * words - last.shape[-1]:
        last = np.pad(last, [(0, 0)] * (last.ndim - 1) + [(0, missing)])
    return last.reshape(*last.shape[:-1], groups, words, 2, _WORD // 2)


def _added(summed: np.ndarray) -> np.ndarray:
    """The sums of what :func:`_by_sum` gives: by element, which is much quicker than along axes so short."""
    parts = [summed[..., word, :, number] for word in range(summed.shape[-3]) for number in range(summed.shape[-1])]
    return np.asarray(functools.reduce(np.add, parts))


def _magnitudes(numbers: np.ndarray, sign: int) -> np.ndarray:
    """The magnitudes of the numbers of one sign, and zeros in place of the others."""
    return np.maximum(numbers.astype(np.int16) * sign, 0)


def _shrunk(magnitudes: np.ndarray) -> np.ndarray:
    total = _added(magnitudes)
    place = np.nonzero(total > LIMIT)
    if place[0].size:
        moved = np.moveaxis(magnitudes, -2, -3)  # words and numbers last
        moved[place] = moved[place] * LIMIT // total[place][:, None, None]
    return magnitudes
