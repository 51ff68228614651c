"""Products of few rows with an encoded weight by looking up sums of activations, instead of multiplying (Wei et al., "T-MAC: CPU
Renaissance via Table Lookup for Low-Bit LLM Deployment on Edge", 2024; Mo et al., "LUT Tensor Core", 2025).

The bits of codes lie in planes. Some neighbouring bits of a plane number a subset of as many activations, whose sum stands in a table that
is computed once for all columns; a vector register holds the table, and one instruction looks up sums for as many columns as it has lanes.
The sums of each plane are multiplied by what its bit is worth at the end of a span, which for ternary numbers is 1 and -1. Tables are of
fp32 and hold all subsets: with sums that are rounded no differently than those of products, the result is as good as theirs. Tables of half
the size, of sums and differences, need a bit for the sign and three more instructions for it, which take longer than the lookups saved.
"""

from __future__ import annotations

from ..emit import Expr
from ..target import Target
from ..weight_packing import Arrangement
from .encoded_codes import lookup_width
from .encoded_product import EncodedProduct
from .encoded_registers import RegisterLowering, Sums
from .encoded_rows import RowPlan


def subset_of(target: Target) -> int:
    """Activations whose subsets number the lanes of a vector; 0 where no instruction looks up among these."""
    return max(lookup_width(target).bit_length() - 1, 0)


class LookupLowering(RegisterLowering):
    """One kernel in the making; knobs ``rows`` and ``vectors``."""

    def _plan(self, problem: EncodedProduct, panel: int) -> RowPlan:
        return RowPlan(problem.rows, problem.block(panel), subset=subset_of(self.target))

    def _arrangement(self, problem: EncodedProduct) -> Arrangement:
        return Arrangement.PLANES

    def _open(self) -> None:
        """Nothing: tables are read as they are needed."""

    def _opened_sums(self, rows: int, row: Expr, span: Expr) -> Sums:
        """A sum for each plane."""
        sums = Sums(self.emitter, self.vectors, self.frame.block.format.bits, rows, self.frame.count)
        for plane in range(sums.parts):
            for step in range(rows):
                for vector in range(self.frame.count):
                    sums.store(plane, step, vector, self.vectors.constant(0.0))
        return sums

    def _chunk(self, sums: Sums, words: Expr, chunk: Expr, row: Expr, rows: int) -> None:
        vectors, count, subset = self.vectors, self.frame.count, self.plan.subset
        places = [(plane, vector) for plane in range(sums.parts) for vector in range(count)]
        held = [vectors.load(self.frame.words, words + (plane * count + vector) * self.frame.lanes) for plane, vector in places]
        at = [self.rows.table_place(row + step, chunk) for step in range(rows)]
        for number in range(self.plan.lookups):
            indices = [vectors.shifted(word, number * subset) for word in held]
            for step in range(rows):
                table = self.rows.table(at[step], number)
                for (plane, vector), subset_index in zip(places, indices, strict=True):
                    found = vectors.permuted(table, subset_index)
                    sums.store(plane, step, vector, vectors.add(sums.load(plane, step, vector), found))

    def _total(self, sums: Sums, step: int, vector: int, row: Expr, span: Expr) -> Expr:
        """What the planes are worth together."""
        vectors = self.vectors
        total = self.rows.start(row + step, span) if self.plan.starts is not None else None
        for plane, worth in enumerate(self.frame.block.format.planes):
            part = sums.load(plane, step, vector)
            if total is None:
                assert worth == 1, "the lowest bit counts once"
                total = part
            elif abs(worth) == 1:
                total = vectors.add(total, part) if worth > 0 else vectors.subtract(total, part)
            else:
                total = vectors.multiply_add(float(worth), part, total)
        assert total is not None
        return total
