"""Products with an encoded constant: what templates for them share, and the frame of their kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import LoweringError
from ...ir import Graph, Value
from ..emit import Emitter, Expr, Kernel, bytes_of, index
from ..task import Task
from ..template import LoweredKernel
from ..weight_format import WeightFormat, weight_format
from ..weight_packing import Arrangement, PackedWeight, PanelBlock
from .encoded_codes import Codes, Digits, Halves, Indices, Nibbles, Plain
from .matmul_geometry import Product
from .region import AnchoredRegion, Epilogue, broadcast_row
from .register_tile import RegisterTile
from .tiling import by_width
from .vectors import Vectors

_OPS = ("matmul", "linear")
_WORD = 4


@dataclass(frozen=True)
class EncodedProduct:
    """The product of a region whose second operand is a graph input, number ``position``, that is stored as codes."""

    region: AnchoredRegion
    product: Product
    position: int
    format: WeightFormat

    @staticmethod
    def find(graph: Graph) -> EncodedProduct | None:
        """The product that is the only anchor of ``graph``, if it is of static shape and kernels can read its weight; else None."""
        region = AnchoredRegion.find(graph, _OPS)
        if region is None:
            return None
        weight = region.anchor.inputs[1]
        if weight not in graph.inputs or len(graph.users[weight]) != 1 or weight.tensor.encoding.is_dense:
            return None
        form = weight_format(weight.tensor, _columns_axis(region))
        return EncodedProduct(region, Product.of(region.anchor), graph.inputs.index(weight), form) if form is not None else None

    @staticmethod
    def of(task: Task) -> EncodedProduct:
        """LoweringError where there is none, or its weight is not constant."""
        found = EncodedProduct.find(task.graph)
        if found is None or found.position not in task.constant_inputs:
            raise LoweringError("this template takes regions with one product whose encoded weight is constant; ask takes() first")
        return found

    @property
    def rows(self) -> int:
        return int(self.product.rows)

    @property
    def weight(self) -> Value:
        return self.region.anchor.inputs[1]

    def packed(self, panel: int, arrangement: Arrangement) -> PackedWeight:
        return PackedWeight(_columns_axis(self.region), panel, arrangement)

    def block(self, panel: int) -> PanelBlock:
        return PanelBlock(self.format, panel, self.product.depth)


def _columns_axis(region: AnchoredRegion) -> int:
    return 0 if region.anchor.op == "linear" else 1


class EncodedKernel:
    """The frame: the kernel, its epilogue, and the weight in panels of ``vectors`` vectors."""

    def __init__(self, task: Task, problem: EncodedProduct, vectors: int, arrangement: Arrangement, workspace: int) -> None:
        self.task = task
        self.target = task.target
        self.problem = problem
        self.lanes = task.target.vector_lanes
        self.count = vectors
        self.packed = problem.packed(vectors * self.lanes, arrangement)
        type = problem.weight.tensor
        self.block = self.packed.block(type)
        self.panels = self.packed.panels(type)
        self.header = self.packed.header(type)
        self.stored_words = self.packed.words(type)
        self.kernel = Kernel(problem.region.graph, workspace_bytes=_WORD * workspace, layouts={problem.position: self.packed})
        self.emitter: Emitter = self.kernel.emitter
        self.vectors = Vectors(self.emitter, self.target)
        self.epilogue = Epilogue(self.kernel, problem.region)
        self.words = self.weight_as("int32")

    def finish(self) -> LoweredKernel:
        return LoweredKernel(self.kernel.finish(), {self.problem.position: self.packed}, self.kernel.workspace_bytes)

    def weight_as(self, dtype: str) -> Any:
        """All that is stored of the weight as elements of ``dtype``."""
        return self.kernel.part(self.problem.weight, dtype, 0, self.stored_words * _WORD // bytes_of(dtype), "words")

    def codes(self, *, digits: bool) -> Codes:
        """What reads the codes of a panel; ``digits``: integers as such, else plainly."""
        match self.packed.arrangement:
            case Arrangement.HALVES:
                words = self.weight_as(Halves.element)
                return Halves(self.emitter, self.target, self.block.format, words, self.count)
            case Arrangement.INDICES:
                table = self.weight_as("float32")
                return Indices(self.emitter, self.target, self.block.format, self.words, self.count, table)
            case Arrangement.NIBBLES:
                words = self.weight_as(Nibbles.element)
                return Nibbles(self.emitter, self.target, self.block.format, words, self.count)
        kind = Digits if digits else Plain
        return kind(self.emitter, self.target, self.block.format, self.words, self.count)

    def activation(self, row: Expr, k: Expr) -> Expr:
        """The element of the product's first operand."""
        value = self.problem.region.anchor.inputs[0]
        leading = broadcast_row(self.kernel, value.tensor.shape[:-1], self.problem.product.row_shape, row)
        return self.epilogue.evaluator.value_at(value, [*leading, k])

    def store(self, tile: RegisterTile, row: Expr, number: Expr) -> None:
        """Stores what becomes of the sums in ``tile``: of rows from ``row`` on and the columns of panel ``number``."""

        def panel(number: Expr, columns: int) -> None:
            def store(step: Expr | int, lane: Expr, element: Expr) -> None:
                column = number * self.packed.panel + lane
                indices = self.problem.product.result_indices(self.emitter, index(0), row + step, column)
                self.epilogue.store(indices, self._with_bias(element, column))

            tile.for_each(columns, self.epilogue.is_long, store)

        by_width(self.emitter, number, self.problem.product.columns, self.packed.panel, panel)

    def _with_bias(self, element: Expr, column: Expr) -> Expr:
        inputs = self.problem.region.anchor.inputs
        return element if len(inputs) < 3 else element + self.epilogue.evaluator.value_at(inputs[2], [column])


