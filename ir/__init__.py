"""The graph IR: types, operations, graphs, programs, text form, verifier, interpreter."""

from .alias import is_alias, normal_layout, permuted_layout, reshaped_layout, same_bytes
from .canonical import canonicalise
from .constant import ArrayConstant, Constant, DerivedConstant
from .cost import graph_cost, node_cost
from .graph import UNKNOWN, Attribute, Graph, GraphBuilder, Location, Node, Rewriter, Value
from .interpreter import Interpreter, interpret
from .layout import Layout, Padding
from .ops import FUSION, REQUIRED, Cost, Op, Trait, lookup, register, registry
from .parser import parse, parse_type
from .printer import print_graph
from .side_file import load_text, save_text
from .types import DENSE, Dim, DType, Encoding, Kind, Shape, SymbolRange, TensorType, TokenType, Type
from .verifier import verify

__all__ = [
    "DENSE",
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
    "Encoding",
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
    "SymbolRange",
    "TensorType",
    "TokenType",
    "Trait",
    "Type",
    "Value",
    "canonicalise",
    "graph_cost",
    "interpret",
    "is_alias",
    "load_text",
    "lookup",
    "node_cost",
    "normal_layout",
    "parse",
    "parse_type",
    "permuted_layout",
    "print_graph",
    "register",
    "registry",
    "reshaped_layout",
    "same_bytes",
    "save_text",
    "verify",
]
