"""The child's side of :class:`~.workers.Worker`: ``python -m mlc.autotune.worker FACTORY MEMORY_BYTES``."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1


def resolve(factory: str) -> Callable[[], Any]:
    """The callable that ``package.module:name`` or ``file.py:name`` names."""
    place, _, name = factory.rpartition(":")
    if place.endswith(".py"):
        specification = importlib.util.spec_from_file_location("mlc_worker_factory", place)
        if specification is None or specification.loader is None:
            raise ImportError(f"cannot import {place}")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found: Callable[[], Any] = getattr(module, name)
    return found


def end_with_parent() -> None:
    """Has this process killed when the thread that started it ends, even inside a kernel that hangs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(factory: str, memory_bytes: int) -> None:
    """Answers requests until the parent closes the pipe."""
    end_with_parent()
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Answers have a pipe of their own: what kernels and compilers print must not mix with them.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    served = resolve(factory)()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            document = {"result": getattr(served, request["method"])(**request["arguments"])}
        except Exception as error:
            document = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(document) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
