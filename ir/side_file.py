"""Graphs in files: the text, and beside it the data of the constants that the text leaves out."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import TextFormError
from .constant import ArrayConstant, Constant
from .graph import Attribute, Graph
from .parser import parse
from .printer import is_elided, print_graph
from .types import DType


def save_text(graph: Graph, path: Path) -> None:
    """Writes ``path`` (the text form) and ``path`` + ``.npz`` (arrays of the elided constants by digest and dtype)."""
    arrays = {}
    for node in graph.walk():
        for value in _constants(tuple(node.attributes.values())):
            if is_elided(value):
                # NumPy files know no bfloat16: every array is stored as bytes, its dtype in the key.
                array = value.array()
                key = f"{value.digest}|{value.type.dtype.text}|{','.join(map(str, array.shape))}"
                arrays[key] = array.reshape(-1).view(np.uint8)
    path.write_text(print_graph(graph), encoding="utf-8")
    np.savez(_side_path(path), **arrays)  # type: ignore[arg-type]


def load_text(path: Path) -> Graph:
    """Reads what :func:`save_text` wrote; TextFormError when the side file is missing data or malformed."""
    constants: dict[str, Constant] = {}
    if _side_path(path).exists():
        try:
            with np.load(_side_path(path), allow_pickle=False) as stored:
                for key in stored.files:
                    digest, dtype, shape = key.split("|")
                    extents = tuple(int(extent) for extent in shape.split(",") if extent)
                    constants[digest] = _StoredConstant(stored[key].view(DType.parse(dtype).numpy).reshape(extents), digest)
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise TextFormError(f"{_side_path(path)} is damaged ({error}); write it again with save_text") from error
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextFormError(f"{path} is no text ({error}); write it again with save_text") from error
    return parse(text, constants)


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
