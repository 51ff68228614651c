"""Candidates as text: the scheduled loops of a config, and the facts of the machine code they become."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

from ..codegen.space import Config
from ..codegen.task import Task
from .assembly_facts import KernelFacts, kernel_facts

SYMBOL = "kernel"


def loop_text(task: Task, config: Config) -> str:
    """The loops of ``config`` as a TVM script; LoweringError when the config is not in the template's space."""
    return str(_lowered(task, config).script())


def described(task: Task, config: Config) -> tuple[str, KernelFacts]:
    """The loops of ``config``, and the facts of its code; BuildError or LoweringError when it cannot be compiled."""
    from ..codegen.build import build_module

    function = _lowered(task, config)
    library = build_module(function, SYMBOL, task.target)
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        path = pathlib.Path(folder) / "kernel.o"
        library.write_to_file(str(path), "o")
        return str(function.script()), kernel_facts(library.inspect_source("asm"), path.read_bytes())


def _lowered(task: Task, config: Config) -> Any:
    from ..codegen.templates import template_named

    return template_named(config.template).lower(task.representative, config).function
