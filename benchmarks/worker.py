"""One system on one model in a process of its own: ``python -m mlc.benchmarks.worker '{"model": ..., "system": ..., ...}'``.

Commands come as JSON lines on standard input, answers go as JSON lines to standard output:

- at the start: ``{"prepare_s": seconds, "flops": of one call or null}`` or ``{"failed": "why"}``
- ``{"do": "outputs", "path": ..., "reference": path or null}``: saves the outputs, and the float64 ones if asked to
- ``{"do": "round", "seconds": s}``: warms up, then answers ``{"times": [...]}`` of about ``s`` seconds of calls
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..errors import Error
from ..model_source import load_model
from . import accuracy
from .systems import BASELINE, SYSTEMS

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
        call = SYSTEMS[request["system"]]().prepare(source.eager, inputs, request["threads"])
        with torch.no_grad():
            call(*inputs)
    except Error as error:
        _answer(answers, {"failed": str(error)})
        return
    prepare_s = time.perf_counter() - begin
    flops = _flops(source.eager, inputs) if request["system"] == BASELINE else None
    _answer(answers, {"prepare_s": prepare_s, "flops": flops})
    for line in sys.stdin:
        command = json.loads(line)
        with torch.no_grad():
            if command["do"] == "outputs":
                _save(command["path"], accuracy.tensors(call(*inputs)))
                if command["reference"]:
                    _save(command["reference"], accuracy.reference(source.eager, inputs))
                _answer(answers, {})
            else:
                _answer(answers, {"times": timed_calls(call, inputs, command["seconds"])})


def timed_calls(call: Callable[..., Any], inputs: Sequence[Any], seconds: float) -> list[float]:
    """Seconds of each of as many calls as fit ``seconds``, after a warm-up."""
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        call(*inputs)
    each = (time.perf_counter() - begin) / WARM_UP
    count = min(MOST_CALLS, max(FEWEST_CALLS, int(seconds / max(each, 1e-9))))
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call(*inputs)
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


def _flops(model: Any, inputs: Sequence[Any]) -> int:
    """Matrix and convolution FLOPs of a call, as PyTorch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
