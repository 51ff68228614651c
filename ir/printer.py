"""The text form of graphs. :func:`print_graph` and :func:`mlc.ir.parser.parse` are each other's inverse.

Grammar, informally (``//`` starts a comment)::

    graph    := 'graph' '@'name '(' [%name ':' type, ...] ')' ['where' symbol 'in' lower '..' [upper], ...] '{' node* return '}'
    node     := [%name, ...] '=' op '(' [%name, ...] ')' ['{' key '=' value, ... '}'] ':' [type, ...] [location] [region...]
    location := 'at' '(' "module", "source", "origin" ')'
    region   := '{' graph '}'
    return   := 'return' [%name, ...]
    type     := dtype '[' dims ']' ['{' order [':' axis'x'size, ... [':0']] '}'] ['as' encoding] | 'token' ['(' type ')']
    encoding := name ['(' key '=' (integer | float | word | '#'digest), ... [',' 'values' '=' encoding] ')']
    value    := none | true | false | integer | float | "string" | dtype | '[' value, ... ']' | '`'expression'`' | constant
    constant := 'const' type ('[' numbers ']' | '#'digest)

Attributes stand in the order of the operation's definition, those at their default are left out. Encoded and complex constants and
those of more than ``INLINE_ELEMENTS`` elements are written as their digest. Dimensions and expressions are those sympy prints: sums,
products and powers of integers and symbols, floor, ceiling, Max, Min, Mod.
"""

from __future__ import annotations

import json
import math

import numpy as np

from .constant import Constant
from .graph import UNKNOWN, Attribute, Graph, Node
from .ops import lookup
from .types import DType, Kind

INLINE_ELEMENTS = 64


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The text of ``graph``, newline-terminated; ``locations=False`` leaves out where nodes come from."""
    return "\n".join(_graph_lines(graph, "", locations)) + "\n"


def _graph_lines(graph: Graph, indent: str, locations: bool) -> list[str]:
    inputs = ", ".join(f"%{value.name}: {value.type}" for value in graph.inputs)
    ranges = ", ".join(
        f"{name} in {range.lower}..{range.upper if range.upper is not None else ''}" for name, range in sorted(graph.symbols.items())
    )
    lines = [f"{indent}graph @{graph.name}({inputs}){' where ' + ranges if ranges else ''} {{"]
    for node in graph.nodes:
        lines += _node_lines(node, indent + "  ", locations)
    lines.append(f"{indent}  return {', '.join(f'%{value.name}' for value in graph.outputs)}".rstrip())
    lines.append(indent + "}")
    return lines


def _node_lines(node: Node, indent: str, locations: bool) -> list[str]:
    outputs = ", ".join(f"%{value.name}" for value in node.outputs)
    inputs = ", ".join(f"%{value.name}" for value in node.inputs)
    defaults = lookup(node.op).attributes
    ordered = [key for key in defaults if key in node.attributes] + [key for key in node.attributes if key not in defaults]
    shown = [(key, node.attributes[key]) for key in ordered if not _is_default(defaults.get(key, ...), node.attributes[key])]
    attributes = " {" + ", ".join(f"{key} = {print_attribute(value)}" for key, value in shown) + "}" if shown else ""
    line = f"{indent}{outputs} = {node.op}({inputs}){attributes} : {', '.join(str(value.type) for value in node.outputs)}"
    location = node.location
    if locations and location != UNKNOWN:
        line += f" at ({json.dumps(location.module)}, {json.dumps(location.source)}, {json.dumps(location.origin)})"
    lines = [line]
    for region in node.regions:
        lines[-1] += " {"
        lines += _graph_lines(region, indent + "  ", locations)
        lines.append(indent + "}")
    return lines


def _is_default(default: object, value: Attribute) -> bool:
    # 1 == True == 1.0 and 0.0 == -0.0 in Python, but not in the text.
    return type(default) is type(value) and default == value and repr(default) == repr(value)


def print_attribute(value: Attribute) -> str:
    """The text of one attribute value."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return print_float(value)
        case str():
            return json.dumps(value)
        case DType():
            return value.text
        case tuple():
            return "[" + ", ".join(print_attribute(item) for item in value) + "]"
        case Constant():
            return _print_constant(value)
        case _:
            return f"`{str(value).replace(' ', '')}`"


def print_float(value: float) -> str:
    """The shortest text that reads back as ``value`` and as a float."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(float(value))


def is_elided(constant: Constant) -> bool:
    """Whether the text form leaves out the data of ``constant``."""
    return not constant.type.encoding.is_dense or constant.type.elements > INLINE_ELEMENTS or constant.type.dtype.kind is Kind.COMPLEX


def _print_constant(constant: Constant) -> str:
    type = constant.type
    if is_elided(constant):
        return f"const {type} #{constant.digest}"
    flat = constant.array().reshape(-1)
    if type.dtype.is_float:
        numbers = [print_float(float(number)) for number in flat.astype(np.float64)]
    else:
        numbers = [str(int(number)) for number in flat]
    return f"const {type} [{', '.join(numbers)}]"
