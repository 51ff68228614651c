"""Matrix products and linear layers whose constant weight is stored as codes: matvecs of decoders, and everything else with such a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...errors import LoweringError
from ...ir import Graph
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .encoded_product import EncodedProduct
from .encoded_lookup import LookupLowering
from .encoded_panels import PanelLowering
from .encoded_registers import RegisterLowering


class EncodedMatmul(Template):
    """Regions around one ``matmul`` or ``linear`` with an encoded constant, and elementwise operations and views before and after it."""

    name: ClassVar[str] = "encoded_matmul"

    def takes(self, graph: Graph) -> bool:
        return EncodedProduct.find(graph) is not None

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        choices = (("algorithm", (0, 1, 2)), ("block_depth", (0,64,256,384,512,1 << 20)), ("rows", (1, 2, 3,4,6, 8,12)), ("vectors", (1, 2, 3,4, 8)))
        return Space(self.name, choices, Config.of(self.name, {"algorithm": 0, "rows": 1, "vectors": 4, "block_depth": 1<<20}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return (RegisterLowering, PanelLowering, LookupLowering)[config["algorithm"]](task, config).lower()
