"""Pruning: zeros put into the weights of a copy of a module, in patterns that kernels can leave out.

A weight counts as a matrix [outputs, inputs]: of a linear layer as it is, of a convolution without groups one for each place in its window.
Scores say how much an element matters: its magnitude (Han et al., 2015), or its magnitude times the norm of the inputs that it is
multiplied with (Wanda: Sun et al., "A simple and effective pruning approach for large language models", 2023).
"""

from __future__ import annotations

import copy
import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from .channel_order import gather_alike
from .errors import OptionError
from .frontend.calibration import batches_of, show_inputs

_Layer = nn.Linear | nn.Conv1d | nn.Conv2d


class Method(enum.StrEnum):
    """How the elements to keep are chosen."""

    MAGNITUDE = "magnitude"
    """The largest of all layers together, with a floor for each layer."""
    WANDA = "wanda"
    """For each output those with the largest product of magnitude and norm of the input, over calibration batches."""
    PROJECTION = "projection"
    """For each layer the largest, so that the pruned weight is the nearest in the pattern."""


@dataclass(frozen=True)
class Pattern:
    """Where zeros may be: in whole blocks of ``rows`` outputs by ``columns`` inputs, or ``kept`` = (n, m): all but n of m inputs.

    ``windowed``: blocks of a convolution are the same at every place of its window, else each place has its own.
    """

    rows: int = 1
    columns: int = 1
    kept: tuple[int, int] | None = None
    windowed: bool = False

    @staticmethod
    def parse(text: str) -> Pattern:
        """The pattern of ``unstructured``, ``N:M`` such as 2:4, or ROWSxCOLUMNS such as 16x1, with `` window`` behind it.

        OptionError for anything else.
        """
        if text == "unstructured":
            return Pattern()
        if match := re.fullmatch(r"(\d+):(\d+)", text):
            n, m = int(match[1]), int(match[2])
            if 0 < n < m:
                return Pattern(kept=(n, m))
        if match := re.fullmatch(r"(\d+)x(\d+)( window)?", text):
            rows, columns = int(match[1]), int(match[2])
            if rows and columns:
                return Pattern(rows, columns, windowed=match[3] is not None)
        raise OptionError(
            f"pattern={text!r} is unknown; use 'unstructured', N:M such as '2:4', or blocks such as '16x1', '4x4' or '16x1 window'"
        )

    def blocks(self, scores: torch.Tensor) -> torch.Tensor:
        """The sums of non-negative ``scores`` [..., outputs, inputs] over blocks; those at the edges may be smaller."""
        rows, columns = scores.shape[-2:]
        pad = (0, -columns % self.columns, 0, -rows % self.rows)
        whole: torch.Tensor = nn.functional.pad(scores, pad)
        height, width = whole.shape[-2:]
        split = whole.reshape(*whole.shape[:-2], height // self.rows, self.rows, width // self.columns, self.columns)
        return split.sum(dim=(-3, -1))

    def spread(self, blocks: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """What is said of blocks, said of each element of a weight [..., outputs, inputs] of ``shape``."""
        whole = blocks.repeat_interleave(self.rows, -2).repeat_interleave(self.columns, -1)
        return whole[..., : shape[-2], : shape[-1]]


def prune(
    model: nn.Module,
    pattern: str | Mapping[str, str] = "unstructured",
    density: float | None = None,
    method: str = "magnitude",
    calibration: Iterable[Any] | None = None,
    *,
    floor: float = 0.25,
    skip: Sequence[str] = (),
    permute: bool = False,
) -> nn.Module:
    """A copy of ``model`` with zeros in the weights of its linear layers and convolutions; the model itself is left as it is.

    ``pattern`` is ``"unstructured"``, ``"2:4"``, ``"1:4"``, ``"4:8"`` (N of M inputs are kept) or blocks of outputs by inputs: ``"16x1"``,
    ``"1x16"``, ``"4x4"``, ``"32x32"``; or a mapping from kind of operator to pattern, of ``linear``, ``pointwise`` (1x1 convolutions),
    ``conv`` (all other convolutions) and ``depthwise``; kinds that it leaves out are not pruned, nor are depthwise convolutions unless it
    names them. ``density`` is the share of elements that stay, of all pruned layers together; N:M patterns determine it themselves.
    Each place of a convolution's window has its own blocks, with ``window`` behind them (``"16x1 window"``) all have the same. ``permute``
    first puts the channels between layers into an order in which blocks keep more of what is large (:mod:`.channel_order`): the model
    computes the same with it, but what reads its weights finds their rows and columns in other places.

    ``method`` is ``"magnitude"``: the largest of the whole model stay, of every layer at least ``floor`` times ``density``; ``"wanda"``,
    which needs ``calibration``, batches (each a tensor, a tuple of arguments or a mapping of keyword arguments) that the model is run on;
    or ``"projection"``: the largest of every layer. Layers whose module path is, or begins with, one of ``skip`` are left alone. Masks and
    parametrisations of torch.nn.utils.prune and torch.ao.pruning are applied to the copy for good first.

    The copy is an ordinary module: it can be trained further, saved, or given to :func:`compile`, which finds the zeros. OptionError for
    arguments that make no sense.
    """
    chosen = Method(method) if method in set(Method) else None
    if chosen is None:
        raise OptionError(f"method={method!r} is unknown; use {', '.join(repr(each.value) for each in Method)}")
    if chosen is Method.WANDA and calibration is None:
        raise OptionError("method='wanda' weighs inputs by their norm; give calibration=[...], a few batches for the model")
    pruned = _permanent_copy(model)
    patterns = _patterns(pattern)
    layers = {name: layer for name, layer in _layers(pruned, skip) if _kind(layer) in patterns}
    if not layers:
        raise OptionError("there is no layer to prune; 'skip' or 'pattern' leaves all linear layers and convolutions out")
    share = _checked_density(density, patterns.values())
    tallest = max(each.rows for each in patterns.values())
    if permute and tallest > 1:
        for _ in gather_alike(pruned, tallest, share):
            pass
    norms = _input_norms(pruned, layers, calibration) if chosen is Method.WANDA and calibration is not None else {}
    _apply(layers, patterns, share, chosen, norms, floor)
    return pruned


def _patterns(pattern: str | Mapping[str, str]) -> dict[str, Pattern]:
    if isinstance(pattern, str):
        return dict.fromkeys(("linear", "pointwise", "conv"), Pattern.parse(pattern))
    known = ("linear", "pointwise", "conv", "depthwise")
    for kind in pattern:
        if kind not in known:
            raise OptionError(f"pattern names the operator kind {kind!r}; there are {', '.join(known)}")
    return {kind: Pattern.parse(text) for kind, text in pattern.items()}


def _checked_density(density: float | None, patterns: Iterable[Pattern]) -> float:
    free = [pattern for pattern in patterns if pattern.kept is None]
    if density is None:
        if free:
            raise OptionError("give density=, the share of weights that stay, such as 0.2; only N:M patterns say it themselves")
        return 1.0
    if not 0 <= density <= 1:
        raise OptionError(f"density={density!r} is no share of the weights; give a number from 0 to 1")
    for pattern in patterns:
        if pattern.kept is not None and not math.isclose(density, pattern.kept[0] / pattern.kept[1]):
            raise OptionError(f"density={density!r} contradicts the pattern {pattern.kept[0]}:{pattern.kept[1]}; leave it out")
    return float(density)


def _kind(layer: _Layer) -> str:
    if isinstance(layer, nn.Linear):
        return "linear"
    if layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "grouped"
    return "pointwise" if all(size == 1 for size in layer.kernel_size) else "conv"


def _layers(model: nn.Module, skip: Sequence[str]) -> Iterable[tuple[str, _Layer]]:
    """The layers that may be pruned, by module path; one whose weight another kind of module shares, as embeddings do, is left out."""
    others = {
        id(parameter) for module in model.modules() if not isinstance(module, _Layer) for parameter in module.parameters(recurse=False)
    }
    seen: set[int] = set()
    for name, module in model.named_modules():
        skipped = any(name == prefix or name.startswith(f"{prefix}.") for prefix in skip)
        if isinstance(module, _Layer) and not skipped and id(module.weight) not in others | seen:
            seen.add(id(module.weight))
            yield name, module


def _permanent_copy(model: nn.Module) -> nn.Module:
    """A copy that has the values which masks and parametrisations give in the place of its parameters."""
    # Masked weights are results, which PyTorch refuses to copy deeply.
    results = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(model, results)
    for module in copied.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, torch_prune.BasePruningMethod):
                torch_prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        if parametrize.is_parametrized(module):
            _remove_parametrizations(module)
    return copied


def _remove_parametrizations(module: nn.Module) -> None:
    """Makes parameters of the values. PyTorch's own function would change the class, which the copied module shares with its original."""
    names = list(module.parametrizations)  # type: ignore[arg-type]  # a ModuleDict
    values = {name: getattr(module, name).detach().clone() for name in names}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _matrices(layer: _Layer, weight: torch.Tensor) -> torch.Tensor:
    """A weight as matrices [places of the window, outputs, inputs]."""
    if isinstance(layer, nn.Linear):
        return weight.unsqueeze(0)
    return weight.flatten(2).permute(2, 0, 1)


def _weight_of(layer: _Layer, matrices: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`_matrices`."""
    return matrices[0] if isinstance(layer, nn.Linear) else matrices.permute(1, 2, 0).reshape(layer.weight.shape)


def _apply(
    layers: Mapping[str, _Layer],
    patterns: Mapping[str, Pattern],
    density: float,
    method: Method,
    norms: Mapping[str, torch.Tensor],
    floor: float,
) -> None:
    """Zeroes what is not kept of every layer."""
    scores: dict[str, torch.Tensor] = {}
    free: dict[str, torch.Tensor] = {}
    sizes: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        pattern = patterns[_kind(layer)]
        matrices = _matrices(layer, layer.weight.detach()).float()
        score = matrices.square()
        if name in norms:
            score = score * norms[name].square()
        scores[name] = score
        if pattern.kept is None:
            blocked = score.mean(0, keepdim=True) if pattern.windowed else score
            free[name], sizes[name] = pattern.blocks(blocked), pattern.blocks(torch.ones_like(blocked))
    kept_blocks = _kept(free, sizes, density, method, floor)
    for name, layer in layers.items():
        pattern = patterns[_kind(layer)]
        kept = _best_of_groups(scores[name], *pattern.kept) if pattern.kept else pattern.spread(kept_blocks[name], scores[name].shape)
        mask = _weight_of(layer, kept.expand(scores[name].shape).to(layer.weight.dtype))
        with torch.no_grad():
            # Not by multiplication, which keeps NaN.
            layer.weight.copy_(torch.where(mask != 0, layer.weight, torch.zeros_like(layer.weight)))


def _kept(
    scores: Mapping[str, torch.Tensor], sizes: Mapping[str, torch.Tensor], density: float, method: Method, floor: float
) -> dict[str, torch.Tensor]:
    """Which blocks of each layer are kept; ``sizes`` are their elements, fewer at the edges."""
    if method is Method.WANDA:
        return {name: _largest_of_rows(score, density) for name, score in scores.items()}
    if method is Method.PROJECTION:
        return {name: _largest(score, round(density * score.numel())) for name, score in scores.items()}
    if not scores:
        return {}
    # Blocks of different size are compared by the mean of their elements.
    means = {name: score / sizes[name] for name, score in scores.items()}
    kept = {name: _largest(score, math.ceil(floor * density * score.numel())) for name, score in means.items()}
    rest = density * sum(float(size.sum()) for size in sizes.values()) - sum(float(sizes[name][mask].sum()) for name, mask in kept.items())
    flat = torch.cat([torch.where(kept[name], -1.0, score).flatten() for name, score in means.items()])
    order = torch.argsort(flat, descending=True)
    reached = torch.cumsum(torch.cat([size.flatten() for size in sizes.values()])[order].double(), 0)
    more = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    more[order[(reached <= rest + 0.5) & (flat[order] >= 0)]] = True
    for (name, mask), part in zip(kept.items(), torch.split(more, [mask.numel() for mask in kept.values()]), strict=True):
        kept[name] = mask | part.view(mask.shape)
    return kept


def _largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """A mask of the ``count`` largest."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[torch.topk(scores.flatten(), min(count, scores.numel())).indices] = True
    return mask.view(scores.shape)


def _largest_of_rows(scores: torch.Tensor, density: float) -> torch.Tensor:
    """A mask of the largest share of each output, or row of blocks: [places, outputs, inputs]."""
    places, rows, columns = scores.shape
    lines = scores.permute(1, 0, 2).reshape(rows, -1)
    mask = torch.zeros_like(lines, dtype=torch.bool)
    mask.scatter_(1, torch.topk(lines, round(density * lines.shape[1]), dim=1).indices, True)
    return mask.view(rows, places, columns).permute(1, 0, 2)


def _best_of_groups(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """A mask of the ``n`` largest of each ``m`` consecutive inputs; a last group that is shorter keeps as many, if it has them."""
    columns = scores.shape[-1]
    padded = nn.functional.pad(scores, (0, -columns % m), value=-1.0)
    groups = padded.reshape(*padded.shape[:-1], -1, m)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(-1, torch.topk(groups, n, dim=-1).indices, True)
    return mask.flatten(-2)[..., :columns]


def _input_norms(model: nn.Module, layers: Mapping[str, _Layer], calibration: Iterable[Any]) -> dict[str, torch.Tensor]:
    """The norm of each input of each layer over the batches: for a convolution of each channel."""
    squares = {name: torch.zeros(1) for name in layers}

    def watcher(name: str, layer: _Layer) -> Callable[[torch.Tensor], None]:
        def add(x: torch.Tensor) -> None:
            channels = _channel_axis(layer, x)
            squares[name] = squares[name] + x.float().square().sum([axis for axis in range(x.ndim) if axis != channels])

        return add

    training = {module: module.training for module in model.modules()}
    try:
        show_inputs(model.eval(), batches_of(calibration), {layer: watcher(name, layer) for name, layer in layers.items()})
    finally:
        # One by one: layers may be frozen within a model that is being trained.
        for module, mode in training.items():
            module.training = mode
    return {name: total.sqrt() for name, total in squares.items()}


def _channel_axis(layer: _Layer, x: torch.Tensor) -> int:
    """The axis of a layer's inputs in ``x``: images may come without a batch."""
    return x.ndim - 1 if isinstance(layer, nn.Linear) else x.ndim - 1 - len(layer.kernel_size)
