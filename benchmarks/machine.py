"""The machine a benchmark ran on: its name, and the most it can do, measured."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass

from ..errors import MeasurementError

_SOURCE = pathlib.Path(__file__).parent / "native" / "peak.c"
_RUNS = 4  # the best counts: other load on the machine only ever lowers a peak


@dataclass(frozen=True)
class Machine:
    """``flops`` (fp32, a multiply-add counting as two) and ``bandwidth`` (bytes read from memory) per second, with ``threads`` threads.

    ``busy`` is the share of the processor's time, 0 to 1, that other programs took while nothing was measured.
    """

    processor: str
    cores: int
    threads: int
    flops: float
    bandwidth: float
    busy: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.threads} of {self.cores} cores: "
            f"{self.flops / 1e9:.0f} GFLOP/s fp32, {self.bandwidth / 1e9:.0f} GB/s measured"
        )


def measure(threads: int) -> Machine:
    """Measures this machine's peaks, in about two seconds; MeasurementError without a working C compiler."""
    compiler = os.environ.get("CC", "cc")
    others = busy()
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "peak"
        build = [compiler, "-O3", "-march=native", "-pthread", str(_SOURCE), "-o", str(program)]
        try:
            subprocess.run(build, check=True, capture_output=True, text=True)
            runs = [subprocess.run([str(program), str(threads)], check=True, capture_output=True, text=True).stdout for _ in range(_RUNS)]
        except FileNotFoundError as error:
            raise MeasurementError(f"no C compiler '{compiler}' to build the peak measurement; install one or set CC") from error
        except subprocess.CalledProcessError as error:
            raise MeasurementError(f"the peak measurement failed: {error.stderr.strip() or error}") from error
    peaks = [json.loads(text) for text in runs]
    best = {name: max(peak[name] for peak in peaks) for name in ("flops", "bandwidth")}
    return Machine(processor(), os.cpu_count() or 1, threads, best["flops"], best["bandwidth"], others)


def busy(seconds: float = 0.5) -> float:
    """The share of all cores' time that is used during ``seconds`` of sleep, 0 to 1; 0 where it cannot be told."""
    before = _ticks()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(_ticks(), before, strict=True))
    return 1 - idle / total if total > 0 else 0.0


def _ticks() -> tuple[int, int]:
    """Clock ticks of all cores since the start: all of them, and those that were idle."""
    try:
        ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return sum(ticks), ticks[3] + ticks[4]


def processor() -> str:
    """The processor's marketing name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
