"""Differential fuzzing: random graphs and torch programs, checked against the interpreter and eager PyTorch."""

from .campaign import Campaign, Case, CaseResult, Summary, make_case, run_case
from .graphs import random_graph, random_inputs
from .oracle import Failure, Settings, check_graph
from .reducer import reduce_graph
from .torch_programs import TorchProgram, check_program, random_program

__all__ = [
    "Campaign",
    "Case",
    "CaseResult",
    "Failure",
    "Settings",
    "Summary",
    "TorchProgram",
    "check_graph",
    "check_program",
    "make_case",
    "random_graph",
    "random_inputs",
    "random_program",
    "reduce_graph",
    "run_case",
]
