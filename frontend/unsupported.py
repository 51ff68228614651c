"""Operations that cannot be compiled: found one by one, reported all at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnsupportedOpError
from ..ir import Location

NO_CONVERTER = "mlc does not know this operation: express it by others, or leave this part of the model out of what you compile"


class Unsupported(Exception):
    """Raised by a converter for a use of its operation that the IR cannot express; the message is the remedy."""


@dataclass
class UnsupportedOps:
    """Collects the unsupported uses of operations while a graph is imported."""

    _uses: dict[tuple[str, str], list[Location]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._uses)

    def add(self, op: str, location: Location, remedy: str) -> None:
        self._uses.setdefault((op, remedy), []).append(location)

    def error(self) -> UnsupportedOpError:
        """One error that lists every operation with its count, its first place in the model, and the remedy."""
        lines = ["mlc cannot compile these operations of the model:"]
        for (op, remedy), locations in self._uses.items():
            first = locations[0]
            count = f"{len(locations)} uses, first" if len(locations) > 1 else "1 use,"
            where = f" in module '{first.module}'" if first.module else " in the model itself"
            source = f", {first.source}" if first.source else ""
            lines += [f"  {op} ({count}{where}{source})", f"    {remedy}"]
        return UnsupportedOpError("\n".join(lines))
