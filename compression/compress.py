"""``mlc.compress``: a copy of a model whose linear layers are products of smaller matrices where that is quicker and near enough."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..codegen.target import Target
from ..errors import OptionError
from ..frontend.calibration import Batch, batches_of
from ..ir import relative_error
from . import factors
from .factors import Family, LowRank, Monarch, least_rank
from .modules import FactoredLinear, LowRankLinear, MonarchLinear
from .observing import Observation, observe
from .report import CompressionReport, LayerReport
from .timing import Clock

GAIN = 0.95
"""A layer is replaced only if it then takes at most this share of its time."""

_BLOCKS = (2, 4, 8, 16, 32, 64)
"""Numbers of parts and groups that are tried for Monarch matrices."""

_RANKS = 32
"""Ranks that are tried at most for each kind of factors, so that choosing takes seconds a layer."""


class Method(enum.Enum):
    """What may replace a layer."""

    LOW_RANK = "low-rank"
    MONARCH = "monarch"
    AUTO = "auto"


class Compressed(NamedTuple):
    """The compressed copy, and what was done."""

    model: nn.Module
    report: CompressionReport


def compress(
    model: nn.Module,
    *,
    method: str = "auto",
    error: float = 0.05,
    calibration: Any = None,
    example_inputs: Sequence[Any] | None = None,
    target: str | Target = "cpu",
    threads: int | None = None,
) -> Compressed:
    """A copy of ``model`` whose linear layers are replaced by two factors, with a report; both are what iterating over the result gives.

    ``method`` is ``"low-rank"`` (two dense factors), ``"monarch"`` (two block-diagonal factors) or ``"auto"``, the quicker of both by the
    predicted time on ``target`` with ``threads`` threads. ``error`` bounds the relative error of each layer's results without the bias, in
    the Frobenius norm. With ``calibration``, batches that are each a tensor, a tuple of arguments or a mapping of keyword arguments, the
    approximation is fitted to half of the rows that a layer meets and its error is that over the other half; a bound that so few rows
    cannot vouch for is not met. Without, it is over all directions alike, which is the error of the weight itself. A layer is left alone
    where nothing within the bound is predicted to be quicker. ``example_inputs`` say how many rows layers get where there is no
    calibration; without either it is one, as in decoding.

    The copy is an ordinary module in the state of the model (``eval`` or ``train``): it can be trained further, saved, and compiled. Only
    modules that are exactly ``nn.Linear`` are replaced. Raises OptionError and TargetError.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"cannot compress a {type(model).__name__}; give an nn.Module")
    if not 0 < error < 1:
        raise OptionError(f"error={error!r}: give a bound between 0 and 1, such as 0.05")
    known = [each.value for each in Method]
    if method not in known:
        raise OptionError(f"method={method!r} is not known; choose from {', '.join(known)}")
    facts = Target.parse(target) if isinstance(target, str) else target
    batches = batches_of(calibration)
    compressed = copy.deepcopy(model)
    layers = dict(_linear_layers(compressed))
    examples = batches or ((Batch(tuple(example_inputs)),) if example_inputs is not None else ())
    seen = observe(compressed, layers, examples, with_moments=bool(batches))
    nbytes = sum(layer.weight.nbytes for layer in layers)
    clock = Clock(facts, threads or facts.threads, cold=nbytes > facts.l3_bytes)
    chooser = _Chooser(Method(method), error, clock)
    replaced: dict[nn.Linear, nn.Module] = {}
    reports = []
    for layer, path in layers.items():
        replacement, report = chooser.choose(layer, path, seen[layer], calibrated=bool(batches))
        reports.append(report)
        if replacement is not None:
            replaced[layer] = replacement.train(layer.training)
    compressed = _replace(compressed, replaced)
    difference = _model_error(compressed, model, batches) if batches else None
    return Compressed(compressed, CompressionReport(str(facts), clock.threads, error, tuple(reports), difference))


@dataclass(frozen=True)
class _Candidate:
    """A way to replace a layer: predicted seconds for each rank, and the approximations, which are computed when they are asked for."""

    name: str
    ranks: Sequence[int]
    seconds: Callable[[int], float]
    family: Callable[[], Family]
    module: Callable[[Tensor, Tensor, nn.Parameter | None], FactoredLinear]


@dataclass(frozen=True)
class _Choice:
    """A replacement within the bound."""

    form: str
    seconds: float
    error: float
    module: FactoredLinear


