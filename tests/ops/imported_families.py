"""The families of operations as exported, decomposed and imported programs, made once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from families import inputs, program
from torch import nn
from torch.export import ExportedProgram

from mlc.frontend import Imported, import_model
from mlc.frontend.export import export_model


class Program(nn.Module):
    """A function as a module, which is what torch.export takes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


@functools.cache
def exported_family(name: str) -> ExportedProgram:
    """The family ``name``, exported from its example inputs."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Program(program(name)), tuple(inputs()))


@functools.cache
def imported_family(name: str) -> Imported:
    """The family as a graph of the IR."""
    return import_model(exported_family(name))


@functools.cache
def decomposed_family(name: str) -> ExportedProgram:
    """The family in the operations that have converters."""
    return export_model(exported_family(name), (), {}).program
