"""Graphs in files: the text, and beside it the data of the constants that the text leaves out."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..errors import TextFormError
from .constant import ArrayConstant, Constant
from .encoded_constant import EncodedConstant
from .encodings import scheme_of
from .graph import Attribute, Graph
from .parser import parse, parse_type
from .printer import is_elided, print_graph
from .types import TensorType


def save_text(graph: Graph, path: Path) -> None:
    """Writes ``path`` (the text form) and ``path`` + ``.npz``: the elided constants by digest and type, encoded ones by part."""
    arrays = {}
    for node in graph.walk():
        for value in _constants(tuple(node.attributes.values())):
            if isinstance(value, EncodedConstant):
                arrays.update({f"{value.digest}|{value.type}|{name}": _bytes_of(part) for name, part in value.parts.items()})
            elif is_elided(value):
                arrays[f"{value.digest}|{value.type}|"] = _bytes_of(value.array())
    path.write_text(print_graph(graph), encoding="utf-8")
    np.savez(_side_path(path), **arrays)  # type: ignore[arg-type]


def load_text(path: Path) -> Graph:
    """Reads what :func:`save_text` wrote; TextFormError when the side file is missing data or malformed."""
    constants: dict[str, Constant] = {}
    if _side_path(path).exists():
        try:
            with np.load(_side_path(path), allow_pickle=False) as stored:
                constants = _stored_constants({key: stored[key] for key in stored.files})
        except (OSError, ValueError, EOFError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise TextFormError(f"{_side_path(path)} is damaged ({error}); write it again with save_text") from error
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextFormError(f"{path} is no text ({error}); write it again with save_text") from error
    return parse(text, constants)


def _stored_constants(arrays: Mapping[str, np.ndarray]) -> dict[str, Constant]:
    """The constants of a side file by digest; ValueError when it is not one."""
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, content in arrays.items():
        digest, text, part = key.split("|")
        parts.setdefault((digest, text), {})[part] = content
    return {digest: _stored_constant(digest, text, contents) for (digest, text), contents in parts.items()}


def _stored_constant(digest: str, text: str, contents: Mapping[str, np.ndarray]) -> Constant:
    type = parse_type(text)
    if not isinstance(type, TensorType):
        raise ValueError(f"a constant cannot be a {type}")
    if type.encoding.is_dense:
        return _StoredConstant(contents[""].view(type.dtype.numpy).reshape(type.static_shape), digest)
    wanted = scheme_of(type.encoding).part_types(type.static_shape)
    parts = {name: contents[name].view(part.dtype).reshape(part.shape) for name, part in wanted.items()}
    return EncodedConstant(type, digest, lambda: parts)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """NumPy files know no bfloat16: every array is stored as bytes, its dtype in the key."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _constants(value: Attribute) -> Iterator[Constant]:
    if isinstance(value, Constant):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _constants(item)


class _StoredConstant(ArrayConstant):
    """An array under the digest it was saved with (that of the expression it was folded from)."""

    def __init__(self, array: np.ndarray, digest: str) -> None:
        super().__init__(array)
        self.digest = digest


def _side_path(path: Path) -> Path:
    return path.with_name(path.name + ".npz")
