"""The machine a benchmark ran on: its name, and the most it can do, measured."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace

from ..errors import MeasurementError

_SOURCE = pathlib.Path(__file__).parent / "native" / "peak.c"
_RUNS = 4


@dataclass(frozen=True)
class Peaks:
    """Per second, with all threads together: ``flops`` (fp32, a multiply-add counting as two), and bytes from and to memory.

    ``bandwidth`` is of reading alone, ``copy`` of reading as many bytes as are written, both counted.
    """

    flops: float
    bandwidth: float
    copy: float

    def memory_seconds(self, read: int, written: int) -> float:
        """For bytes read and written: a byte read takes as long as when only reading, a written one what copying takes beyond that."""
        write = 2 / self.copy - 1 / self.bandwidth
        return read / self.bandwidth + written * max(write, 0.0)


@dataclass(frozen=True)
class RepeatedPeaks:
    """The ``best`` and the ``median`` of some repetitions of a measurement of the peaks.

    The best is what the machine can do; the median compares with medians of other times on a machine that others share.
    """

    best: Peaks
    median: Peaks


@dataclass(frozen=True)
class Machine:
    """A machine and its :class:`Peaks` with ``threads`` threads. ``cache`` are the bytes of its last-level cache, 0 if unknown.

    ``busy`` is the share of the processor's time, 0 to 1, that other programs took while nothing was measured.
    """

    processor: str
    cores: int
    threads: int
    flops: float
    bandwidth: float
    busy: float = 0.0
    copy: float = 0.0
    cache: int = 0

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.threads} of {self.cores} cores: "
            f"{self.flops / 1e9:.0f} GFLOP/s fp32, {self.bandwidth / 1e9:.0f} GB/s measured"
        )

    @property
    def peaks(self) -> Peaks:
        return Peaks(self.flops, self.bandwidth, self.copy)

    def at_least(self, peaks: Peaks) -> Machine:
        """With the better of each figure: other load on the machine only ever lowers a peak."""
        better = {name: max(getattr(self, name), value) for name, value in asdict(peaks).items()}
        return replace(self, **better)


def measure(threads: int) -> Machine:
    """Measures this machine's peaks, the best of several runs, in some three seconds; MeasurementError without a working C compiler."""
    here = Machine(processor(), os.cpu_count() or 1, threads, 0.0, 0.0, busy(), cache=last_level_cache())
    for _ in range(_RUNS):
        here = here.at_least(peaks(threads))
    return here


def peaks(threads: int) -> Peaks:
    """One measurement of the peaks, in less than a second; MeasurementError without a working C compiler."""
    return repeated_peaks(threads).best


def repeated_peaks(threads: int) -> RepeatedPeaks:
    """One measurement of the peaks, as :func:`peaks`, with both figures."""
    try:
        done = subprocess.run([str(_program()), str(threads)], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise MeasurementError(f"the peak measurement failed: {error.stderr.strip() or error}") from error
    found = json.loads(done.stdout)
    return RepeatedPeaks(Peaks(**found["best"]), Peaks(**found["median"]))


@functools.cache
def _program() -> pathlib.Path:
    """The compiled measurement; it is deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="mlc-peak-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = pathlib.Path(folder) / "peak"
    compiler = os.environ.get("CC", "cc")
    try:
        build = [compiler, "-O3", "-march=native", "-pthread", str(_SOURCE), "-o", str(program)]
        subprocess.run(build, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MeasurementError(f"no C compiler '{compiler}' to build the peak measurement; install one or set CC") from error
    except subprocess.CalledProcessError as error:
        raise MeasurementError(f"the peak measurement does not compile: {error.stderr.strip() or error}") from error
    return program


def last_level_cache() -> int:
    """Bytes of the outermost cache that the first core can use; 0 where Linux does not say."""
    sizes = {"K": 1 << 10, "M": 1 << 20}
    found = {}
    for index in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, size = int((index / "level").read_text()), (index / "size").read_text().strip()
            found[level] = int(size[:-1]) * sizes[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return found[max(found)] if found else 0


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
