"""Products of many rows with an encoded weight: a block of a panel becomes numbers once, in the workspace, for all rows.

Each thread takes some panels of columns. It decodes a block of the depth of a panel, walks over all rows with it in register tiles, as
:mod:`.matmul` does with a dense panel, and goes on to the next block; the tiles are added up in the workspace. The decoded numbers are
those of the encoding's reference, to the last bit, so that infinities and NaN among the activations do what they would with a dense weight.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..emit import Expr, index
from ..space import Config
from ..task import Task
from ..template import LoweredKernel
from ..weight_format import CHUNK
from .arithmetic import Fp32
from .encoded_codes import arrangement_of
from .encoded_product import EncodedKernel, EncodedProduct, GroupNumbers
from .register_tile import ReductionLoop, RegisterTile, merge_loops
from .staging import copy_row, loop_kind
from .tiling import EvenSplit, aliases, round_up, share, threads, useful_threads

_LINE = 16
_UNROLL = 4


class PanelLowering:
    """One kernel in the making; knobs ``rows``, ``vectors`` and ``block_depth``."""

    def __init__(self, task: Task, config: Config) -> None:
        self.problem = problem = EncodedProduct.of(task)
        product = problem.product
        lanes = task.target.vector_lanes
        self.panel = config["vectors"] * lanes
        self.split = EvenSplit(problem.rows, config["rows"])
        self.parallel = useful_threads(task.target, task.threads, product.flops, product.bytes_moved)
        block = problem.block(self.panel)
        self.block = min(config["block_depth"] // CHUNK, block.chunks)
        self.blocks = -(-block.chunks // self.block)
        self.source = problem.region.source(problem.region.anchor.inputs[0])
        padded = product.depth + lanes if aliases(task.target, 4 * product.depth, self.split.largest) else product.depth
        self.stride = product.depth if self.source is not None else padded
        rows_size = 0 if self.source is not None else int(round_up(problem.rows * self.stride, _LINE))
        self.decoded_size = self.block * CHUNK * self.panel
        self.sums_size = problem.rows * self.panel if self.blocks > 1 else 0
        workspace = rows_size + self.parallel * (self.decoded_size + self.sums_size)
        self.frame = EncodedKernel(task, problem, config["vectors"], arrangement_of(problem.format, task.target), workspace)
        self.emitter, self.vectors = self.frame.emitter, self.frame.vectors
        self.groups = GroupNumbers(self.frame)
        kernel = self.frame.kernel
        self.a: Any = kernel.inputs[self.source] if self.source is not None else kernel.workspace(rows_size, "float32", 0, "rows")
        self.decoded = kernel.workspace(self.parallel * self.decoded_size, "float32", 4 * rows_size, "decoded")
        if self.sums_size:
            place = 4 * (rows_size + self.parallel * self.decoded_size)
            self.sums = kernel.workspace(self.parallel * self.sums_size, "float32", place, "sums")

    def lower(self) -> LoweredKernel:
        emitter, frame = self.emitter, self.frame
        if self.source is None:
            self._stage_rows()
        with threads(emitter, self.parallel) as thread, share(emitter, thread, self.parallel, frame.panels) as (low, high):
            self.codes = frame.codes(digits=False)
            self.decoded_at = emitter.bind(emitter.simplify(thread * self.decoded_size), "decoded_at")
            self.sums_at = emitter.bind(emitter.simplify(thread * self.sums_size), "sums_at")
            with emitter.loop(emitter.simplify(high - low), name="panel", start=low) as number:
                start = emitter.bind(emitter.simplify(number * frame.block.words + frame.header), "block")
                if self.blocks > 1:
                    with emitter.loop(self.blocks - 1, name="part") as part:
                        self._part(number, start, part * self.block, self.block, is_last=False)
                done = (self.blocks - 1) * self.block
                self._part(number, start, index(done), frame.block.chunks - done, is_last=True)
        return frame.finish()

    def _stage_rows(self) -> None:
        emitter = self.emitter
        with emitter.loop(self.problem.rows, loop_kind(self.parallel, self.problem.rows), "row") as row:
            depth = self.problem.product.depth
            copy_row(emitter, self.frame.lanes, self.a, row * self.stride, depth, lambda k: self.frame.activation(row, k))

    def _part(self, number: Expr, start: Expr, first: Expr, chunks: int, *, is_last: bool) -> None:
        """All rows against ``chunks`` chunks of a panel from chunk ``first`` on."""
        first = self.emitter.bind(self.emitter.simplify(first), "first")
        self._decode(start, first, chunks)
        depth = self.problem.product.depth - (self.blocks - 1) * self.block * CHUNK if is_last else chunks * CHUNK
        for run in self.split.runs:
            with self.split.loop(self.emitter, run) as row:
                self._tile(number, first, row, run.size, depth, is_last=is_last)

    def _decode(self, start: Expr, first: Expr, chunks: int) -> None:
        """Chunks from ``first`` on as numbers."""
        emitter, block = self.emitter, self.frame.block
        if block.format.group is None:
            numbers = self._scales(start, index(0))
            with emitter.loop(chunks, name="chunk") as chunk:
                self._decode_chunk(start + (first + chunk) * block.chunk_words, chunk, numbers)
            return
        with emitter.loop(chunks // block.span, name="span") as span:
            group = emitter.bind(emitter.simplify(tirx.floordiv(first, index(block.span)) + span), "group")
            numbers = self._scales(start, group)
            codes = emitter.bind(emitter.simplify(start + group * block.span_words), "codes")
            with emitter.loop(block.span, name="chunk") as chunk:
                number = emitter.bind(emitter.simplify(span * block.span + chunk), "chunk")
                self._decode_chunk(codes + chunk * block.chunk_words, number, numbers)

    def _scales(self, start: Expr, group: Expr) -> list[tuple[Expr, Expr | None]]:
        """For each vector of columns the scale of a group, the format's factor included, and what is subtracted from codes before."""
        vectors, form = self.vectors, self.frame.block.format
        found = []
        for vector in range(self.frame.count):
            scale = self.groups.scale(start, group, vector)
            if form.factor != 1:
                scale = vectors.multiply(form.factor, scale)
            zero = vectors.constant(float(form.zero)) if form.zero else None
            found.append((scale, self.groups.zero(start, group, vector) if form.zero is None else zero))
        return found

    def _decode_chunk(self, words: Expr, chunk: Expr, numbers: list[tuple[Expr, Expr | None]]) -> None:
        """The chunk whose words begin with ``words``, as number ``chunk`` of those decoded."""
        emitter, vectors, lanes = self.emitter, self.vectors, self.frame.lanes
        self.codes.open(emitter.bind(emitter.simplify(words), "words"))
        place = emitter.bind(emitter.simplify(self.decoded_at + chunk * (CHUNK * self.panel)), "place")
        for position in range(CHUNK):
            for vector, (code, (scale, zero)) in enumerate(zip(self.codes.numbers(position), numbers, strict=True)):
                value = code if zero is None else vectors.subtract(code, zero)
                vectors.store(self.decoded, place + (position * self.panel + vector * lanes), vectors.times(value, scale))

    def _tile(self, number: Expr, first: Expr, row: Expr, rows: int, depth: int, *, is_last: bool) -> None:
        emitter = self.emitter
        tile = RegisterTile(emitter, Fp32(self.frame.target), rows, self.frame.count)
        a_at = emitter.bind(emitter.simplify(row * self.stride + first * CHUNK), "a_at")
        sums_at = emitter.bind(emitter.simplify(self.sums_at + row * self.panel), "sums_at") if self.blocks > 1 else None
        if sums_at is not None:
            with emitter.scope() if is_last else emitter.when(first > 0):
                tile.load(self.sums, sums_at, self.panel)
        nest = merge_loops([ReductionLoop(depth, 1, self.panel)])
        tile.accumulate(self.a, a_at, [step * self.stride for step in range(rows)], self.decoded, self.decoded_at, nest, _UNROLL)
        if is_last:
            self.frame.store(tile, row, number)
        else:
            tile.spill(self.sums, sums_at, self.panel)
