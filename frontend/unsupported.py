"""Operations that cannot be compiled: found one by one, reported all at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnsupportedOpError
from ..ir import Location

_NO_CONVERTER = "mlc does not know this operation: express it by others, or leave this part of the model out of what you compile"

_REMEDIES = {
    "random numbers are drawn: draw them outside and pass them as an argument": (
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "randint",
        "randint_like",
        "randperm",
        "bernoulli",
        "multinomial",
        "uniform",
        "normal",
        "exponential",
    ),
    "the batch norm is in training mode, where it changes its buffers: call model.eval() before compiling": (
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "native_batch_norm",
    ),
    "the size of the result depends on the data: use torch.where or masks of a fixed shape instead": (
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_consecutive",
        "repeat_interleave",
        "_local_scalar_dense",
    ),
    "control flow depends on the data: use torch.where, or compile the branches one by one": ("cond", "while_loop", "scan", "map_impl"),
}


def remedy_for(operation: str) -> str:
    """What to do about an operation without a converter, by its name such as ``aten.rand.default``."""
    parts = operation.split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    return next((remedy for remedy, names in _REMEDIES.items() if name in names), _NO_CONVERTER)


class Unsupported(Exception):
    """Raised by a converter for a use of its operation that the IR cannot express; the message is the remedy."""


@dataclass
class UnsupportedOps:
    """Collects the unsupported uses of operations while a graph is imported."""

    uses: dict[tuple[str, str], list[Location]] = field(default_factory=dict)
    """The places of each operation and remedy, in order."""

    def __bool__(self) -> bool:
        return bool(self.uses)

    def add(self, op: str, location: Location, remedy: str) -> None:
        self.uses.setdefault((op, remedy), []).append(location)

    def error(self) -> UnsupportedOpError:
        """One error that lists every operation with its count, its first place in the model, and the remedy."""
        return UnsupportedOpError("\n".join(["mlc cannot compile these operations of the model:", *self.lines()]))

    def lines(self) -> list[str]:
        """The operations with their count, first place in the model, and remedy, as indented lines."""
        lines = []
        for (op, remedy), locations in self.uses.items():
            first = locations[0]
            count = f"{len(locations)} uses, first" if len(locations) > 1 else "1 use,"
            where = f" in module '{first.module}'" if first.module else " in the model itself"
            source = f", {first.source}" if first.source else ""
            lines += [f"  {op} ({count}{where}{source})", f"    {remedy}"]
        return lines
