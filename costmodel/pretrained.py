"""The cost model that ships with mlc, and what stands in for it when it cannot be read."""

from __future__ import annotations

import functools
import pathlib
import warnings

from ..codegen.target import Target
from ..errors import CostModelError
from .gradient_boosting import GradientBoostedModel
from .model import CostModel, RooflineModel

WEIGHTS = {"cpu": pathlib.Path(__file__).with_name("pretrained_x86.json")}
"""Weights by kind of target."""


def pretrained(target: Target) -> CostModel:
    """The shipped model for ``target``; the roofline, with a warning, when its weights are missing or damaged."""
    path = WEIGHTS.get(target.kind)
    return RooflineModel() if path is None else load_or_roofline(path)


@functools.cache
def load_or_roofline(path: pathlib.Path) -> CostModel:
    """The gradient-boosted model in ``path``, else the roofline and one warning that says why."""
    try:
        return GradientBoostedModel.load(path)
    except CostModelError as error:
        warnings.warn(f"{error}. Kernels take their templates' default schedules", RuntimeWarning, stacklevel=2)
        return RooflineModel()
