"""Candidates as text: the scheduled loops of a config, and the machine code they become."""

from __future__ import annotations

from typing import Any

from ..codegen.space import Config
from ..codegen.task import Task

_SYMBOL = "kernel"


def loop_text(task: Task, config: Config) -> str:
    """The loops of ``config`` as a TVM script, at typical sizes; LoweringError when the config is not in the template's space."""
    return str(_lowered(task.representative, config).script())


def loops_and_assembly(task: Task, config: Config) -> tuple[str, str]:
    """What :func:`loop_text` gives, and the assembly that LLVM makes of it; BuildError or LoweringError when it cannot be compiled."""
    from ..codegen.build import build_module

    function = _lowered(task.representative, config)
    return str(function.script()), str(build_module(function, _SYMBOL, task.target).inspect_source("asm"))


def _lowered(task: Task, config: Config) -> Any:
    from ..codegen.templates import template_named

    return template_named(config.template).lower(task, config).function
