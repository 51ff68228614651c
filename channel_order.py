"""The order of channels: which layers of a network share it, and an order in which blocks of outputs keep more of what is large.

A network computes the same whatever the order of the channels between its layers, as long as all that write or read them agree: the layers
before and after, norms between them, and everything that a residual addition ties together (Ji et al., "Tetris: tile-matching the
tremendous irregular sparsity", 2018; Pool and Yu, "Channel permutations for N:M sparsity", 2021).
"""

from __future__ import annotations

import enum
import operator
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from .errors import OptionError


class Role(enum.Enum):
    """What a module does with channels."""

    WRITES = "writes"
    """They are the outputs of its weight."""
    READS = "reads"
    """They are the inputs of its weight."""
    CARRIES = "carries"
    """It has a number for each: norms and depthwise convolutions."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that share an order: how many there are, and the modules, by path, that know of them."""

    count: int
    members: tuple[tuple[str, Role], ...]

    def reorder(self, model: nn.Module, order: torch.Tensor) -> None:
        """Puts channel ``order[i]`` at place ``i`` in all members of ``model``, in place."""
        for name, role in self.members:
            module = model.get_submodule(name)
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            with torch.no_grad():
                for key, tensor in tensors:
                    if role is Role.READS and key == "weight":
                        tensor.copy_(tensor.index_select(1, order))
                    elif role is not Role.READS and tensor.ndim:
                        tensor.copy_(tensor.index_select(0, order))


def channel_groups(model: nn.Module) -> list[ChannelGroup]:
    """The groups whose order is free; OptionError for a model that torch.fx cannot trace.

    Channels are not free where something reads or writes them that is not known to keep their order: inputs and outputs of the model,
    concatenations, reshapes, attention.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise OptionError(
            f"permute=True follows channels through a trace of the model, which torch.fx cannot make ({error}); leave it out"
        ) from error
    return _Walk(model, graph).groups()


_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.ELU, nn.Mish, nn.Dropout,
    nn.Dropout2d, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_POINTWISE = {
    "relu", "relu_", "relu6", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "dropout", "max_pool2d",
    "avg_pool2d", "adaptive_avg_pool2d", "contiguous", "clamp",
}  # fmt: skip
_TYING = {operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, torch.add, torch.mul, torch.sub}
_TYING_METHODS = {"add", "add_", "mul", "mul_", "sub"}


@dataclass
class _Channels:
    """Channels of a value, along axis 1 (or of linear layers the last one), and what is known of them; joined ones point to another."""

    count: int
    free: bool = True
    members: list[tuple[str, Role]] = field(default_factory=list)
    joined: _Channels | None = None

    def root(self) -> _Channels:
        return self if self.joined is None else self.joined.root()


@dataclass(frozen=True)
class _Known:
    """What is known of a value: its channels, whether they lie last, and whether it is one pixel an image."""

    channels: _Channels
    last: bool
    pixel: bool = False


class _Walk:
    """Follows channels through the nodes of a trace."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self._model = model
        self._graph = graph
        self._known: dict[fx.Node, _Known] = {}
        self._all: list[_Channels] = []
        calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
        owners: dict[int, set[str]] = defaultdict(set)
        for name, module in model.named_modules(remove_duplicate=False):
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)].add(name)
        self._bound = {name for name, count in calls.items() if count > 1}
        """Modules that are called more than once, or share a parameter."""
        for names in owners.values():
            if len(names) > 1:
                self._bound |= names

    def groups(self) -> list[ChannelGroup]:
        for node in self._graph.nodes:
            if (known := self._visit(node)) is not None:
                self._known[node] = known
        roots = {id(each): each for each in self._all if each.joined is None}
        return [
            ChannelGroup(each.count, tuple(each.members))
            for each in roots.values()
            if each.free and any(role is Role.WRITES for _, role in each.members)
        ]

    def _visit(self, node: fx.Node) -> _Known | None:
        sources = [self._known[source] for source in node.all_input_nodes if source in self._known]
        whole = len(sources) == len(node.all_input_nodes)
        if node.op == "call_module" and str(node.target) not in self._bound and len(sources) == 1 and whole:
            known = self._module(str(node.target), self._model.get_submodule(str(node.target)), sources[0])
            if known is not None:
                return known
        elif node.op == "call_function" and whole and sources:
            if node.target in _TYING:
                return self._tied(sources)
            if getattr(node.target, "__name__", "") in _POINTWISE and len(sources) == 1:
                return self._kept(sources[0], str(getattr(node.target, "__name__", "")), node.args[1:])
            if node.target is torch.flatten and sources[0].pixel and node.args[1:] == (1,):
                return sources[0]
        elif node.op == "call_method" and whole and sources:
            if node.target in _TYING_METHODS:
                return self._tied(sources)
            if node.target in _POINTWISE and len(sources) == 1:
                return sources[0]
            if node.target == "flatten" and sources[0].pixel and node.args[1:] == (1,):
                return sources[0]
        # What is not known may read channels in any order.
        for source in sources:
            source.channels.root().free = False
        return self._unknown(node)

    def _unknown(self, node: fx.Node) -> _Known | None:
        """The first layers read a fixed order: of a placeholder, or of what came of something unknown."""
        return None if node.op == "output" else _Known(self._new(0, free=False), last=False)

    def _new(self, count: int, *, free: bool = True) -> _Channels:
        channels = _Channels(count, free)
        self._all.append(channels)
        return channels

    def _module(self, name: str, module: nn.Module, source: _Known) -> _Known | None:
        channels = source.channels.root()
        if isinstance(module, nn.Conv2d) and not source.last:
            if module.groups == 1:
                channels.members.append((name, Role.READS))
                return self._written(name, module.out_channels, last=False, pixel=source.pixel)
            if module.groups == module.in_channels == module.out_channels:
                channels.members.append((name, Role.CARRIES))
                return source
        if isinstance(module, nn.BatchNorm2d):
            channels.members.append((name, Role.CARRIES))
            return source
        if isinstance(module, nn.Linear) and (source.last or source.pixel or not channels.free):
            channels.members.append((name, Role.READS))
            return self._written(name, module.out_features, last=True, pixel=False)
        if isinstance(module, nn.Flatten) and source.pixel and module.start_dim == 1:
            return source
        if isinstance(module, _POINTWISE_MODULES):
            size = getattr(module, "output_size", None)
            return self._kept(source, type(module).__name__, (size,))
        return None

    def _kept(self, source: _Known, name: str, arguments: Sequence[object]) -> _Known:
        """What an operation that works channel by channel makes."""
        pools = "pool" in name.lower()
        if pools and source.last:
            source.channels.root().free = False
        single = "daptive" in name and bool(arguments) and arguments[0] in (1, (1, 1))
        return _Known(source.channels, source.last, single or (source.pixel and not pools))

    def _written(self, name: str, count: int, *, last: bool, pixel: bool) -> _Known:
        channels = self._new(count)
        channels.members.append((name, Role.WRITES))
        return _Known(channels, last, pixel)

    def _tied(self, sources: Sequence[_Known]) -> _Known:
        """Elementwise: all sources have one order."""
        first = sources[0].channels.root()
        for source in sources[1:]:
            other = source.channels.root()
            if other is first:
                continue
            first.free = first.free and other.free and first.count == other.count
            first.members += other.members
            other.joined = first
        if len({source.last for source in sources}) > 1:
            first.free = False
        return _Known(first, sources[0].last, all(source.pixel for source in sources))


