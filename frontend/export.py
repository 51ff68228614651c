"""From a model to an exported program in our operation set."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export._remove_effect_tokens_pass import _remove_effect_tokens
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx._lazy_graph_module import _use_lazy_graph_module

from ..errors import ExportError
from .constants import ConstantPool, hashed_meanwhile
from .decompositions import our_decompositions
from .functional import functional_directly
from .holders import Opening, has_holders, open_holders
from .location import source_line
from .mutation import changed_inputs, returned_inputs
from .sparse_tensors import with_dense_tensors


@dataclass(frozen=True)
class Exported:
    """A functional program in our operation set, and which of its results are arguments changed in place (see
    :func:`~mlc.frontend.mutation.returned_inputs`). Names of parameters and buffers start with ``prefix``. ``constants`` knows large ones
    of them."""

    program: ExportedProgram
    returned: Mapping[int, str]
    prefix: str = ""
    constants: ConstantPool | None = None


def export_model(
    model: nn.Module | Callable[..., Any] | fx.GraphModule | ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
) -> Exported:
    """``model`` as an exported program whose graph is functional and uses our decomposition table.

    torch.export traces in two ways. The plain one (``strict=False``) is quick and traces nearly everything; it takes tensors that hide in
    Python objects, such as the cache that a module keeps next to buffers of the same memory, for constants, and a program that changes
    constants cannot be made functional. Then Dynamo's (``strict=True``), which knows them for the buffers they are, is tried as well.

    ExportError when torch.export or the decomposition fails.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(model, ExportedProgram):
            return _functional(model)
        module = with_dense_tensors(as_module(model))
        counters = {buffer: buffer.clone() for buffer in module.buffers() if buffer.numel() == 1 and not isinstance(buffer, FakeTensor)}
        constants = hashed_meanwhile([*module.parameters(), *module.buffers()])
        try:
            return dataclasses.replace(_exported(module, args, kwargs, dynamic_shapes), constants=constants)
        finally:
            # Tracing computes with single numbers that it takes for constants, in place where the model does.
            for buffer, content in counters.items():
                if not torch.equal(buffer, content):
                    buffer.copy_(content)


def _exported(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any) -> Exported:
    if has_holders((args, kwargs)):
        args, kwargs = open_holders((tuple(args), dict(kwargs)))
        module = Opening(module)
    try:
        exported = _traced(module, args, kwargs, dynamic_shapes)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(_explanation("torch.export cannot turn the model into a graph", error, dynamic_shapes)) from error
    if not _changes_constants(exported):
        return _functional(exported, module)
    try:
        exported = torch.export.export(module, tuple(args), dict(kwargs), dynamic_shapes=dynamic_shapes, strict=True)
    except Exception as error:
        what = "the model changes tensors that are neither its buffers nor arguments (make them buffers with register_buffer)"
        raise ExportError(_explanation(what, error, dynamic_shapes)) from error
    return _functional(exported, module)


def _traced(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    """What torch.export gives, after making known to it the dataclasses that the model takes and returns."""
    for item in pytree.tree_leaves((args, kwargs)):
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            torch.export.register_dataclass(type(item))
    while True:
        try:
            # Lazily, since nobody runs the code of the graphs that are made on the way.
            with _use_lazy_graph_module(True):
                return torch.export.export(module, tuple(args), dict(kwargs), dynamic_shapes=dynamic_shapes)
        except RuntimeError as error:
            returned = _unknown_dataclass(error)
            if returned is None:
                raise
            torch.export.register_dataclass(returned)


def _unknown_dataclass(error: RuntimeError) -> type | None:
    """The dataclass that torch.export complains of because the model returns one that it does not know."""
    match = re.search(r"Found <class '([\w.]+)\.(\w+)'> in output", str(error))
    found = getattr(sys.modules.get(match[1]), match[2], None) if match else None
    known = found in pytree.SUPPORTED_NODES
    return found if isinstance(found, type) and dataclasses.is_dataclass(found) and not known else None


def _functional(exported: ExportedProgram, module: nn.Module | None = None) -> Exported:
    """``exported`` in our operation set. One that was traced here, from ``module``, is changed where the short way will do."""
    prefix = "inner." if isinstance(module, Opening) else ""
    if module is not None and functional_directly(exported):
        return Exported(exported, {}, prefix)
    try:
        return Exported(_without_tokens(exported.run_decompositions(our_decompositions())), returned_inputs(exported), prefix)
    except Exception as error:
        raise ExportError(_explanation("PyTorch cannot decompose the exported model", error)) from error


def _changes_constants(exported: ExportedProgram) -> bool:
    """Whether an operation in place writes a tensor that was lifted as a constant."""
    lifted = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind is InputKind.CONSTANT_TENSOR}
    return any(base.name in lifted for base in changed_inputs(exported))


