"""Files of cost models: which kind one is, and reading it."""

from __future__ import annotations

import os
import pathlib

from ..errors import CostModelError
from .gradient_boosting import GradientBoostedModel
from .model import CostModel, RooflineModel, kind_of

KINDS = ("gradient-boosted", "text", "roofline")


def load_cost_model(path: str | os.PathLike[str]) -> CostModel:
    """The model in a file that :meth:`CostModel.save` wrote, whatever its kind; CostModelError when it is none that this version reads."""
    file = pathlib.Path(path)
    kind = kind_of(file)
    if kind == "gradient-boosted":
        return GradientBoostedModel.load(file)
    if kind == "text":
        from .text_model import TextModel

        return TextModel.load(file)
    if kind == "roofline":
        return RooflineModel.load(file)
    raise CostModelError(f"the cost model {file} is of the unknown kind '{kind}'; this version of mlc reads {', '.join(KINDS)}")
