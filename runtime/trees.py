"""Pytrees from their JSON description (see :class:`mlc.ir.program.Signature`), without torch.

A description is built once per signature; what a call needs of it is compiled into a *plan* that the native dispatch follows
without walking anything. Only nested structures are walked here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

from ..errors import ArtifactError, SignatureError
from ..ir.program import Signature

Tree: TypeAlias = Mapping[str, Any]

MAXIMAL_DEPTH = 64


def input_tree(signature: Signature) -> Tree:
    """The description of ``(args, kwargs)``; without one, all inputs are positional."""
    if signature.input_tree:
        return signature.input_tree
    leaves = [{"kind": "leaf", "index": index} for index in range(len(signature.inputs))]
    return {"kind": "tuple", "items": [{"kind": "tuple", "items": leaves}, {"kind": "dict", "keys": [], "items": []}]}


def output_tree(signature: Signature) -> Tree:
    """The description of the result; without one, the only output or a tuple of all."""
    if signature.output_tree:
        return signature.output_tree
    leaves = [{"kind": "leaf", "index": index} for index in range(len(signature.outputs))]
    return leaves[0] if len(leaves) == 1 else {"kind": "tuple", "items": leaves}


def check(tree: Any, leaves: int, depth: int = 0) -> None:
    """Raises ArtifactError unless ``tree`` is a well-formed description over ``leaves`` leaves."""
    if depth > MAXIMAL_DEPTH or not isinstance(tree, Mapping):
        raise ArtifactError("a signature's structure is malformed; compile and save the model again")
    kind = tree.get("kind")
    passed = tree.get("passed", 0)
    if type(passed) is not int or passed < 0:
        raise ArtifactError("a signature's structure passes on an argument that does not exist; compile and save the model again")
    if kind == "value" and "value" in tree:
        return
    index = tree.get("index")
    if kind == "leaf" and type(index) is int and 0 <= index < leaves:
        return
    items, keys = tree.get("items"), tree.get("keys")
    named = kind in ("dict", "object")
    if (
        kind not in ("tuple", "list", "dict", "object")
        or not isinstance(items, Sequence)
        or (named and (not isinstance(keys, Sequence) or len(keys) != len(items)))
        or (kind == "object" and not isinstance(tree.get("type"), str))
    ):
        raise ArtifactError(f"a signature's structure has a malformed part of kind {kind!r}; compile and save the model again")
    for item in items:
        check(item, leaves, depth + 1)


def flatten(tree: Tree, value: Any, count: int, place: str) -> list[Any]:
    """The ``count`` leaves of ``value`` by number; SignatureError that says which part does not fit. ``place`` names the whole."""
    leaves: list[Any] = [None] * count
    _collect(tree, value, place, leaves)
    return leaves


def passed_places(tree: Tree) -> list[int]:
    """The places among the flat inputs of those objects of the arguments that are part of the result."""
    own = [tree["passed"]] if "passed" in tree else []
    return own + [place for item in tree.get("items", ()) for place in passed_places(item)]


def passed_count(tree: Tree) -> int:
    """How many objects of the arguments are part of the result."""
    return len(passed_places(tree))


def flatten_call(signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The flat inputs of a call, in the signature's order, behind them the objects that the result contains; SignatureError that says what
    does not fit.

    A positional argument may also be given by the name of the input it stands for.
    """
    positional, keywords = input_tree(signature)["items"]
    items, keys = positional["items"], keywords["keys"]
    given, named = list(args), dict(kwargs)
    if len(given) < len(items):
        for item in items[len(given) :]:
            name = signature.inputs[item["index"]].name if item["kind"] == "leaf" else None
            if name is None or name not in named:
                break
            given.append(named.pop(name))
    if len(given) != len(items) or set(named) != set(keys):
        raise SignatureError(
            f"expected {_call_text(signature, items, keys)}, got {len(args)} positional arguments and the keywords {sorted(kwargs)}; "
            "call with the arguments of the example inputs, or compile with other ones"
        )
    leaves: list[Any] = [None] * (len(signature.inputs) + passed_count(input_tree(signature)))
    for position, (item, value) in enumerate(zip(items, given, strict=True)):
        _collect(item, value, f"args[{position}]", leaves)
    for key, item in zip(keys, keywords["items"], strict=True):
        _collect(item, named[key], f"argument '{key}'", leaves)
    return leaves


def _call_text(signature: Signature, items: Sequence[Tree], keys: Sequence[str]) -> str:
    names = [signature.inputs[item["index"]].name if item["kind"] == "leaf" else "..." for item in items]
    return f"{len(items)} positional arguments ({', '.join(names)}) and the keywords {sorted(keys)}"


