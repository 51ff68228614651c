"""Samples of a model's inputs from a file, as the command line takes them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .arguments import input_names
from .calibration import kind_of
from .errors import OptionError

KINDS = ".npz, .safetensors or .pt"


def read_calibration(path: pathlib.Path, model: Any, args: Sequence[Any]) -> Sequence[Any]:
    """What ``path`` holds for ``model``, whose example inputs are ``args``, as a ``calibration=`` argument.

    A ``.npz`` or ``.safetensors`` file holds an array for each input, by the name of the parameter (of a tensor inside of an argument with
    keys and places: ``states.0``), or by position: ``arr_0``, as ``numpy.savez`` writes them, or ``0``. Each is that input of all samples:
    one after the other along the first axis, or along an axis of their own before it. Numbers are converted to the example's dtype. A
    ``.pt`` file holds a mapping of tensors that is read in the same way, or a list of samples, each a tensor, a tuple of arguments or a
    mapping from their names; it is read as data, without running any code. OptionError says what does not fit.
    """
    read = _READERS.get(path.suffix)
    if read is None:
        raise OptionError(f"calibration file '{path}' is of no known kind; give {KINDS}")
    if not path.is_file():
        raise OptionError(f"there is no calibration file '{path}'; give {KINDS} with samples of the inputs")
    try:
        content = read(path)
    except OptionError:
        raise
    except Exception as error:  # whatever the three libraries stumble over
        raise OptionError(f"calibration file '{path}' cannot be read, {type(error).__name__}: {error}; write it anew") from error
    if isinstance(content, Mapping):
        return _samples(path, content, model, args)
    if not isinstance(content, list | tuple):
        raise OptionError(
            f"calibration file '{path}' holds a {type(content).__name__}; save a list of samples, or a dict of tensors by input"
        )
    return content


def _samples(path: pathlib.Path, arrays: Mapping[str, Any], model: Any, args: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Arrays by input, divided into samples."""
    import torch
    from torch.utils import _pytree as pytree

    leaves, structure = pytree.tree_flatten(tuple(args))
    examples = {name: leaf for name, leaf in zip(input_names(model, args), leaves, strict=True) if isinstance(leaf, torch.Tensor)}
    given = {_input(name, list(examples)): torch.as_tensor(array) for name, array in arrays.items()}
    remedy = f"it needs an array for each of {', '.join(map(repr, examples))} (named so, or by position: arr_0, arr_1, ...)"
    if unknown := [name for name in given if name not in examples]:
        raise OptionError(f"calibration file '{path}' has an array '{unknown[0]}', which is no positional input of the model; {remedy}")
    if missing := [name for name in examples if name not in given]:
        raise OptionError(f"calibration file '{path}' has no array for the input '{missing[0]}'; {remedy}")
    parts = {name: _divided(path, name, given[name], example) for name, example in examples.items()}
    counts = {name: len(part) for name, part in parts.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise OptionError(f"calibration file '{path}' has samples of different numbers: {each}; give as many of each input")
    return [
        tuple(pytree.tree_unflatten([next(row) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure))
        for row in map(iter, zip(*parts.values(), strict=True))
    ]


def _input(name: str, inputs: Sequence[str]) -> str:
    """The input that an array of a file is for: one of its name, else the one at its position."""
    position = name.removeprefix("arr_")
    if name not in inputs and position.isdecimal() and int(position) < len(inputs):
        return inputs[int(position)]
    return name


def _divided(path: pathlib.Path, name: str, array: Any, example: Any) -> Sequence[Any]:
    """An input of all samples as that of each."""
    import torch

    shape, wanted = array.shape, example.shape
    converted = array.to(example.dtype)
    same_kind = array.dtype.is_floating_point == example.dtype.is_floating_point and array.is_complex() == example.is_complex()
    if same_kind and (example.dtype.is_floating_point or example.is_complex() or torch.equal(converted.to(array.dtype), array)):
        if array.ndim == example.ndim + 1 and len(array) and shape[1:] == wanted:
            return list(converted)
        if array.ndim == example.ndim > 0 and shape[1:] == wanted[1:] and shape[0] >= wanted[0] > 0 and shape[0] % wanted[0] == 0:
            return list(converted.split(wanted[0]))
    ways = [str(["n", *wanted]).replace("'", "")]
    if wanted:
        ways.append(str([f"n*{wanted[0]}", *wanted[1:]]).replace("'", ""))
    raise OptionError(
        f"calibration file '{path}': input '{name}' is {kind_of(array)}, and {kind_of(example)} in the example inputs; "
        f"give an array of {str(example.dtype).removeprefix('torch.')}{' or '.join(ways)} for n samples"
    )


def _read_npz(path: pathlib.Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise OptionError(f"'{path}' needs the package safetensors; install it, or give a .npz file") from error
    return load_file(path)


def _read_pt(path: pathlib.Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


_READERS: Mapping[str, Callable[[pathlib.Path], Any]] = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pt": _read_pt}
