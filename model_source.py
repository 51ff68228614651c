"""Where a model comes from on the command line: ``file.py:function``, ``package.module:function`` or an exported ``.pt2`` file.

The function returns ``(model, example_inputs)``, optionally with example keyword arguments as a third item. Model files are code:
they run when they are loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from .errors import ModelSourceError

HELP = "file.py:function or package.module:function returning (model, example_inputs), or an exported .pt2 file"


@dataclass(frozen=True)
class ModelSource:
    """A model with the inputs it is compiled for. ``eager`` runs it in PyTorch (an exported program cannot be called itself)."""

    name: str
    model: Any
    eager: Callable[..., Any]
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def load_model(text: str) -> ModelSource:
    """The model that ``text`` names; ModelSourceError says what is wrong with it."""
    if text.endswith(".pt2"):
        return _exported(pathlib.Path(text))
    place, colon, function = text.rpartition(":")
    if not colon or not place or not function.isidentifier():
        raise ModelSourceError(f"'{text}' does not name a model: expected {HELP}")
    module = _from_file(pathlib.Path(place)) if place.endswith(".py") else _from_package(place)
    maker = getattr(module, function, None)
    if not callable(maker):
        known = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise ModelSourceError(f"'{place}' has no function '{function}'" + (f"; it has {', '.join(known[:12])}" if known else ""))
    try:
        made = maker()
    except Exception as error:
        raise ModelSourceError(f"'{text}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[1], tuple):
        raise ModelSourceError(
            f"'{text}' must return (model, example_inputs), with the inputs as a tuple such as (x,), "
            f"and optionally a dictionary of keyword arguments; it returned {_describe(made)}"
        )
    kwargs = made[2] if len(made) == 3 else {}
    return ModelSource(function, made[0], made[0], made[1], kwargs)


def _from_file(path: pathlib.Path) -> ModuleType:
    if not path.is_file():
        raise ModelSourceError(f"there is no file '{path}'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that its classes can be found by torch.export
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelSourceError(f"'{path}' does not load: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _from_package(name: str) -> ModuleType:
    sys.path.insert(0, "")  # as python -m: the current folder counts
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelSourceError(f"module '{name}' does not import: {error}; a file is named with its .py") from error
    finally:
        sys.path.pop(0)


def _exported(path: pathlib.Path) -> ModelSource:
    import torch

    if not path.is_file():
        raise ModelSourceError(f"there is no file '{path}'")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ModelSourceError(f"'{path}' is no program that torch.export.save wrote: {error}") from error
    if program.example_inputs is None:
        raise ModelSourceError(f"'{path}' was saved without its example inputs; export it again with them")
    args, kwargs = program.example_inputs
    return ModelSource(path.stem, program, program.module(), tuple(args), kwargs)


def _describe(made: object) -> str:
    if isinstance(made, tuple):
        return "(" + ", ".join(type(item).__name__ for item in made) + ")"
    return type(made).__name__