def _without_tokens(exported: ExportedProgram) -> ExportedProgram:
    """The same program without the tokens that order operations with effects: the order of the nodes says as much."""
    if not any(spec.kind is InputKind.TOKEN for spec in exported.graph_signature.input_specs):
        return exported
    return _remove_effect_tokens(exported)


def weight_of(exported: ExportedProgram, spec: InputSpec) -> torch.Tensor:
    """The tensor of a parameter, buffer or constant: persistent ones are in the state dict, other buffers and lifted tensors among the
    constants."""
    target = str(spec.target)
    among_constants = target not in exported.state_dict or (spec.kind is InputKind.BUFFER and spec.persistent is False)
    tensor: torch.Tensor = (exported.constants if among_constants else exported.state_dict)[target]
    return tensor


class _Function(nn.Module):
    """A function as a module. A method's module is registered, so that its parameters are parameters."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function
        owner = getattr(function, "__self__", None)
        if isinstance(owner, nn.Module):
            self.owner = owner
        # torch.export binds arguments and dynamic shapes by the signature of forward.
        self.forward = _named_forward(function)


def _named_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function under the name ``forward``: torch.export remembers the source lines of functions of that name only."""
    if isinstance(function, types.MethodType):
        return types.MethodType(_named_forward(function.__func__), function.__self__)
    if not isinstance(function, types.FunctionType):

        def forward(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        forward.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return forward
    code = function.__code__.replace(co_name="forward")
    renamed = types.FunctionType(code, function.__globals__, "forward", function.__defaults__, function.__closure__)
    renamed.__kwdefaults__ = function.__kwdefaults__
    # A decorator's signature is that of the function it wraps.
    renamed.__dict__.update(function.__dict__)
    return renamed


def as_module(model: nn.Module | Callable[..., Any]) -> nn.Module:
    """``model`` itself if it is a module (an fx.GraphModule is), else a module that calls it. ExportError if it cannot be called."""
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise ExportError(f"a {type(model).__name__} is not a model: pass an nn.Module, a function or an ExportedProgram")
    try:
        inspect.signature(model)
    except (TypeError, ValueError) as error:
        raise ExportError(f"{model!r} has no Python signature: wrap it in a function that names its arguments") from error
    wrapper = _Function(model)
    return wrapper.train(getattr(getattr(model, "__self__", None), "training", False))


_FOUND_IN_DATA = frozenset({"GuardOnDataDependentSymNode", "DynamicOutputShapeException", "DataDependentOutputException"})
"""What torch.export raises where Python asks for a value that only a run of the model can tell."""


def _explanation(what: str, error: Exception, dynamic_shapes: Any = None) -> str:
    """The problem, its cause in one paragraph, the user's line, and what usually helps."""
    cause = str(error).strip().split("\n\n")[0].strip() or type(error).__name__
    line = _user_line(error)
    remedies = [
        "a branch or loop on tensor values: replace it by torch.where or masks, or use torch.compile(model, backend='mlc'), which compiles "
        "the parts around it",
        "arguments that are neither tensors, numbers, strings nor containers of them: pass tensors, or register the class as a pytree",
        "state created inside forward (caches, .to(), .item()): move it to __init__ or pass it as an argument (to a model of Hugging Face "
        "a StaticCache, or use_cache=False)",
    ]
    if type(error).__name__ in _FOUND_IN_DATA:
        remedies = remedies[:1]
    if dynamic_shapes is not None:
        remedies.insert(
            0,
            "dynamic_shapes that the examples or the model contradict: change the ranges, leave dimensions out, or give examples with a "
            "size of at least 2 along them (torch.export takes a size of 1 for a constant)",
        )
    return "\n".join(
        [
            f"{what}: {type(error).__name__}: {cause}",
            *([f"  at {line}"] if line else []),
            "  Usual reasons, and what to do:",
            *(f"    {remedy}" for remedy in remedies),
        ]
    )


def _user_line(error: BaseException) -> str:
    """The innermost frame of the error that is not torch's, mlc's or the standard library's."""
    import traceback

    trace = "".join(
        f'File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {frame.line}\n'
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", inspect.getfile(inspect).rpartition("/")[0])) and frame.filename != __file__
    )
    return source_line(trace)
