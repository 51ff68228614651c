"""One table of operations with operands, attributes and what PyTorch computes for them; several tests go through it."""

from __future__ import annotations

import torch
from contraction_cases import contraction_cases, window_cases
from elementwise_cases import elementwise_cases
from narrow_cases import narrow_cases
from op_case import Case, case, floats
from scatter_cases import scatter_cases
from special_cases import special_cases
from tensor_cases import movement_cases, normalisation_cases, reduction_cases

from mlc.ir import ArrayConstant


def constant_case() -> Case:
    array = floats(2, 3)
    return case("constant", [], lambda: torch.from_numpy(array), value=ArrayConstant(array))


CASES = [
    *elementwise_cases(),
    *special_cases(),
    *reduction_cases(),
    *normalisation_cases(),
    *movement_cases(),
    *contraction_cases(),
    *window_cases(),
    *narrow_cases(),
    *scatter_cases(),
    constant_case(),
]
