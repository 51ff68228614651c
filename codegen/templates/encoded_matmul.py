"""Matrix products and linear layers whose constant weight is stored as codes: matvecs of decoders, and all else with such a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ...errors import LoweringError
from ...ir import Graph
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .encoded_fixed import FixedLowering
from .encoded_geometry import Algorithm, Geometry
from .encoded_lookup import LookupLowering
from .encoded_panels import PanelLowering
from .encoded_product import EncodedProduct
from .encoded_registers import RegisterLowering

_KNOBS = ("algorithm", "block_depth", "rows", "vectors")
_CHOSEN = 6
"""Schedules kept of each algorithm."""
_LOWERINGS: Mapping[Algorithm, type[RegisterLowering | PanelLowering]] = {
    Algorithm.REGISTERS: RegisterLowering,
    Algorithm.PANELS: PanelLowering,
    Algorithm.LOOKUP: LookupLowering,
    Algorithm.FIXED: FixedLowering,
}


class EncodedMatmul(Template):
    """Regions around one ``matmul`` or ``linear`` with an encoded constant, and elementwise operations and views before and after it.

    Knobs: ``algorithm`` (see :class:`.encoded_geometry.Algorithm`), ``rows`` and ``vectors`` of the register tile, ``block_depth``: how
    much of the depth is decoded at a time, where panels are.
    """

    name: ClassVar[str] = "encoded_matmul"
    revision: ClassVar[int] = 3

    def takes(self, graph: Graph) -> bool:
        return EncodedProduct.find(graph) is not None

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        geometry = Geometry.of(task)
        best: list[dict[str, int]] = []
        for algorithm in Algorithm:
            best += sorted(geometry.points(algorithm), key=geometry.cycles)[:_CHOSEN]
        chosen = {tuple(sorted(point.items())) for point in best}

        def allows(knobs: Mapping[str, int]) -> bool:
            return tuple(sorted(knobs.items())) in chosen

        choices = tuple((name, tuple(sorted({point[name] for point in best}))) for name in _KNOBS)
        return Space(self.name, choices, Config.of(self.name, min(best, key=geometry.cycles)), allows)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        geometry = Geometry.of(task)
        return [geometry.cycles({name: config[name] for name in _KNOBS}) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _LOWERINGS[Algorithm(config["algorithm"])](task, config).lower()
