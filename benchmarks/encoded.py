"""Times products with weights of few bits: matvecs against the bandwidth of memory, and the ways to compute them against each other.

``python -m mlc.benchmarks.encoded [--size 4096] [--modes w8 w4 ...] [--grid [--rows 1 4] [--shapes 1024x2816]] [--json FILE]``.
A matvec reads another copy of its weight in
every call, so that it comes from memory: copies are four times the last-level cache. Its figure is bytes of the packed weight per second,
over the bandwidth that is measured between the rounds. ``--grid`` times the best config of every algorithm, by prediction, for some numbers
of rows and bits, in turns, and says how far the default one is from the quickest.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.templates.encoded_geometry import Algorithm
from ..codegen.templates.encoded_matmul import EncodedMatmul
from ..ir import ArrayConstant, EncodedConstant, GraphBuilder, encode
from ..ir.encoding import Encoding
from ..ir.encodings import Affine, BlockScaled, Codebook, Grouped, Ternary
from .kernel_cases import Case, f32
from .kernels import Bench
from .machine import measure, repeated_peaks

STREAM = 4
"""How many times the last-level cache the copies of a weight are."""
MODES: Mapping[str, Encoding] = {
    "w8": Affine("i8", 0).encoding,
    "w8 grouped": Grouped("i8", 32, 1, "f16").encoding,
    "w4": Grouped("i4", 32, 1, "f16").encoding,
    "w4 zero points": Grouped("u4", 128, 1, "f16", zero_point=True).encoding,
    "w3": Grouped("i3", 32, 1, "f16").encoding,
    "w2": Grouped("i2", 32, 1, "f16").encoding,
    "ternary": Ternary(0).encoding,
    "mxfp8": BlockScaled("e4m3", 1).encoding,
    "mxfp4": BlockScaled("e2m1", 1).encoding,
    "codebook 4": Codebook(4, 32, 1, "f16").encoding,
    "codebook 3": Codebook(3, 32, 1, "f16").encoding,
}
_GRID_MODES = ("w2", "ternary", "w3", "w4")
_GRID_SHAPES = ((4096, 4096), (1024, 2816))
_GRID_ROWS = (1, 2, 4, 8)
_ROUNDS = 7
_CHOICE_ROUNDS = 31
_WAKING = 2e-3
"""Seconds of calls after which the worker threads are awake. A launch does not wait for those that sleep, as they do while others are
timed: the first calls run on one thread."""


@dataclass(frozen=True)
class Matvec:
    """Median seconds of a matvec, bytes of its packed weight, their rate, and that over the bandwidth measured (best of both, too)."""

    mode: str
    config: str
    seconds: float
    nbytes: int
    share: float
    best_share: float
    error: float


@dataclass(frozen=True)
class Choice:
    """Median seconds of the best config of each algorithm. ``loss``: the default's time over that of the quickest, less 1; the medians
    over rounds of their ratios within a round, since the speed of memory changes from one round to another."""

    mode: str
    rows: int
    columns: int
    depth: int
    seconds: Mapping[str, float]
    chosen: str
    loss: float


def weight(encoding: Encoding, columns: int, depth: int) -> EncodedConstant:
    numbers = np.random.default_rng(0).standard_normal((columns, depth), np.float32)
    return encode(ArrayConstant(numbers), encoding)


def case(name: str, rows: int, constant: EncodedConstant) -> Case:
    """A linear layer whose weights come from memory."""
    columns, depth = constant.type.static_shape
    builder = GraphBuilder()
    graph = builder.finish([builder.call("linear", builder.input(f32(rows, depth)), builder.input(constant.type))])
    return Case(f"{name} {rows}x{columns}x{depth}", graph, frozenset({1}), EncodedMatmul(), streamed=True, known={1: constant})


def matvec(mode: str, size: int, target: Target, cache: int) -> Matvec:
    """Times one mode, in rounds between which the bandwidth is measured anew."""
    bench = Bench(case(mode, 1, weight(MODES[mode], size, size)), target, cache=cache, stream=STREAM)
    count = max(STREAM * cache // bench.weights, 4)
    times, measured = [], []
    for _ in range(_ROUNDS):
        measured.append(repeated_peaks(target.threads))
        times.append(bench.run(count, warmup=_warmup(bench)))
    shares = [bench.weights / statistics.median(each) / peak.median.bandwidth for each, peak in zip(times, measured, strict=True)]
    every = [time for each in times for time in each]
    best = bench.weights / min(every) / max(peak.best.bandwidth for peak in measured)
    return Matvec(mode, str(bench.config), statistics.median(every), bench.weights, statistics.median(shares), best, bench.error())


def choice(mode: str, rows: int, constant: EncodedConstant, target: Target, cache: int) -> Choice:
    """Times the best config of every algorithm in turns."""
    product = case(mode, rows, constant)
    default, others = _first_of_each(product, target)
    benches = {Algorithm(config["algorithm"]).name.lower(): Bench(product, target, config, cache, STREAM) for config in others}
    warmup = {name: _warmup(bench) for name, bench in benches.items()}
    # Forwards and backwards, so that none always follows the same other one.
    orders = [list(benches), list(benches)[::-1]]
    rounds = [
        {name: statistics.median(benches[name].run(8, warmup=warmup[name])) for name in orders[number % 2]}
        for number in range(_CHOICE_ROUNDS)
    ]
    chosen = Algorithm(default["algorithm"]).name.lower()
    medians = {name: statistics.median(times[name] for times in rounds) for name in benches}
    columns, depth = constant.type.static_shape
    return Choice(mode, rows, columns, depth, medians, chosen, loss(rounds, chosen))


def _warmup(bench: Bench) -> int:
    """Calls before those that are timed."""
    return math.ceil(_WAKING / min(bench.run(3, warmup=1)))


def loss(rounds: Sequence[Mapping[str, float]], chosen: str) -> float:
    """By how much ``chosen`` is slower than the quickest: the median over ``rounds`` of their ratios, less 1; 0 if it is the quickest."""
    return max(statistics.median(times[chosen] / times[name] for times in rounds) for name in rounds[0]) - 1


def _first_of_each(product: Case, target: Target) -> tuple[Config, list[Config]]:
    """The default config, and the best one of every algorithm by prediction, the default among them."""
    task = Task(product.graph, product.constants, target, target.threads)
    space = product.template.space(task)
    estimates = product.template.estimated_cycles(task, space.configs) or []
    ranked = [config for _, config in sorted(zip(estimates, space.configs, strict=True), key=lambda pair: pair[0])]
    firsts: dict[int, Config] = {space.default["algorithm"]: space.default}
    for config in ranked:
        firsts.setdefault(config["algorithm"], config)
    return space.default, list(firsts.values())


def _shape(text: str) -> tuple[int, int]:
    columns, _, depth = text.partition("x")
    return int(columns), int(depth)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--size", type=int, default=4096, help="columns and depth of the matvecs")
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--grid", action="store_true", help="compare the algorithms instead")
    parser.add_argument("--rows", nargs="*", type=int, default=list(_GRID_ROWS), help="rows that the algorithms are compared for")
    parser.add_argument("--shapes", nargs="*", default=list(_GRID_SHAPES), help="and columns x depth, as 1024x2816", type=_shape)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    target = Target.parse(options.target)
    machine = measure(target.threads)
    print(machine)
    figures: list[Matvec | Choice] = []
    if options.grid:
        for mode in [mode for mode in _GRID_MODES if mode in options.modes]:
            for columns, depth in options.shapes:
                constant = weight(MODES[mode], columns, depth)
                for rows in options.rows:
                    found = choice(mode, rows, constant, target, machine.cache)
                    figures.append(found)
                    times = ", ".join(f"{name} {1e6 * seconds:.0f} us" for name, seconds in found.seconds.items())
                    print(
                        f"{mode:8} {rows} x {columns} x {depth}: {times}; {found.chosen} chosen, {100 * found.loss:.0f}% over the best",
                        flush=True,
                    )
    else:
        for mode in options.modes:
            result = matvec(mode, options.size, target, machine.cache)
            figures.append(result)
            rate = result.nbytes / result.seconds / 1e9
            print(
                f"{mode:15} {result.nbytes / 2**20:5.1f} MiB {1e6 * result.seconds:6.0f} us {rate:5.1f} GB/s {100 * result.share:4.0f}% "
                f"(best {100 * result.best_share:3.0f}%) of the bandwidth  error {result.error:.0e}  {result.config}",
                flush=True,
            )
    if options.json:
        report = {"machine": asdict(machine), "figures": [asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
