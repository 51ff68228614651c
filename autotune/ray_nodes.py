"""What runs on the nodes of a Ray cluster: an actor that measures, and tasks that build."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..codegen.build import versions
from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from .build_pool import BuildPool
from .building import BuiltKernel
from .measure import Limits, LocalMeasurer, Protocol

Shipped: TypeAlias = "tuple[dict[str, Any], bytes] | str"
"""A built kernel on its way: its document and its library, or why there is none."""


@dataclass(frozen=True)
class NodeFacts:
    """What must be right for a node to measure, and which process does."""

    target: str
    versions: str
    host: str


class NodeMeasurer:
    """A :class:`~.measure.LocalMeasurer` as an actor, which Ray gives all cores of its node."""

    def __init__(self, builder: str, protocol: Protocol, limits: Limits, seed: int) -> None:
        _without_torch()
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-ray-")
        tempfile.tempdir = self._folder.name  # one folder for all of this process
        self._measurer = LocalMeasurer(builder=builder, protocol=protocol, limits=limits, seed=seed)

    def describe(self) -> NodeFacts:
        return NodeFacts(str(Target.parse("cpu")), versions(), platform.node())

    def measure(self, task: str, configs: Sequence[str]) -> list[Record]:
        """Builds here and measures, see :meth:`~.measure.Measurer.measure`. Tasks and configs in text form."""
        return self._measurer.measure(Task.parse(task), [Config.parse(config) for config in configs])

    def measure_built(self, task: str, shipped: Sequence[tuple[str, Shipped]]) -> list[Record]:
        """Measures what was built elsewhere."""
        built = {Config.parse(config): unpacked(kernel, pathlib.Path(self._folder.name)) for config, kernel in shipped}
        return self._measurer.measure_built(Task.parse(task), list(built), built)

    def close(self) -> None:
        """Ends the processes of this actor, and removes its files."""
        self._measurer.close()
        self._folder.cleanup()


def build(task: str, config: str, builder: str, limits: Limits) -> Shipped:
    """Builds one config; a Ray task."""
    _without_torch()
    parsed = Config.parse(config)
    return packed(_pool(builder, limits).build(Task.parse(task), [parsed])[parsed])


def packed(kernel: BuiltKernel | str) -> Shipped:
    """A kernel, as it goes to another node."""
    return kernel if isinstance(kernel, str) else (kernel.document(), kernel.library.read_bytes())


def unpacked(shipped: Shipped, folder: pathlib.Path) -> BuiltKernel | str:
    """A kernel that came from another node; its library is put into ``folder``."""
    if isinstance(shipped, str):
        return shipped
    document, content = shipped
    library = folder / f"{hashlib.sha256(content).hexdigest()[:24]}.so"
    if not library.exists():
        library.write_bytes(content)
    return BuiltKernel.of(document | {"library": str(library)})


@functools.cache
def _pool(builder: str, limits: Limits) -> BuildPool:
    """The build worker of a process of Ray, which serves many tasks one after the other."""
    folder = _build_folder()
    return BuildPool(pathlib.Path(folder.name), factory=builder, workers=1, seconds=limits.build, memory_bytes=limits.memory_bytes)


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    """Lives as long as the process."""
    return tempfile.TemporaryDirectory(prefix="mlc-ray-")


def _without_torch() -> None:
    """Keeps torch out of a process: tvm_ffi would import it, for seconds, in vain."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
