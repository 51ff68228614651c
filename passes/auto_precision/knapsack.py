"""A mode for each layer: the least time for a budget of squared errors (the multiple-choice knapsack problem)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

_SECONDS = 10.0
"""Limit of the search; what it has found by then is taken."""


@dataclass(frozen=True)
class Candidate:
    """A mode that a layer may have: predicted seconds, and the relative error of the model's results when only this layer has it."""

    mode: str
    seconds: float
    error: float


def cheapest(layers: Sequence[Sequence[Candidate]], tolerance: float) -> list[Candidate]:
    """One candidate of each layer, the sum of seconds being least while the sum of squared errors is at most ``tolerance`` squared.

    Errors of layers are taken to be independent, so that their squares add up. Every layer needs a candidate without error, so that there
    is an answer. Among equally quick answers, one of small errors. Solved as an integer program (HiGHS, by way of SciPy), exactly unless
    that takes too long.
    """
    kept = [_useful(candidates, tolerance) for candidates in layers]
    flat = [candidate for candidates in kept for candidate in candidates]
    if not flat:
        return []
    owner = np.repeat(np.arange(len(kept)), [len(candidates) for candidates in kept])
    one_each = csr_array((np.ones(len(flat)), (owner, np.arange(len(flat)))), shape=(len(kept), len(flat)))
    shares = np.array([(candidate.error / tolerance) ** 2 if candidate.error else 0.0 for candidate in flat])
    scale = max(sum(max(candidate.seconds for candidate in candidates) for candidates in kept), 1e-30)
    cost = np.array([candidate.seconds for candidate in flat]) / scale
    # The second term is too small to outweigh a difference in time that anybody could measure.
    found = milp(
        cost + 1e-6 * shares / len(kept),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(shares[None, :], -np.inf, 1)],
        options={"time_limit": _SECONDS, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        return [_exact(candidates) for candidates in kept]
    chosen = [max(range(len(flat)), key=lambda index: (owner[index] == layer) * found.x[index]) for layer in range(len(kept))]
    picked = [flat[index] for index in chosen]
    # Integer programs hold their constraints up to a tolerance of their own.
    while math.fsum(candidate.error**2 for candidate in picked) > tolerance**2:
        worst = max(range(len(picked)), key=lambda layer: picked[layer].error)
        picked[worst] = _exact(kept[worst])
    return picked


def _useful(candidates: Sequence[Candidate], tolerance: float) -> list[Candidate]:
    """Those within the tolerance that no other beats in both time and error."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.error, candidate.seconds)):
        if candidate.error <= tolerance and (not kept or candidate.seconds < kept[-1].seconds):
            kept.append(candidate)
    return kept


def _exact(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda candidate: candidate.error)
