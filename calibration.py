"""Samples of a model's inputs, by which the ranges of its activations are judged: as a user gives them, and as a graph takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import input_names, parameter_names
from .errors import OptionError
from .runtime import trees

if TYPE_CHECKING:
    import torch

    from .frontend import Exported, Imported

Samples = tuple[tuple[Any, ...], ...]
"""Positional arguments of the model, for each sample."""

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
Calls = tuple[Call, ...]
"""Positional and keyword arguments of calls of the model."""

FlatSamples = tuple[tuple[np.ndarray, ...], ...]
"""Arrays for the inputs of a graph, for each sample."""


def samples_of(calibration: Any, model: Any) -> Samples:
    """The positional arguments of the batches that a user gave as ``calibration`` for ``model``, in any way that
    :func:`~mlc.frontend.calibration.batches_of` takes; OptionError for anything else."""
    if calibration is None:
        return ()
    from .frontend.calibration import batches_of

    parameters = parameter_names(model)
    return tuple(batch.positional(parameters) for batch in batches_of(calibration))


def require_like(samples: Samples, model: Any, args: Sequence[Any], *, dynamic: bool) -> None:
    """OptionError unless every sample has tensors where the arguments ``args`` of ``model`` have them, of the same dtypes and, unless
    ``dynamic``, shapes."""
    import torch
    from torch.utils import _pytree as pytree

    wanted, structure = pytree.tree_flatten(tuple(args))
    for number, sample in enumerate(samples):
        given, own = pytree.tree_flatten(sample)
        if own != structure:
            raise OptionError(
                f"calibration[{number}] has another structure than the example inputs, which are {', '.join(input_names(model, args))}; "
                "give the same positional arguments"
            )
        for place, (value, example) in enumerate(zip(given, wanted, strict=True)):
            if not isinstance(example, torch.Tensor):
                continue
            same = isinstance(value, torch.Tensor) and value.dtype is example.dtype and (dynamic or value.shape == example.shape)
            if not same:
                raise OptionError(
                    f"calibration[{number}]: input '{input_names(model, args)[place]}' is {kind_of(value)}, and {kind_of(example)} in the "
                    "example inputs; give samples of that kind"
                )


def kind_of(value: Any) -> str:
    """What a user sees of a value in an error: dtype and shape of a tensor."""
    if not hasattr(value, "shape"):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def flat_samples(samples: Samples, exported: Exported, imported: Imported) -> FlatSamples:
    """``samples`` of the arguments of ``exported``, with its example's keyword arguments, as inputs of ``imported``; none where that is a
    part with inputs of its own, or takes complex numbers.
    """
    import torch
    from torch.export.graph_signature import InputKind

    placeholders = [node for node in exported.program.graph.nodes if node.op == "placeholder"]
    specs = zip(placeholders, exported.program.graph_signature.input_specs, strict=True)
    values = [(node.name, node.meta.get("val")) for node, spec in specs if spec.kind is InputKind.USER_INPUT]
    # Complex tensors enter graphs as pairs of parts.
    names = [name for name, value in values if isinstance(value, torch.Tensor) and not value.is_complex()]
    if not samples or [spec.name for spec in imported.signature.inputs] != names:
        return ()
    _, kwargs = exported.program.example_inputs or ((), {})
    return tuple(flat_call(imported, sample, kwargs) for sample in samples)


def flat_call(imported: Imported, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The arguments of a call as inputs of ``imported``; states come with what they hold at first."""
    given = trees.flatten_call(imported.signature, tuple(args), kwargs)[: len(imported.signature.inputs)]
    return (*map(_array, given), *(state.initial.array() for state in imported.states))


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


def similar_call(call: Call, seed: int) -> Call:
    """A call with other numbers: floats of the same mean and spread, indices from the same range; masks and positions stay as they are."""
    import torch
    from torch.utils import _pytree as pytree

    generator = torch.Generator().manual_seed(seed)
    args, kwargs = pytree.tree_map(
        lambda leaf: _similar(leaf, generator) if isinstance(leaf, torch.Tensor) else leaf, (call[0], dict(call[1]))
    )
    return args, kwargs


def _similar(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    import torch

    flat = example.detach().flatten().cpu()
    if flat.numel() == 0 or example.is_complex() or example.dtype is torch.bool:
        return example
    if example.is_floating_point():
        return _similar_numbers(flat.float(), generator).reshape(example.shape).to(example.dtype)
    counts_up = bool((flat.diff() >= 0).all())
    if counts_up or int(flat.max()) <= 1:
        return example
    return torch.randint(int(flat.min()), int(flat.max()) + 1, example.shape, generator=generator).to(example.dtype)


def _similar_numbers(numbers: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normally distributed numbers of the same mean and spread; of numbers none of which is negative, or not all finite, some of them."""
    import torch

    spread = float(numbers.std()) if numbers.numel() > 1 else 0.0
    if not bool(torch.isfinite(numbers).all()) or (spread > 0 and bool((numbers >= 0).all())):
        return numbers[torch.randint(0, numbers.numel(), (numbers.numel(),), generator=generator)]
    return torch.randn(numbers.shape, generator=generator) * (spread or 1.0) + float(numbers.mean())
