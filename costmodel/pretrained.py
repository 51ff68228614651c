"""The cost model that ships with mlc, and what stands in for it when it cannot be read."""

from __future__ import annotations

import functools
import pathlib
import warnings

from ..codegen.target import Kind, Target
from ..errors import CostModelError
from .gradient_boosting import GradientBoostedModel
from .model import CostModel, RooflineModel

WEIGHTS = {
    32: pathlib.Path(__file__).with_name("pretrained_x86_avx2.json"),
    64: pathlib.Path(__file__).with_name("pretrained_x86_avx512.json"),
}
"""Weights for x86 processors, by the bytes of a vector on the machine they were trained on: as many registers go with them."""


def pretrained(target: Target) -> CostModel:
    """The shipped model for ``target``: of the widest vectors that it has, else of the narrowest there are.

    The roofline where none ships, and with a warning where weights are missing or damaged.
    """
    if target.kind is not Kind.CPU:
        return RooflineModel()
    fitting = [width for width in WEIGHTS if width <= target.vector_bytes]
    return load_or_roofline(WEIGHTS[max(fitting, default=min(WEIGHTS))])


@functools.cache
def load_or_roofline(path: pathlib.Path) -> CostModel:
    """The gradient-boosted model in ``path``, else the roofline and one warning that says why."""
    try:
        return GradientBoostedModel.load(path)
    except CostModelError as error:
        warnings.warn(f"{error}. Kernels take their templates' default schedules", RuntimeWarning, stacklevel=2)
        return RooflineModel()