def _collect(tree: Tree, value: Any, place: str, leaves: list[Any]) -> None:
    kind = tree["kind"]
    if "passed" in tree:
        leaves[tree["passed"]] = value
    if kind == "leaf":
        leaves[tree["index"]] = value
    elif kind == "value":
        expected = tree["value"]
        if value is not expected and (type(value) is not type(expected) or value != expected):
            raise SignatureError(
                f"{place} is {_short(value)}, but the program was compiled for {expected!r}; "
                "pass that value, or compile with example inputs that have the other one"
            )
    elif kind in ("tuple", "list"):
        if not isinstance(value, tuple if kind == "tuple" else list) or len(value) != len(tree["items"]):
            raise SignatureError(f"{place} must be a {kind} of {len(tree['items'])} items, got {_short(value)}")
        for index, (item, part) in enumerate(zip(tree["items"], value, strict=True)):
            _collect(item, part, f"{place}[{index}]", leaves)
    elif kind == "dict":
        _check_keys(tree["keys"], value, place)
        for key, item in zip(tree["keys"], tree["items"], strict=True):
            _collect(item, value[key], f"{place}[{key!r}]", leaves)
    else:
        for key, item in zip(tree["keys"], tree["items"], strict=True):
            part = value.get(key, _MISSING) if isinstance(value, Mapping) else getattr(value, key, _MISSING)
            if part is _MISSING:
                raise SignatureError(f"{place} must be a {tree['type']} with '{key}', got {_short(value)}")
            _collect(item, part, f"{place}.{key}", leaves)


_MISSING = object()


def _check_keys(keys: Sequence[str], value: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise SignatureError(f"{place} must be a dict with the keys {list(keys)}, got {_short(value)}")
    missing = [key for key in keys if key not in value]
    extra = [key for key in value if key not in keys]
    if missing or extra:
        parts = [f"lacks {missing}"] * bool(missing) + [f"has the unexpected {extra}"] * bool(extra)
        raise SignatureError(f"{place} {' and '.join(parts)}; the program was compiled for the keys {list(keys)}")


def _short(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} items"
    text = repr(value) if isinstance(value, (bool, int, float, str, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """The structure that ``tree`` describes over ``leaves``."""
    return builder(tree)(leaves)


def builder(tree: Tree) -> Callable[[Sequence[Any]], Any]:
    """A function from the list of leaves to the structure."""
    kind = tree["kind"]
    if kind == "leaf":
        index = tree["index"]
        return lambda leaves: leaves[index]
    if kind == "value":
        constant = tree["value"]
        return lambda leaves: constant
    items = [builder(item) for item in tree["items"]]
    if kind == "tuple":
        return lambda leaves: tuple([item(leaves) for item in items])
    if kind == "list":
        return lambda leaves: [item(leaves) for item in items]
    named = list(zip(tree["keys"], items, strict=True))
    if kind == "dict":
        return lambda leaves: {key: item(leaves) for key, item in named}
    make = _object_maker(tree["type"])
    return lambda leaves: make(**{key: item(leaves) for key, item in named})


def _object_maker(type_name: str) -> Callable[..., Any]:
    """The class of an output object; in a process that has not imported its module, a namespace with the same attributes.

    The module is not imported for it: that could drag torch into a process that only runs programs.
    """
    module_name, _, class_name = type_name.rpartition(".")

    def make(**fields: Any) -> Any:
        module = _imported(module_name)
        made = getattr(module, class_name, None) if module is not None else None
        return made(**fields) if isinstance(made, type) else OutputNamespace(type_name, fields)

    return make


def _imported(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    if "torch" in sys.modules:
        try:
            return importlib.import_module(name)
        except ImportError:
            return None
    return None


class OutputNamespace(SimpleNamespace):
    """Stands in for an output class that this process has not imported: attributes, keys and positions, as ModelOutput has."""

    def __init__(self, type_name: str, fields: Mapping[str, Any]) -> None:
        super().__init__(**fields)
        self._type_name = type_name
        self._keys = tuple(fields)

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return self.__dict__[key]
        return tuple(self.__dict__[name] for name in self._keys)[key]

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def __iter__(self) -> Any:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"{self._type_name}({', '.join(f'{key}={self.__dict__[key]!r}' for key in self._keys)})"


def flat_plan(tree: Tree) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[Any, ...]] | None:
    """The native dispatch's plan when all arguments are tensors or specialised values; None when one is nested."""
    args, kwargs = tree["items"]
    entries = [*args["items"], *kwargs["items"]]
    if any(entry["kind"] not in ("leaf", "value") for entry in entries):
        return None
    coded = tuple(entry["index"] if entry["kind"] == "leaf" else (entry["value"],) for entry in entries)
    split = len(args["items"])
    return coded[:split], tuple(kwargs["keys"]), coded[split:]


def output_form(tree: Tree, count: int) -> str | Callable[[Sequence[Any]], Any]:
    """How the native runner shapes its ``count`` outputs: ``single``, ``tuple``, ``list``, or a function over the list of outputs."""
    if tree["kind"] == "leaf" and count == 1:
        return "single"
    items = tree.get("items", [])
    if tree["kind"] in ("tuple", "list") and [item.get("index") for item in items] == list(range(count)):
        return str(tree["kind"])
    return builder(tree)