class GroupNumbers:
    """Scales and zero points of a panel's groups."""

    def __init__(self, frame: EncodedKernel) -> None:
        self._frame = frame
        self._vectors = frame.vectors
        self._scale = frame.block.format.scale
        element = {"f32": "float32", "f16": "float16", "bf16": "uint16", "e8m0": "uint8"}[self._scale]
        self._scales = frame.weight_as(element)
        self._scale_bytes = {"float32": 4, "float16": 2, "uint16": 2, "uint8": 1}[element]
        self._zeros: Any = None
        if frame.block.format.zero is None:
            kept = frame.block.format.zero_storage
            self._zeros = frame.weight_as({"f32": "float32", "u8": "uint8"}[kept])
            self._zero_bytes = {"f32": 4, "u8": 1}[kept]

    def scale(self, start: Expr, group: Expr | int, vector: int) -> Expr:
        """Of a group and the columns of a vector, in the block that begins with word ``start``."""
        vectors, frame = self._vectors, self._frame
        place = (self._part(start, group) + frame.block.scales_at) * (4 // self._scale_bytes) + vector * frame.lanes
        held = vectors.load(self._scales, frame.emitter.simplify(place))
        match self._scale:
            case "f16":
                return vectors.converted(held)
            case "bf16":
                return vectors.reinterpreted(vectors.shifted(vectors.widened(held), -16), "float32")
            case "e8m0":
                # The digits of an exponent; 2**-127, below the normal numbers, becomes 0.
                return vectors.reinterpreted(vectors.shifted(vectors.widened(held), -23), "float32")
        return held

    def _part(self, start: Expr, group: Expr | int) -> Expr:
        return start + group * self._frame.block.part_words

    def zero(self, start: Expr, group: Expr | int, vector: int) -> Expr:
        vectors, frame = self._vectors, self._frame
        place = (self._part(start, group) + frame.block.zeros_at) * (4 // self._zero_bytes) + vector * frame.lanes
        held = vectors.load(self._zeros, frame.emitter.simplify(place))
        return held if self._zero_bytes == 4 else vectors.converted(vectors.widened(held))
