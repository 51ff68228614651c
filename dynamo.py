"""The torch.compile back end: ``torch.compile(model, backend="mlc")``.

Dynamo hands over one graph per stretch of Python it could trace. Each is compiled when it is called, for the shapes of that call, with the
parameters and buffers that come as arguments bound as constants; what a graph changes in place (caches, counters) is changed where it lies.
What mlc cannot compile runs in PyTorch, with a warning that says why.

In-place changes of weights are noticed and compiled in, as in :class:`mlc.CompiledModel`; after writes through ``.data`` or NumPy views,
call ``torch._dynamo.reset()``, which also frees the compiled programs.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from .driver import compile_program
from .errors import Error, OptionError
from .module import CompiledModel
from .options import Options, check_options
from .runtime.executable import Callee

_MODES = ("default", "reduce-overhead")
"""Modes of torch.compile that ask for nothing but what mlc always does: cheap calls (Hugging Face's CompileConfig asks for them)."""

_OPTIONS = frozenset({"target", "threads", "nonfinite", "database", "precision"})


def mlc_backend(
    graph_module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, mode: str | None = None
) -> Callable[..., Any]:
    """What Dynamo calls for each graph it traced; a callable that takes the graph's inputs and returns the tuple of its outputs.

    ``options`` are those of torch.compile: ``target``, ``threads``, ``nonfinite``, ``database`` and ``precision`` (one mode for all), as in
    :func:`mlc.compile`. Raises OptionError or TargetError for options that make no sense.
    """
    given = dict(options or {})
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise OptionError(f"torch.compile's options {unknown} are unknown to mlc; it has {sorted(_OPTIONS)}")
    if not isinstance(given.get("precision", ""), str):
        raise OptionError("torch.compile divides a model into graphs of its own: give one precision for all of it, or use mlc.compile")
    if mode not in (None, *_MODES):
        raise OptionError(f"mode={mode!r} is not one of mlc's; leave it out, and tune with mlc.tune and options={{'database': ...}}")
    return _Subgraph(graph_module, example_inputs, check_options(**given))


class _Subgraph:
    """One graph of Dynamo's, callable with its inputs."""

    def __init__(self, graph_module: fx.GraphModule, example_inputs: Sequence[Any], options: Options) -> None:
        self._original = graph_module
        self._options = options
        self._static, self._varying = _split_inputs(graph_module, example_inputs)
        self._enables_grad = _enables_grad(graph_module)
        self._split = _Split(graph_module)
        self._only_eager = not self._split.compiled or not any(isinstance(example_inputs[index], torch.Tensor) for index in self._varying)
        self._bindings: dict[tuple[int, ...], _Binding] = {}
        self._warned: set[str] = set()
        self._lock = threading.RLock()
        if self._split.overlapping and not self._only_eager:
            self._only_eager = True
            self._warn("outputs", "it returns tensors that share memory with each other; return copies of them to have it compiled")

    def __call__(self, *args: Any) -> Any:
        if self._only_eager:
            return self._original(*args)
        if self._is_recorded(args):
            self._warn(
                "gradients",
                "gradients are enabled and an input or a parameter requires them; "
                "call under torch.inference_mode() or torch.no_grad() to run compiled code",
            )
            return self._original(*args)
        binding = self._binding(args)
        if binding is None:
            return self._original(*args)
        try:
            results = binding.run([args[index] for index in self._varying])
        except Error as error:
            self._warn("compilation", str(error))
            results = None
        return self._original(*args) if results is None else self._split.join(results, args)

    def _is_recorded(self, args: Sequence[Any]) -> bool:
        """Whether autograd would record the call: a compiled program computes no gradients."""
        if not torch.is_grad_enabled() and not self._enables_grad:
            return False
        return any(isinstance(value, torch.Tensor) and value.requires_grad for value in args) or any(
            parameter.requires_grad for parameter in self._original.parameters()
        )

    def _binding(self, args: Sequence[Any]) -> _Binding | None:
        """The graph with the parameters and buffers of this call; modules of one class may share a graph."""
        tensors = [args[index] for index in self._static]
        key = tuple(map(id, tensors))  # the binding keeps the tensors, so that no other one takes their place
        binding = self._bindings.get(key)
        if binding is None:
            with self._lock:
                if len(self._bindings) >= torch._dynamo.config.accumulated_recompile_limit:
                    self._warn("parameters", "it was called with too many different sets of parameters")
                    return None
                module = _Bound(self._split.compiled_module, self._static, tensors, self._varying)
                binding = self._bindings.setdefault(key, _Binding(module, self._options))
        return binding

    def _warn(self, subject: str, reason: str) -> None:
        """Says why the graph runs in PyTorch, once for each subject."""
        with self._lock:
            if subject in self._warned:
                return
            self._warned.add(subject)
        warnings.warn(f"torch.compile with mlc: a part of the model runs in PyTorch, uncompiled: {reason}", stacklevel=3)


class _Binding:
    """A graph with its parameters, compiled for each signature it is called with."""

    def __init__(self, module: _Bound, options: Options) -> None:
        self._module = module
        self._options = options
        self._compilations = 0
        self._failures: set[tuple[Any, ...]] = set()
        self._compiled = CompiledModel(module, self._compile, name="torch_compile")

    def run(self, inputs: Sequence[Any]) -> Sequence[Any] | None:
        """The outputs. An Error when nothing can be compiled for such inputs, and from then on None."""
        if self._failures and _signature(inputs) in self._failures:
            return None
        try:
            results: Sequence[Any] = self._compiled(*inputs)
        except Error:
            self._failures.add(_signature(inputs))
            raise
        return results

    def _compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callee:
        limit = torch._dynamo.config.recompile_limit
        if self._compilations >= limit:
            raise OptionError(
                f"it was compiled {limit} times already, for other shapes or because its weights changed; "
                "pad inputs to a few shapes, or raise torch._dynamo.config.recompile_limit"
            )
        self._compilations += 1
        return compile_program(self._module, args, kwargs, self._options, name="torch_compile")


class _Bound(nn.Module):
    """A graph module of which some inputs are parameters and buffers."""

    def __init__(
        self, graph_module: fx.GraphModule, static: Sequence[int], tensors: Sequence[torch.Tensor], varying: Sequence[int]
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self._positions = {f"constant{index}": index for index in static}
        self._varying = tuple(varying)
        for name, tensor in zip(self._positions, tensors, strict=True):
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
        self.training = False

    def forward(self, *inputs: Any) -> Any:
        """The graph's outputs, for the inputs that are not bound, in order."""
        values: list[Any] = [None] * (len(self._positions) + len(self._varying))
        for name, index in self._positions.items():
            values[index] = getattr(self, name)
        for index, value in zip(self._varying, inputs, strict=True):
            values[index] = value
        return self.graph_module(*values)


class _Split:
    """A graph's outputs: those a compiled program computes, and views of inputs, which PyTorch must make to keep the memory shared."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        outputs = _outputs(graph_module)
        inputs = {_storage(node) for op in ("placeholder", "get_attr") for node in graph_module.graph.find_nodes(op=op)} - {None}
        inputs |= {tensor.untyped_storage()._cdata for tensor in (*graph_module.parameters(), *graph_module.buffers())}
        self.views = [index for index, output in enumerate(outputs) if _storage(output) in inputs]
        self.compiled = [index for index in range(len(outputs)) if index not in self.views]
        self.overlapping = _overlap([outputs[index] for index in self.compiled])
        self.compiled_module = graph_module
        if self.views:
            self.compiled_module = _with_outputs(graph_module, self.compiled)
            self._view_module = _with_outputs(graph_module, self.views)
            _drop_writes(self._view_module.graph)
            self._view_module.graph.eliminate_dead_code()
            self._view_module.recompile()

    def join(self, compiled: Sequence[Any], args: Sequence[Any]) -> Sequence[Any]:
        """All outputs of a call with ``args``, of which ``compiled`` are those of the compiled part."""
        if not self.views:
            return compiled
        results: list[Any] = [None] * (len(self.compiled) + len(self.views))
        for index, value in zip(self.compiled, compiled, strict=True):
            results[index] = value
        for index, value in zip(self.views, self._view_module(*args), strict=True):
            results[index] = value
        return tuple(results)


def _signature(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """What distinguishes calls that are compiled separately."""
    return tuple((value.dtype, value.shape) if isinstance(value, torch.Tensor) else (type(value), value) for value in inputs)


def _split_inputs(graph_module: fx.GraphModule, examples: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The positions of the inputs that are parameters or buffers of a module, and of the others. What the graph changes counts among the
    others: caches come and go, and another one must not mean another program."""
    static: list[int] = []
    varying: list[int] = []
    placeholders = graph_module.graph.find_nodes(op="placeholder")
    for index, (node, example) in enumerate(zip(placeholders, examples, strict=True)):
        marked = "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})
        fixed = (marked or isinstance(example, nn.Parameter)) and not _is_written(node)
        (static if fixed else varying).append(index)
    return static, varying


def _is_written(placeholder: fx.Node) -> bool:
    """Whether the graph writes an input in place: Dynamo's fake tensors count such writes, as all tensors do."""
    example = _example(placeholder)
    return example is not None and not example.is_inference() and example._version > 0


def _drop_writes(graph: fx.Graph) -> None:
    """Takes writes in place out of ``graph``: their results are the tensors that they write."""
    for node in list(graph.nodes):
        written = _written(node)
        if written is not None:
            node.replace_all_uses_with(written)
            graph.erase_node(node)


def _written(node: fx.Node) -> fx.Node | None:
    """The tensor that ``node`` writes and yields, if it is an operation in place or has an ``out``."""
    if node.op not in ("call_function", "call_method"):
        return None
    if isinstance(out := node.kwargs.get("out"), fx.Node):
        return out
    first = node.args[0] if node.args else None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    overload = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    in_place = name.endswith("_") and not name.endswith("__")
    of_python = getattr(node.target, "__module__", "") == "_operator" and (name == "setitem" or name in _AUGMENTED)
    return first if isinstance(first, fx.Node) and (overload or in_place or of_python) else None


_AUGMENTED = frozenset(
    ["iadd", "iand", "iconcat", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift", "isub", "itruediv", "ixor"]
)
"""Python's assignments that combine, such as +=, as the module ``operator`` has them."""


def _enables_grad(graph_module: fx.GraphModule) -> bool:
    """Whether the graph turns gradients on for a part of itself."""
    return any(node.args[0] is not False for node in graph_module.graph.nodes if node.target is torch._C._set_grad_enabled)


def _outputs(graph_module: fx.GraphModule) -> Sequence[Any]:
    (output,) = graph_module.graph.find_nodes(op="output")
    return output.args[0]  # type: ignore[no-any-return]


def _with_outputs(graph_module: fx.GraphModule, indices: Sequence[int]) -> fx.GraphModule:
    """The same graph with only these outputs; submodules are shared."""
    module = fx.GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    (output,) = module.graph.find_nodes(op="output")
    output.args = (tuple(output.args[0][index] for index in indices),)
    module.recompile()
    return module


def _example(value: Any) -> torch.Tensor | None:
    """Dynamo's fake tensor for a node."""
    example = value.meta.get("example_value") if isinstance(value, fx.Node) else None
    return example if isinstance(example, torch.Tensor) else None


def _storage(value: Any) -> int | None:
    """A number for the memory of a node's fake tensor, which lives as long as the graph."""
    example = _example(value)
    return None if example is None or example.layout is not torch.strided else example.untyped_storage()._cdata


def _overlap(outputs: Sequence[Any]) -> bool:
    """Whether two different outputs share an element in memory. Symbolic sizes that share a storage count as an overlap."""
    used: dict[int, list[tuple[Any, torch.Tensor]]] = {}
    for output in outputs:
        storage, example = _storage(output), _example(output)
        if storage is None or example is None:
            continue
        for other, known in used.setdefault(storage, []):
            if other is not output and _share_elements(known, example):
                return True
        used[storage].append((output, example))
    return False


def _share_elements(first: torch.Tensor, second: torch.Tensor) -> bool:
    places = [(tensor.size(), tensor.stride(), tensor.storage_offset()) for tensor in (first, second)]
    if not all(isinstance(number, int) for size, stride, offset in places for number in (*size, *stride, offset)):
        return True
    if 0 in (first.numel(), second.numel()):
        return False
    ends = [offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) for size, stride, offset in places]
    marks = torch.zeros(max(ends) + 1, dtype=torch.bool)
    marks.as_strided(*places[0]).fill_(True)
    return bool(marks.as_strided(*places[1]).any())
