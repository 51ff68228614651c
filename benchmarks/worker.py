"""One system on one model in a process of its own: ``python -m mlc.benchmarks.worker '{"model": ..., "system": ..., ...}'``.

Commands come as JSON lines on standard input, answers go as JSON lines to standard output:

- at the start: ``{"prepare_s": seconds, "moved": bytes, "work": what a call needs, or null}`` or ``{"failed": "why"}``
- ``{"do": "outputs", "path": ..., "reference": path or null}``: saves the outputs, and the float64 ones if asked to
- ``{"do": "round", "seconds": s}``: warms up, then answers ``{"times": [...]}`` of about ``s`` seconds of calls
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np
import torch

from ..model_source import load_model
from . import accuracy
from .prepared import reason
from .systems import BASELINE, SYSTEMS
from .work import work

WARM_UP = 3
MOST_CALLS = 2000
FEWEST_CALLS = 3


def main() -> None:
    request = json.loads(sys.argv[1])
    answers = _own_standard_output()
    torch.set_num_threads(request["threads"])
    try:
        source = load_model(request["model"])
        inputs = source.inputs
        begin = time.perf_counter()
        system = SYSTEMS[request["system"]](**request["options"])
        prepared = system.prepare(source.eager, inputs, request["threads"])
        with torch.no_grad():
            prepared.call()
        prepare_s = time.perf_counter() - begin
        needed = asdict(work(source.eager, inputs)) if request["system"] == BASELINE else None
    except Exception as error:  # a peer may fail in any way: that is a result
        _answer(answers, {"failed": reason(error)})
        raise
    _answer(answers, {"prepare_s": prepare_s, "moved": prepared.moved, "work": needed})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            with torch.no_grad():
                if command["do"] == "outputs":
                    _save(command["path"], prepared.read(prepared.call()))
                    if command["reference"]:
                        _save(command["reference"], accuracy.reference(source.eager, inputs))
                    _answer(answers, {})
                else:
                    _answer(answers, {"times": timed_calls(prepared.call, command["seconds"])})
        except Exception as error:
            _answer(answers, {"failed": reason(error)})
            raise


def timed_calls(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each of as many calls as fit ``seconds``, after a warm-up."""
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        call()
    each = (time.perf_counter() - begin) / WARM_UP
    count = min(MOST_CALLS, max(FEWEST_CALLS, int(seconds / max(each, 1e-9))))
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def _own_standard_output() -> IO[str]:
    """Standard output for answers alone; what anything else prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


def _save(path: str, outputs: Sequence[torch.Tensor]) -> None:
    np.savez(path, *(output.detach().numpy() for output in outputs))


if __name__ == "__main__":
    main()
