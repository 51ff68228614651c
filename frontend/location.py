"""Where a node of an exported graph comes from in the user's model."""

from __future__ import annotations

import os
import re

import torch
from torch import fx

from ..ir import Location
from .holders import Opening

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)[^\n]*\n\s*(?P<code>[^\n]*)')
_TORCH = os.path.dirname(torch.__file__) + os.sep


def location_of(node: fx.Node) -> Location:
    """Module path, innermost source line outside torch (``file.py:12: code``) and operation of ``node``."""
    return Location(module_path(node), source_line(node.meta.get("stack_trace") or ""), operation_name(node))


def module_path(node: fx.Node) -> str:
    """The path, in the user's model, of the innermost module that ``node`` belongs to."""
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(modules[-1][0]) if modules else ""
    # Opening puts the model inside another module.
    wrapped = bool(modules) and str(getattr(modules[0][1], "__qualname__", modules[0][1])).endswith(Opening.__qualname__)
    return path.removeprefix("inner").removeprefix(".") if wrapped else path


def module_paths(graph: fx.Graph) -> frozenset[str]:
    """The paths of the modules to which nodes of ``graph`` belong."""
    return frozenset(module_path(node) for node in graph.nodes if node.op == "call_function")


def source_line(stack_trace: str) -> str:
    """The innermost line of a Python stack trace that is not torch's own, '' if there is none."""
    frames = [frame for frame in _FRAME.finditer(stack_trace) if not frame["file"].startswith(_TORCH)]
    if not frames:
        return ""
    frame = frames[-1]
    return f"{os.path.basename(frame['file'])}:{frame['line']}: {frame['code'].strip()}"


def operation_name(node: fx.Node) -> str:
    """The name of the operation ``node`` calls, such as ``aten.mm.default``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return getattr(target, "__name__", str(target))
