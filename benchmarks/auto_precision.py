"""Whether ``precision="auto"`` keeps its tolerance, and what it gains: ``python -m mlc.benchmarks.auto_precision [model ...]``.

A model is one of the zoo or a family of the coverage list, at its real widths and reduced depth (``--full``: models of the zoo in full),
``NAME_token`` or ``FAMILY one token`` being a decoder for one token. It is compiled in fp32, and with ``precision="auto"`` under one
tolerance, calibrated on a few random inputs: token numbers, or normally distributed numbers. Its error is the worst against PyTorch in
float64 on other inputs. Calls are timed in turns on all cores. Each model has a process of its own with an empty cache, so that the seconds
of the search include the compilation of everything that it runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .coverage import interleaved
from .machine import processor, usable_cores

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TOLERANCE = 0.05
"""Of the relative error of the outputs."""
GAIN = 1.3
"""How much faster than in fp32 counts as a gain."""
_CALIBRATION = 8
_UNSEEN = 4
"""Inputs for the check, none of which calibrates."""

MODELS = (
    "llama_token",
    "gpt2_token",
    "mlp",
    "bert_base_8_tokens",
    "OPT one token",
    "Bloom one token",
    "Falcon one token",
    "bert_base",
    "gpt2",
    "llama",
    "vit_b16",
    "t5_small_encoder",
    "whisper_tiny_encoder",
    "swin_tiny",
    "convnext_tiny",
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet50_batch8",
    "bert_base_batch8",
)
"""What is run when no model is named."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model: ``error`` and ``fp32_error`` are norm-wise against float64 on unseen inputs, ``search_s`` what the choice
    of modes took, ``cached_compile_s`` the next compilation as a whole, ``layers`` how many layers have which mode."""

    model: str
    tolerance: float
    error: float = 0.0
    fp32_error: float = 0.0
    fp32_s: float = 0.0
    auto_s: float = 0.0
    search_s: float = 0.0
    cached_compile_s: float = 0.0
    layers: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    failed: str = ""

    @property
    def held(self) -> bool:
        return not self.failed and self.error <= self.tolerance

    @property
    def speedup(self) -> float:
        return self.fp32_s / self.auto_s if self.auto_s else 0.0


def built(name: str, full: bool) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model called ``name`` and example arguments; KeyError when there is none."""
    from .models import ZOO, bert_base, gpt2
    from .models.families import FAMILIES, KeywordModule

    own: Mapping[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
        "gpt2_token": functools.partial(gpt2, length=1, **({} if full else {"layers": 2})),
        "bert_base_8_tokens": functools.partial(bert_base, length=8, **({} if full else {"layers": 2})),
    }
    if name in own:
        return own[name]()
    if name in ZOO:
        return ZOO[name].full() if full else ZOO[name].small()
    family, _, length = name.partition(" one ")
    model, inputs = FAMILIES[family].build()
    if length:
        inputs = {key: value[:, :1].contiguous() for key, value in inputs.items()}
    return KeywordModule(model), (inputs,)


def drawn(example: Any, vocabulary: int, generator: torch.Generator) -> Any:
    """Arguments like ``example`` with other numbers; masks stay as they are."""
    import torch
    from torch.utils import _pytree as pytree

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dtype is torch.bool:
            return leaf
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        is_mask = int(leaf.max()) <= 1
        return leaf if is_mask else torch.randint(3, vocabulary, leaf.shape, generator=generator, dtype=leaf.dtype)

    return pytree.tree_map(other, example)


