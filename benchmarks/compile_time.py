"""Times compiling and loading, and weighs a process that serves an artifact.

``python -m mlc.benchmarks.compile_time [model ...] [--json file]`` takes each model through fresh processes that share one cache, which is
empty at first: *cold*; *warm*, the same again (five times, of which the median counts); *similar*, the shallow form of the model with the
cache of the first (other depth, same widths); and *serve*, which loads the artifact and calls it, without PyTorch and TVM.

Seconds are those of ``mlc.compile`` (trace and export included) and ``mlc.load`` (the first one extracts the members into the cache).
Megabytes are those resident in the serving process; *beyond* are those beyond weights and arena, *grown* those that came with the last
thousand calls. *bound* is the least size that any arena could have.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

_MODULE = "mlc.benchmarks.compile_time"
_REPEATS = 5
"""Processes that compile again; the one of median time counts."""
_CALLS = 1000
"""After these, the serving process must not have grown."""
_MB = 1 << 20


def measure(name: str, threads: int | None = None) -> dict[str, Any]:
    """All figures of one model of the zoo."""
    with tempfile.TemporaryDirectory(prefix="mlc-compile-time-") as folder:
        artifact = pathlib.Path(folder) / "model.mlc"
        figures: dict[str, Any] = {"model": name}
        repeated: dict[str, list[dict[str, Any]]] = {}
        for step in ("cold", *["warm"] * _REPEATS, "similar", "serve"):
            job = {"step": step, "model": name, "artifact": str(artifact), "threads": threads}
            environment = {**os.environ, "MLC_CACHE_DIR": str(pathlib.Path(folder) / "cache")}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)  # sources of an installed package are compiled already
            command = [sys.executable, "-m", _MODULE, "--job", json.dumps(job)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"'{step}' of {name} failed:\n{done.stderr[-2000:]}")
            repeated.setdefault(step, []).append(json.loads(done.stdout.splitlines()[-1]))
        for step, runs in repeated.items():
            figures[step] = sorted(runs, key=lambda run: run.get("seconds", 0.0))[len(runs) // 2]
        return figures


def _compile(job: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    import torch

    imported = time.perf_counter() - begin
    import mlc

    from .models import ZOO

    model = ZOO[job["model"]]
    torch.manual_seed(0)
    module, inputs = model.small() if job["step"] == "similar" else model.full()
    begin = time.perf_counter()
    compiled = mlc.compile(module, example_inputs=inputs, threads=job["threads"])
    seconds = time.perf_counter() - begin
    if job["step"] == "cold":
        compiled.save(job["artifact"])
    return {"seconds": seconds, "import": imported, "tvm": "tvm" in sys.modules}


def _serve(job: dict[str, Any]) -> dict[str, Any]:
    import mlc

    bare = _memory()
    times = []
    for _ in range(2):  # the first one extracts
        begin = time.perf_counter()
        model = mlc.load(job["artifact"], threads=job["threads"])
        times.append(time.perf_counter() - begin)
    (program,) = model.report().programs
    from ..runtime.frameworks import random_inputs

    inputs = random_inputs(model.signatures[0], torch=False)
    begin = time.perf_counter()
    model(*inputs)
    first = time.perf_counter() - begin
    for _ in range(10):
        model(*inputs)
    early = _memory()
    end = time.perf_counter() + 30
    calls = 0
    while calls < _CALLS and time.perf_counter() < end:
        model(*inputs)
        calls += 1
    late = _memory()
    return {
        "first_load_seconds": times[0],
        "load_seconds": times[1],
        "first_call_seconds": first,
        "bare": bare,
        "memory": late,
        "grown": late["resident"] - early["resident"],
        "calls": calls,
        "weights": program.weights_bytes,
        "arena": program.arena_bytes,
        "arena_lower_bound": program.arena_lower_bound,
        "beyond": late["resident"] - program.weights_bytes - program.arena_bytes,
        "heavy": sorted({"torch", "tvm"} & sys.modules.keys()),
    }


def _memory() -> dict[str, int]:
    """Bytes in the memory of this process: all that is resident, its proportional share, and what nobody else has."""
    names = {"Rss": "resident", "Pss": "proportional", "Private_Clean": "private", "Private_Dirty": "private", "Anonymous": "anonymous"}
    found = dict.fromkeys(names.values(), 0)
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        field, _, rest = line.partition(":")
        if field in names:
            found[names[field]] += int(rest.split()[0]) * 1024
    return found


def _line(figures: dict[str, Any]) -> str:
    serve = figures["serve"]
    return (
        f"{figures['model']:13} {figures['cold']['seconds']:6.2f} {figures['warm']['seconds']:6.2f} {figures['similar']['seconds']:8.2f} "
        f"{serve['first_load_seconds']:8.3f} {serve['load_seconds']:8.3f} {serve['memory']['resident'] / _MB:9.1f} "
        f"{serve['weights'] / _MB:8.1f} {serve['arena'] / _MB:7.1f} {serve['arena_lower_bound'] / _MB:7.1f} {serve['beyond'] / _MB:7.1f} "
        f"{serve['grown'] / _MB:6.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet50"], help="names of the zoo (default: resnet50)")
    parser.add_argument("--threads", type=int, help="of the programs")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        job = json.loads(options.job)
        print(json.dumps(_serve(job) if job["step"] == "serve" else _compile(job)))
        return
    print("model           cold   warm  similar  1st load     load  resident  weights   arena   bound  beyond  grown   (s, MB)")
    every = []
    for name in options.models:
        every.append(measure(name, options.threads))
        print(_line(every[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(every, indent=2) + "\n")


if __name__ == "__main__":
    main()