class _Chooser:
    """Finds the quickest replacement of each layer within the bound."""

    def __init__(self, method: Method, bound: float, clock: Clock) -> None:
        self._method = method
        self._bound = bound
        self._clock = clock

    def choose(self, layer: nn.Linear, path: str, seen: Observation, *, calibrated: bool) -> tuple[FactoredLinear | None, LayerReport]:
        """The layer's replacement, None where it stays, and its line of the report."""
        rows = seen.rows_of_a_call
        dense = self._clock.dense(rows, layer.in_features, layer.out_features)
        before = sum(parameter.numel() for parameter in layer.parameters())
        moments = [moment.double().cpu() for moment in (seen.fit, seen.judge) if moment is not None]
        best: _Choice | None = None
        reason = ""
        if calibrated and len(moments) < 2:
            reason = "calibration has fewer than two rows for it"
        elif not all(torch.isfinite(tensor).all() for tensor in (layer.weight, *moments)):
            reason = "its weights or inputs are not finite"
        else:
            goal = factors.Target(layer.weight.detach().double().cpu(), *moments)
            best = self._best(goal, layer, rows, GAIN * dense)
            reason = "" if best is not None else "nothing within the bound is quicker"
        if best is None:
            return None, LayerReport(path, "dense", 0.0, before, before, rows, dense, dense, reason)
        after = sum(parameter.numel() for parameter in best.module.parameters())
        return best.module, LayerReport(path, best.form, best.error, before, after, rows, dense, best.seconds)

    def _best(self, goal: factors.Target, layer: nn.Linear, rows: int, limit: float) -> _Choice | None:
        best: _Choice | None = None
        for candidate in self._candidates(goal, rows):
            allowed = best.seconds if best is not None else limit
            ranks = [rank for rank in candidate.ranks if candidate.seconds(rank) < allowed]
            if not ranks:
                continue
            family = candidate.family()
            rank = least_rank(family, self._bound, ranks)
            if rank is None:
                continue
            first, second = (factor.to(layer.weight).requires_grad_(layer.weight.requires_grad) for factor in family.factors(rank))
            module = candidate.module(first, second, layer.bias)
            # The error that counts is of the factors as they are stored.
            achieved = goal.error(module.weight.detach().double().cpu())
            best = _Choice(f"{candidate.name} {rank}", candidate.seconds(rank), achieved, module)
        return best

    def _candidates(self, goal: factors.Target, rows: int) -> Iterator[_Candidate]:
        columns, depth = goal.weight.shape
        worth = depth * columns // (depth + columns)
        if self._method in (Method.LOW_RANK, Method.AUTO):
            ranks = _ranks(min(depth, columns), self._clock.target.vector_lanes, worth)
            seconds = partial(self._clock.low_rank, rows, depth, columns)
            yield _Candidate("low-rank", ranks, seconds, partial(LowRank, goal), LowRankLinear)
        if self._method in (Method.MONARCH, Method.AUTO):
            for blocks in _BLOCKS:
                if depth % blocks or columns % blocks:
                    continue
                ranks = _ranks(min(depth, columns) // blocks, 1, worth // blocks)
                seconds = partial(self._clock.monarch, rows, depth, columns, blocks, blocks)
                family = partial(Monarch, goal, blocks, blocks)
                yield _Candidate(f"monarch {blocks}x{blocks} rank", ranks, seconds, family, MonarchLinear)


def _ranks(most: int, step: int, worth: int) -> list[int]:
    """Multiples of ``step`` (whole vectors) up to ``most`` that have fewer parameters than the matrix, which are those up to ``worth``;
    some thirty of them at even distances where there are more."""
    end = min(most, worth)
    step *= max(1, round(end / (step * _RANKS)))
    return sorted({*range(step, end, step), end} - {0})


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Linear, str]]:
    """Each layer that may be replaced with the first of its paths. Owners of derived classes may look into them, hooks as well."""
    for path, module in model.named_modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if type(module) is nn.Linear and module.weight.numel() and not hooked:
            yield module, path


def _replace(model: nn.Module, replaced: Mapping[nn.Linear, nn.Module]) -> nn.Module:
    """Puts the replacements wherever their layers stand; the model, which may itself be such a layer."""
    if isinstance(model, nn.Linear):
        return replaced.get(model, model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child in replaced:
                setattr(parent, name, replaced[child])
    return model


def _model_error(compressed: nn.Module, model: nn.Module, batches: Sequence[Batch]) -> float:
    return max(relative_error(batch.outputs(compressed), batch.outputs(model)) for batch in batches)
