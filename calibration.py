"""Samples of a model's inputs, by which the ranges of its activations are judged: as a user gives them, and as a graph takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import OptionError
from .runtime import trees

if TYPE_CHECKING:
    from .frontend import Exported, Imported

Samples = tuple[tuple[Any, ...], ...]
"""Positional arguments of the model, for each sample."""

FlatSamples = tuple[tuple[np.ndarray, ...], ...]
"""Arrays for the inputs of a graph, for each sample."""


def samples_of(calibration: Any) -> Samples:
    """What a user gave as ``calibration``; OptionError unless it is a sequence of tuples of arguments."""
    if calibration is None:
        return ()
    if not isinstance(calibration, list | tuple) or not all(isinstance(sample, list | tuple) for sample in calibration):
        raise OptionError("calibration is no list of tuples; give a few samples of the positional arguments, such as [(x1,), (x2,)]")
    return tuple(map(tuple, calibration))


def require_like(samples: Samples, args: Sequence[Any], *, dynamic: bool) -> None:
    """OptionError unless every sample has tensors where ``args`` has them, of the same dtypes and, unless ``dynamic``, shapes."""
    import torch
    from torch.utils import _pytree as pytree

    wanted, structure = pytree.tree_flatten(tuple(args))
    for number, sample in enumerate(samples):
        given, own = pytree.tree_flatten(sample)
        if own != structure:
            raise OptionError(f"calibration[{number}] has another structure than the example inputs; give the same positional arguments")
        for value, example in zip(given, wanted, strict=True):
            if not isinstance(example, torch.Tensor):
                continue
            same = isinstance(value, torch.Tensor) and value.dtype is example.dtype and (dynamic or value.shape == example.shape)
            if not same:
                shape = getattr(value, "shape", type(value).__name__)
                raise OptionError(
                    f"calibration[{number}] holds {shape} where the example inputs have a {example.dtype} tensor of {list(example.shape)}; "
                    "give samples of that kind"
                )


def flat_samples(samples: Samples, exported: Exported, imported: Imported) -> FlatSamples:
    """``samples`` of the arguments of ``exported`` as inputs of ``imported``; none where that is a part with inputs of its own.

    States come with what they hold at first.
    """
    from torch.export.graph_signature import InputKind

    specs = exported.program.graph_signature.input_specs
    names = [spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT]
    if not samples or [spec.name for spec in imported.signature.inputs] != names:
        return ()
    states = tuple(state.initial.array() for state in imported.states)
    count = len(imported.signature.inputs)
    return tuple((*map(_array, trees.flatten_call(imported.signature, sample, {})[:count]), *states) for sample in samples)


def digest(samples: FlatSamples) -> str:
    """A hash of all that is in ``samples``."""
    content = hashlib.sha256()
    for array in (array for sample in samples for array in sample):
        content.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest() if samples else ""


def _array(value: Any) -> np.ndarray:
    """The numbers of a tensor; of one of bfloat16, which NumPy lacks, in fp32."""
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    plain = value.detach().cpu()
    return np.asarray((plain.float() if plain.dtype is torch.bfloat16 else plain).numpy())
