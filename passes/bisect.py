"""Finds the pass, and within it the rewrite, that first breaks a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import Error, PassError
from ..ir import Graph
from .base import Context, Pass, RewriteBudget
from .pipeline import Pipeline

Good = Callable[[Graph], bool]
"""Whether a graph is still right; raising a mlc error counts as not."""


@dataclass(frozen=True)
class Culprit:
    """The pass that breaks a graph.

    ``before`` is the last good graph and ``after`` the first bad one (None when the pass raised). ``rewrite`` counts from 1: with so many
    rewrites of the pass the graph is bad, with one fewer it is good; None when the pass does not count its rewrites.
    """

    position: int
    step: Pass
    rewrite: int | None
    before: Graph
    after: Graph | None

    def __str__(self) -> str:
        which = f", rewrite {self.rewrite}" if self.rewrite is not None else ""
        return f"pass {self.position} '{self.step}'{which}"


def bisect(graph: Graph, pipeline: Pipeline, ctx: Context, good: Good) -> Culprit | None:
    """The first pass of ``pipeline`` after which ``good`` no longer holds, or None; PassError when ``graph`` itself is not good."""
    if not _holds(good, graph):
        raise PassError(f"graph @{graph.name} is not good before the first pass; nothing to bisect")
    for position, step in enumerate(pipeline.passes):
        result, spent = _apply(step, graph, ctx, None)
        if result is None or not _holds(good, result):
            rewrite, before, after = _first_bad_rewrite(step, graph, ctx, good, spent)
            return Culprit(position, step, rewrite, before, after if rewrite is not None else result)
        graph = result
    return None


def _first_bad_rewrite(step: Pass, graph: Graph, ctx: Context, good: Good, spent: int) -> tuple[int | None, Graph, Graph | None]:
    nothing, _ = _apply(step, graph, ctx, 0)
    if spent == 0 or nothing is None or not _holds(good, nothing):
        return None, graph, None
    low, high = 0, spent
    best: Graph = nothing
    worst: Graph | None = None
    while high - low > 1 or worst is None:
        middle = (low + high) // 2 if high - low > 1 else high
        result, _ = _apply(step, graph, ctx, middle)
        if result is not None and _holds(good, result):
            if middle == high:
                return None, graph, None
            low, best = middle, result
        else:
            high, worst = middle, result
            if result is None and high - low <= 1:
                break
    return high, best, worst


def _apply(step: Pass, graph: Graph, ctx: Context, limit: int | None) -> tuple[Graph | None, int]:
    """The result (None when the pass fails) and how many rewrites it made."""
    budget = RewriteBudget(limit)
    try:
        return step.apply(graph, replace(ctx, budget=budget)), budget.spent
    except Exception:
        return None, budget.spent


def _holds(good: Good, graph: Graph) -> bool:
    try:
        return good(graph)
    except Error:
        return False
