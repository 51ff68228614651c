"""Pauses of the garbage collector while much is made that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keeps the garbage collector from looking again and again through what PyTorch loads and traces, nearly all of which stays.

    Afterwards everything counts as old: it is looked through in the next full collection and not at once.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else unfreeze would undo what somebody did on purpose, before a fork for instance
            gc.freeze()
            gc.unfreeze()
        gc.enable()
