"""Writing a program for a microcontroller as C99 files, its weights included."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..ir.program import Form
from .executable import Executable

_NUMPY = {
    "float": np.float32,
    "double": np.float64,
    "int8_t": np.int8,
    "int16_t": np.int16,
    "int32_t": np.int32,
    "int64_t": np.int64,
    "uint8_t": np.uint8,
}
_PER_LINE = 8


def export_c(folder: str | Path, executables: Sequence[Executable], name: str) -> tuple[Path, ...]:
    """Writes the sources of each program into ``folder`` (made if need be) and returns their paths; see ``Model.export_c``."""
    if not executables:
        raise ArtifactError("nothing is compiled yet, so there is nothing to export; compile the model with example_inputs")
    folder = Path(folder)
    written: dict[Path, None] = {}
    for number, executable in enumerate(executables):
        stem = _identifier(name) + (f"_{number}" if number else "")
        for file, text in _files(executable, stem).items():
            path = folder / file
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            except OSError as error:
                raise ArtifactError(f"'{path}' cannot be written ({error}); export to a folder that can be made and has room") from error
            written[path] = None
    return tuple(written)


def _files(executable: Executable, name: str) -> dict[str, str]:
    """The files by name, with the program called ``name``."""
    program = executable.program
    if program.form is not Form.SOURCES:
        raise ArtifactError(
            f"'{program.name}' was compiled to machine code for '{program.target}', not to C; compile it for a microcontroller, such as "
            "target='cortex-m4'"
        )
    sources = json.loads(executable.library.read_text())
    weights = np.frombuffer(memoryview(executable.weights), np.uint8) if executable.weights is not None else np.empty(0, np.uint8)
    constants = "\n".join(
        _definition(constant, type, weights[offset : offset + nbytes]) for constant, type, offset, nbytes in sources["constants"]
    )
    placeholder = str(sources["placeholder"])

    def named(file: str, text: str) -> str:
        # The guard of the header and the macros are in capitals.
        text = re.sub(rf"\b{placeholder}_(?=[A-Z])", f"{name.upper()}_", text)
        return text.replace(placeholder, name).replace(sources["marker"], constants)

    return {file.replace(placeholder, name): named(file, text) for file, text in sources["files"].items()}


def _definition(name: str, type: str, content: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """An array of ``content`` (bytes) in flash."""
    values = content.view(_NUMPY[type]).tolist()
    texts = [_float(value, type) for value in values] if type in ("float", "double") else [_integer(value) for value in values]
    rows = [", ".join(texts[start : start + _PER_LINE]) for start in range(0, len(texts), _PER_LINE)]
    body = ",\n  ".join(rows)
    return f"static const {type} {name}[{max(len(texts), 1)}] = {{\n  {body or 0}}};\n"


def _float(value: float, type: str) -> str:
    """A constant in hexadecimal, which is exact."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NAN" if value != value else "INFINITY" if value > 0 else "-INFINITY"
    return re.sub(r"\.?0*p", "p", value.hex(), count=1) + ("f" if type == "float" else "")


def _integer(value: int) -> str:
    if value == -(2**63):
        return "INT64_MIN"
    return f"INT64_C({value})" if abs(value) >= 2**31 else str(value)


def _identifier(name: str) -> str:
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII).lower()
    return f"model_{identifier}" if not identifier or identifier[0].isdigit() else identifier
