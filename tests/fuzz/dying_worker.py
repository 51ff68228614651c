"""A worker that crashes; in a module of its own, which a new process can import."""

from __future__ import annotations

import os
from typing import Any


def dying(pipe: Any, seed: int, reduce_seconds: float) -> None:
    """Serves cases as a worker does, but dies in case 1."""
    while (number := pipe.recv()) != 1:
        pipe.send((None, f"case {number} of seed {seed}", None, "", None, 0.0))
    os._exit(9)
