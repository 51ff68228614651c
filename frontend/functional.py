"""A short way from an exported program to one in our operation set, for programs that need little.

``ExportedProgram.run_decompositions`` traces a program a second time, which takes longer than the first. Most models need nothing of it but
a few composite operations spelt out and a few operations in place replaced by those that return a new tensor. Whatever is beyond the tables
of this module goes the long way, so that they may stay short.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._decomp import _core_aten_decompositions_post_autograd
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from . import ops as _ops  # noqa: F401  registers the converters
from .decompositions import KEPT
from .registry import converter_of

aten = torch.ops.aten

_INPUTS = frozenset({InputKind.USER_INPUT, InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR})

_VIEWS = frozenset(
    {
        aten.contiguous.default,
        aten.flatten.using_ints,
        aten.reshape.default,
        aten.transpose.int,
        aten.unflatten.int,
    }
)
"""Composites whose converters say the same as their decompositions."""

_IGNORED = frozenset({aten._assert_tensor_metadata.default})
"""What checks at run time that which the exported types say already, and gives nothing."""


def functional_directly(exported: ExportedProgram) -> bool:
    """Rewrites ``exported`` in place to a functional program in our operation set, if this module knows how; whether it did. If it did not,
    the program is as it was."""
    signature = exported.graph_signature
    if (
        any(spec.kind not in _INPUTS for spec in signature.input_specs)
        or any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs)
        or not all(map(_is_plain, exported.graph.nodes))
    ):
        return False
    graph = fx.Graph(exported.graph_module)
    try:
        _Rewriting(graph).run(exported.graph)
    except _BeyondError:
        return False
    graph.eliminate_dead_code()
    exported.graph_module.graph = graph
    return True


class _BeyondError(Exception):
    """The program holds something that this module does not know."""


def _is_plain(node: fx.Node) -> bool:
    """Whether a node calls an operation, and all its results are real tensors of known shapes."""
    if node.op not in ("placeholder", "output", "call_function"):
        return False
    if node.op == "call_function" and not (isinstance(node.target, OpOverload) or node.target is operator.getitem):
        return False
    results = pytree.tree_leaves(node.meta.get("val"))
    return not any(
        isinstance(result, torch.SymInt | torch.SymFloat | torch.SymBool)
        or (isinstance(result, torch.Tensor) and (result.is_complex() or not all(isinstance(size, int) for size in result.shape)))
        for result in results
    )


class _Rewriting:
    """A graph that grows as the nodes of another are rewritten into it."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.known: dict[fx.Node, fx.Node] = {}
        """What a node of the other graph is in this one, as of the node that is being rewritten."""
        self.same: dict[fx.Node, list[fx.Node]] = {}
        """The nodes that are one tensor, since operations in place return their operand."""

    def run(self, given: fx.Graph) -> None:
        """_BeyondError when a node of ``given`` is not known."""
        for node in given.nodes:
            if node.op != "call_function":
                self.known[node] = self.graph.node_copy(node, self.known.__getitem__)
            elif node.target not in _IGNORED:
                self.known[node] = self.call(node)

    def call(self, node: fx.Node) -> fx.Node:
        target = node.target
        if target is operator.getitem or stays(target):
            return self.graph.node_copy(node, self.known.__getitem__)
        rewrite = _REWRITES.get(target)
        if rewrite is not None:
            return rewrite(self, node, *_bound(node))
        twin = _functional_twin(target)
        if twin is None:
            raise _BeyondError
        return self.in_place(node, twin)

    def in_place(self, node: fx.Node, twin: OpOverload) -> fx.Node:
        """What an operation in place yields is from then on what its operand is, if nothing else shares the operand's memory."""
        operand = node.args[0]
        if not isinstance(operand, fx.Node):
            raise _BeyondError
        same = self.same.setdefault(operand, [operand])
        if not _makes_new(same[0].target):
            raise _BeyondError
        for each in same:
            if any(user in self.known and user not in same and not _makes_new(user.target) for user in each.users):
                raise _BeyondError
        result = self.add(node, twin, *map_arg(node.args, self.known.__getitem__), **map_arg(node.kwargs, self.known.__getitem__))
        same.append(node)
        self.same[node] = same
        self.known.update(dict.fromkeys(same, result))
        return result

    def add(self, node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of ``target`` in the place of ``node``, with a result like that one's (its first result, where it has several)."""
        values = map_arg((args, kwargs), lambda operand: operand.meta["val"])
        example = node.meta["val"]
        with example.fake_mode:
            value = target(*values[0], **values[1])
        first = value[0] if isinstance(value, tuple) else value
        if not isinstance(first, FakeTensor) or first.dtype is not example.dtype or first.shape != example.shape:
            raise _BeyondError
        return self._append(node, target, args, kwargs, value)

    def first_of(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:
        """The first result of a call that has several."""
        several = self.add(node, target, *args)
        return self._append(node, operator.getitem, (several, 0), {}, several.meta["val"][0])

    def _append(self, node: fx.Node, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], value: Any) -> fx.Node:
        made = self.graph.call_function(target, tuple(args), dict(kwargs))
        made.meta = {**node.meta, "val": value}
        return made


@functools.cache
def stays(target: Any) -> bool:
    """Whether an operation is one of our set: it has a converter, changes nothing and is not decomposed."""
    if not isinstance(target, OpOverload) or target._schema.is_mutable or converter_of(target) is None:
        return False
    return target in _VIEWS or target in KEPT or not decomposes(target)


def decomposes(operation: OpOverload) -> bool:
    """Whether ``run_decompositions`` with our table replaces ``operation``."""
    return operation not in KEPT and (operation in _core_aten_decompositions_post_autograd() or _is_composite(operation))


def _is_composite(operation: OpOverload) -> bool:
    name = operation.name()  # type: ignore[no-untyped-call]
    native: bool = torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")
    return native or torch._C.DispatchKey.CompositeImplicitAutograd in operation.py_kernels


def _makes_new(target: Any) -> bool:
    """Whether the results of an operation share no memory with its operands."""
    if target in _NEW:
        return True
    if not isinstance(target, OpOverload) or _is_composite(target):
        return False
    schema = target._schema
    return all(part.alias_info is None for part in (*schema.arguments, *schema.returns))


def _functional_twin(target: Any) -> OpOverload | None:
    """The operation that returns what ``target`` writes into its first operand, if it is of our set."""
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return None
    schema = target._schema
    name = schema.name.removeprefix("aten::")
    written = [argument.alias_info is not None for argument in schema.arguments]
    if not name.endswith("_") or name.endswith("__") or written[:1] != [True] or any(written[1:]):
        return None
    twin: OpOverload | None = getattr(getattr(aten, name[:-1], None), target._overloadname, None)
    return twin if stays(twin) else None


def _bound(node: fx.Node) -> list[Any]:
    """The arguments of a call by position, defaults included."""
    parameters = node.target._schema.arguments  # type: ignore[union-attr]
    given = [*node.args, *(node.kwargs.get(each.name, each.default_value) for each in parameters[len(node.args) :])]
    return given


_Rewrite = Callable[..., fx.Node]
_REWRITES: dict[Any, _Rewrite] = {}


def _rewrites(*targets: OpOverload) -> Callable[[_Rewrite], _Rewrite]:
    def register(rewrite: _Rewrite) -> _Rewrite:
        _REWRITES.update(dict.fromkeys(targets, rewrite))
        return rewrite

    return register


def _spread(numbers: Any, rank: int) -> list[int]:
    """One number for each of ``rank`` axes."""
    if not isinstance(numbers, list | tuple) or len(numbers) not in (1, rank):
        raise _BeyondError
    return list(numbers) if len(numbers) == rank else list(numbers) * rank


def _image_rank(x: fx.Node, weight: fx.Node) -> int:
    """The number of spatial axes of a batch of images."""
    if x.meta["val"].dim() != weight.meta["val"].dim():
        raise _BeyondError
    return int(x.meta["val"].dim()) - 2


@_rewrites(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def _conv(r: _Rewriting, node: fx.Node, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> fx.Node:
    rank = _image_rank(x, weight)
    x, weight, bias = (operand and r.known[operand] for operand in (x, weight, bias))
    spread = [_spread(numbers, rank) for numbers in (stride, padding, dilation)]
    return r.add(node, aten.convolution.default, x, weight, bias, *spread, False, [0] * rank, groups)


@_rewrites(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
def _conv_transpose(r: _Rewriting, node: fx.Node, x: Any, weight: Any, bias: Any, *rest: Any) -> fx.Node:
    stride, padding, output_padding, groups, dilation = rest
    rank = _image_rank(x, weight)
    x, weight, bias = (operand and r.known[operand] for operand in (x, weight, bias))
    stride, padding, dilation, output_padding = (_spread(numbers, rank) for numbers in (stride, padding, dilation, output_padding))
    return r.add(node, aten.convolution.default, x, weight, bias, stride, padding, dilation, True, output_padding, groups)


@_rewrites(aten.batch_norm.default)
def _batch_norm(r: _Rewriting, node: fx.Node, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> fx.Node:
    training, momentum, epsilon, _ = rest
    if training is not False or mean is None or variance is None:
        raise _BeyondError
    operands = [operand and r.known[operand] for operand in (x, weight, bias, mean, variance)]
    return r.first_of(node, aten._native_batch_norm_legit_no_training.default, *operands, momentum, epsilon)


@_rewrites(aten.max_pool2d.default)
def _max_pool(r: _Rewriting, node: fx.Node, x: fx.Node, *rest: Any) -> fx.Node:
    return r.first_of(node, aten.max_pool2d_with_indices.default, r.known[x], *rest)


@_rewrites(aten.adaptive_avg_pool2d.default)
def _global_average(r: _Rewriting, node: fx.Node, x: fx.Node, size: Any) -> fx.Node:
    if list(size) != [1, 1]:
        raise _BeyondError
    return r.add(node, aten.mean.dim, r.known[x], [-1, -2], True)


@_rewrites(aten.dropout.default)
def _no_dropout(r: _Rewriting, node: fx.Node, x: fx.Node, probability: float, training: bool) -> fx.Node:
    if training is not False:
        raise _BeyondError
    return r.known[x]


@_rewrites(aten.to.dtype)
def _to_dtype(r: _Rewriting, node: fx.Node, x: fx.Node, dtype: torch.dtype, _: bool, copy: bool, memory_format: Any) -> fx.Node:
    if memory_format is not None:
        raise _BeyondError
    if x.meta["val"].dtype is dtype and not copy:
        return r.known[x]
    return r.add(node, aten._to_copy.default, r.known[x], dtype=dtype)


@_rewrites(aten.__and__.Tensor)
def _and(r: _Rewriting, node: fx.Node, x: fx.Node, y: fx.Node) -> fx.Node:
    return r.add(node, aten.bitwise_and.Tensor, r.known[x], r.known[y])


@_rewrites(aten.arange.default)
def _arange(r: _Rewriting, node: fx.Node, end: Any, *_: Any) -> fx.Node:
    return r.add(node, aten.arange.start_step, 0, end, 1, **node.kwargs)


_NEW = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.conv_transpose3d.input,
        aten.batch_norm.default,
        aten.max_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.linear.default,
        aten.layer_norm.default,
    }
)
"""Composites whose results are new tensors (others may give back an operand, as a reshape does)."""
