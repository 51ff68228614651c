"""Arguments of a model as users give them: their names, and what is in them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import OptionError


def positional(inputs: Sequence[Any] | None) -> tuple[Any, ...]:
    """Example inputs as positional arguments; a single tensor is a common slip."""
    if inputs is None:
        return ()
    if not isinstance(inputs, (tuple, list)):
        raise OptionError(f"example_inputs is a {type(inputs).__name__}; give a tuple of the positional arguments, such as (x,)")
    return tuple(inputs)


def parameter_names(model: Any) -> tuple[str, ...]:
    """What ``model``, which may be an ExportedProgram, calls the arguments that it takes by position."""
    if type(model).__name__ == "ExportedProgram":
        model = model.module()
    try:
        parameters = inspect.signature(getattr(model, "forward", model)).parameters.values()
    except (TypeError, ValueError):  # something that PyTorch wrote in C
        return ()
    return tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))


def input_names(model: Any, args: Sequence[Any]) -> tuple[str, ...]:
    """The name of each leaf of the positional arguments ``args`` of ``model``: the parameter's, and inside of it keys and places, as in
    ``'states.0'``. A parameter without a name of its own has its place for one."""
    from torch.utils import _pytree as pytree

    known = parameter_names(model)
    names = [known[place] if place < len(known) else str(place) for place in range(len(args))]
    paths = ((place, path) for place, value in enumerate(args) for path, _ in pytree.tree_leaves_with_path(value))
    return tuple(".".join([names[place], *(_step(key) for key in path)]) for place, path in paths)


def _step(key: Any) -> str:
    return str(next(getattr(key, field) for field in ("key", "idx", "name") if hasattr(key, field)))


def leaves_in(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from leaves_in(part)
    else:
        yield value


def torch_arrays(value: Any) -> Any:
    """The same structure with torch tensors for NumPy arrays, for export to look at."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    if isinstance(value, dict):
        return {key: torch_arrays(part) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(torch_arrays(part) for part in value)
    return value
