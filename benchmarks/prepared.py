"""What a system under measurement gives: a model that can be called again and again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..errors import Error
from . import accuracy

_STYLING = re.compile(r"\x1b\[[0-9;]*m")
"""Colours for terminals."""


@dataclass(frozen=True)
class Prepared:
    """A model ready to be timed: ``call`` runs it on the inputs it was prepared for, ``read`` makes tensors of what a call gave.

    ``moved`` are the bytes that its kernels read and write in a call, weights as they are stored; 0 where nobody knows.
    """

    call: Callable[[], Any]
    read: Callable[[Any], list[Tensor]] = accuracy.tensors
    moved: int = 0


class System(Protocol):
    """Something that runs models."""

    def prepare(self, model: Callable[..., Any], inputs: Sequence[Any], threads: int) -> Prepared:
        """``model`` on ``inputs``, everything done that need not be done at each call."""


def reason(error: BaseException) -> str:
    """What went wrong at first, by kind and the beginning of its text, short enough for a table; an error of mlc speaks for itself."""
    while not isinstance(error, Error) and (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    text = " ".join(_STYLING.sub("", str(error)).split())[:300]
    if isinstance(error, Error):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