def blockwise_order(scores: torch.Tensor, rows: int, density: float) -> torch.Tensor:
    """An order of the rows of non-negative ``scores`` [channels, steps] in which blocks of ``rows`` by 1 keep more, greedily.

    A block begins with the largest row that is left; the others are those with most where the block would keep its steps.
    """
    left = torch.ones(len(scores), dtype=torch.bool)
    kept = max(1, round(density * scores.shape[1]))
    order: list[int] = []
    while left.any():
        seed = int(torch.where(left, scores.sum(1), -1.0).argmax())
        block = [seed]
        left[seed] = False
        total = scores[seed].clone()
        while len(block) < rows and left.any():
            steps = torch.zeros(scores.shape[1])
            steps[torch.topk(total, kept).indices] = 1
            gain = scores @ steps
            best = int(torch.where(left, gain, -1.0).argmax())
            block.append(best)
            left[best] = False
            total += scores[best]
        order += block
    return torch.tensor(order)


def kept_by_blocks(scores: torch.Tensor, rows: int, density: float) -> float:
    """What the largest blocks of ``rows`` by 1 of ``scores`` [channels, steps] hold, of all of them."""
    padded = nn.functional.pad(scores, (0, 0, 0, -len(scores) % rows))
    blocks = padded.reshape(-1, rows, scores.shape[1]).sum(1).flatten()
    return float(torch.topk(blocks, max(1, round(density * blocks.numel()))).values.sum() / scores.sum().clamp(min=1e-30))


def gather_alike(model: nn.Module, rows: int, density: float) -> Iterator[tuple[ChannelGroup, float, float]]:
    """Reorders the channels of ``model``, in place, so that blocks of ``rows`` outputs keep more; its results stay what they are.

    Yields each group that has another order, and what blocks of it keep before and after, as shares of the sum of squares.
    """
    for group in channel_groups(model):
        writers = [model.get_submodule(name) for name, role in group.members if role is Role.WRITES]
        scores = torch.cat([module.weight.detach().float().flatten(1).square() for module in writers], 1)  # type: ignore[operator]
        order = blockwise_order(scores, rows, density)
        before, after = kept_by_blocks(scores, rows, density), kept_by_blocks(scores[order], rows, density)
        if after > before:
            group.reorder(model, order)
            yield group, before, after
