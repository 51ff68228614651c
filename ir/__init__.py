"""The graph IR: types, operations, graphs, programs, text form, verifier, interpreter.

Names are imported when first used, so that a process which only runs programs (:mod:`mlc.ir.program`) loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .alias import is_alias, normal_layout, permuted_layout, reshaped_layout, same_bytes
    from .canonical import canonicalise, used_symbols
    from .constant import ArrayConstant, Constant, DerivedConstant
    from .cost import graph_cost, node_cost
    from .dims import below, product, same_dim
    from .encoded_constant import EncodedConstant, constant_of, encode, encoded_from_parts
    from .encoding import DENSE, ENCODING_KINDS, Encoding
    from .encodings import scheme_of
    from .graph import UNKNOWN, Attribute, Graph, GraphBuilder, Location, Node, Rewriter, Value
    from .interpreter import Interpreter, interpret
    from .layout import Layout, Padding
    from .networkx_view import to_networkx
    from .ops import FUSION, REQUIRED, Cost, Op, Trait, lookup, register, registry
    from .parser import parse, parse_type
    from .printer import print_graph
    from .regions import control_walk, is_control, map_regions
    from .relative_error import relative_error
    from .side_file import load_text, save_text
    from .size import Extent, Size, size_of
    from .specialisation import dimension_at, specialise, type_at, typical_values
    from .types import Dim, DType, Kind, Shape, SymbolRange, TensorType, TokenType, Type, symbol
    from .verifier import verify

_HOMES = {
    "alias": ("is_alias", "normal_layout", "permuted_layout", "reshaped_layout", "same_bytes"),
    "canonical": ("canonicalise", "used_symbols"),
    "constant": ("ArrayConstant", "Constant", "DerivedConstant"),
    "cost": ("graph_cost", "node_cost"),
    "dims": ("below", "product", "same_dim"),
    "encoded_constant": ("EncodedConstant", "constant_of", "encode", "encoded_from_parts"),
    "encoding": ("DENSE", "ENCODING_KINDS", "Encoding"),
    "encodings": ("scheme_of",),
    "graph": ("UNKNOWN", "Attribute", "Graph", "GraphBuilder", "Location", "Node", "Rewriter", "Value"),
    "interpreter": ("Interpreter", "interpret"),
    "layout": ("Layout", "Padding"),
    "networkx_view": ("to_networkx",),
    "ops": ("FUSION", "REQUIRED", "Cost", "Op", "Trait", "lookup", "register", "registry"),
    "parser": ("parse", "parse_type"),
    "printer": ("print_graph",),
    "relative_error": ("relative_error",),
    "regions": ("control_walk", "is_control", "map_regions"),
    "side_file": ("load_text", "save_text"),
    "size": ("Extent", "Size", "size_of"),
    "specialisation": ("dimension_at", "specialise", "type_at", "typical_values"),
    "types": ("DType", "Dim", "Kind", "Shape", "SymbolRange", "TensorType", "TokenType", "Type", "symbol"),
    "verifier": ("verify",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DENSE",
    "ENCODING_KINDS",
    "FUSION",
    "REQUIRED",
    "UNKNOWN",
    "ArrayConstant",
    "Attribute",
    "Constant",
    "Cost",
    "DType",
    "DerivedConstant",
    "Dim",
    "EncodedConstant",
    "Encoding",
    "Extent",
    "Graph",
    "GraphBuilder",
    "Interpreter",
    "Kind",
    "Layout",
    "Location",
    "Node",
    "Op",
    "Padding",
    "Rewriter",
    "Shape",
    "Size",
    "SymbolRange",
    "TensorType",
    "TokenType",
    "Trait",
    "Type",
    "Value",
    "below",
    "canonicalise",
    "constant_of",
    "control_walk",
    "dimension_at",
    "encode",
    "encoded_from_parts",
    "graph_cost",
    "interpret",
    "is_alias",
    "is_control",
    "load_text",
    "lookup",
    "map_regions",
    "node_cost",
    "normal_layout",
    "parse",
    "parse_type",
    "permuted_layout",
    "print_graph",
    "product",
    "register",
    "registry",
    "relative_error",
    "reshaped_layout",
    "same_bytes",
    "same_dim",
    "save_text",
    "scheme_of",
    "size_of",
    "specialise",
    "symbol",
    "to_networkx",
    "type_at",
    "typical_values",
    "used_symbols",
    "verify",
]


def __getattr__(name: str) -> object:
    """The public names of the submodules (PEP 562)."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
