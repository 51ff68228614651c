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
    "avx2": pathlib.Path(__file__).with_name("pretrained_x86_avx2.json"),
    "avx512": pathlib.Path(__file__).with_name("pretrained_x86_avx512.json"),
    "avx512 on Zen": pathlib.Path(__file__).with_name("pretrained_x86_avx512_zen.json"),
}
"""Weights for x86 processors, by the kind of vectors on the machine that they were trained on."""


def pretrained(target: Target) -> CostModel:
    """The shipped model for ``target``: of vectors as wide, as many registers go with them, and a processor as near as there is.

    The roofline where none ships, and with a warning where weights are missing or damaged.
    """
    return load_or_roofline(WEIGHTS[_nearest(target)]) if target.kind is Kind.CPU else RooflineModel()


def _nearest(target: Target) -> str:
    """The key of the weights for a processor."""
    if target.vector_bytes < 64:
        return "avx2"
    return "avx512 on Zen" if target.mcpu.startswith("znver") else "avx512"


@functools.cache
def load_or_roofline(path: pathlib.Path) -> CostModel:
    """The gradient-boosted model in ``path``, else the roofline and one warning that says why."""
    try:
        return GradientBoostedModel.load(path)
    except CostModelError as error:
        warnings.warn(f"{error}. Kernels take their templates' default schedules", RuntimeWarning, stacklevel=2)
        return RooflineModel()