def check(name: str, tolerance: float, full: bool, seconds: float) -> Outcome:
    """Compiles, checks and times one model in this process; ``seconds`` of calls for each of the two programs."""
    import torch
    from torch import nn

    import mlc

    from . import accuracy

    model, example = built(name, full)
    vocabulary = next((module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)), 2)
    generator = torch.Generator().manual_seed(1)
    calibration = [drawn(example, vocabulary, generator) for _ in range(_CALIBRATION)]
    unseen = [drawn(example, vocabulary, generator) for _ in range(_UNSEEN)]
    options: dict[str, Any] = {"precision": "auto", "tolerance": tolerance, "calibration": calibration}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        auto = mlc.compile(model, example_inputs=example, **options)
        report = auto.report().precision
        assert report is not None
        begin = time.perf_counter()
        mlc.compile(model, example_inputs=example, **options)
        cached_compile_s = time.perf_counter() - begin
        exact = mlc.compile(model, example_inputs=example)
        truths = [accuracy.reference(model, inputs) for inputs in unseen]
        errors = [
            max(accuracy.error(accuracy.tensors(program(*inputs)), truth) for inputs, truth in zip(unseen, truths, strict=True))
            for program in (auto, exact)
        ]
        times = interleaved({"fp32": lambda: exact(*example), "auto": lambda: auto(*example)}, seconds)
    return Outcome(
        name,
        tolerance,
        error=errors[0],
        fp32_error=errors[1],
        fp32_s=times["fp32"],
        auto_s=times["auto"],
        search_s=report.search_seconds,
        cached_compile_s=cached_compile_s,
        layers=report.modes,
        note=report.note,
    )


def check_apart(name: str, options: argparse.Namespace) -> Outcome:
    """Like :func:`check`, in a process of its own with an empty cache."""
    arguments = ["--one", name, "--tolerance", str(options.tolerance), "--seconds", str(options.seconds)]
    if options.full:
        arguments.append("--full")
    with tempfile.TemporaryDirectory(prefix="mlc-auto-precision-") as cache:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mlc.benchmarks.auto_precision", *arguments],
                env={**os.environ, "MLC_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                timeout=options.timeout,
            )
        except subprocess.TimeoutExpired:
            return Outcome(name, options.tolerance, failed=f"not ready after {options.timeout:.0f} s")
    if done.returncode == 0:
        return Outcome(**json.loads(done.stdout.strip().splitlines()[-1]))
    reason = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    return Outcome(name, options.tolerance, failed=reason[-1])


def row(outcome: Outcome) -> str:
    """The line of one model."""
    if outcome.failed:
        return f"{outcome.model:22}failed: {outcome.failed[:100]}"
    layers = ", ".join(f"{count} {mode}" for mode, count in outcome.layers.items())
    held = "yes" if outcome.held else "NO"
    times = f"{1e3 * outcome.fp32_s:10.2f}{1e3 * outcome.auto_s:10.2f}{outcome.speedup:9.2f}x"
    return f"{outcome.model:22}{outcome.error:9.1e}{held:>6}{times}{outcome.search_s:10.1f}{outcome.cached_compile_s:9.1f}  {layers}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mlc.benchmarks.auto_precision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of the relative error of the outputs (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="models of the zoo at their full depth")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds a model may take")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of calls for each of two programs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--remark", default="", help="a sentence on the conditions, kept with the figures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(asdict(check(options.one, options.tolerance, options.full, options.seconds))))
        return 0
    print(f"tolerance {options.tolerance:g}")
    print(f"{'model':22}    error  held   fp32 ms   auto ms  speed-up  search s  again s  layers by mode", flush=True)
    outcomes: list[Outcome] = []
    for name in options.models or MODELS:
        outcomes.append(check_apart(name, options))
        print(row(outcomes[-1]), flush=True)
        if options.json:
            machine = {"processor": processor(), "cores": usable_cores()}
            conditions = {"machine": machine, "remark": options.remark, "tolerance": options.tolerance, "full": options.full}
            figures = {**conditions, "models": list(map(asdict, outcomes))}
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    held, gained = sum(outcome.held for outcome in outcomes), sum(outcome.held and outcome.speedup >= GAIN for outcome in outcomes)
    print(f"the tolerance holds on {held} of {len(outcomes)} models; {gained} of them are at least {GAIN} times as fast as in fp32")
    return 0 if held == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
