"""Tasks: the unit that is tuned, compiled, cached and shared between models."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from ..errors import TextFormError
from ..ir import Graph, canonicalise, parse, specialise, typical_values
from .target import Target


class Numerics(enum.Enum):
    """How NaN and infinity are treated: exactly as PyTorch does, or so only for finite inputs."""

    FAST = "fast"
    STRICT = "strict"


@dataclass(frozen=True)
class Task:
    """One fused graph to be compiled for one target.

    ``graph`` is canonical (names and locations removed, see :func:`canonicalise`); ``constant_inputs`` are the positions of
    inputs whose data is known at compile time, so that a kernel may ask for them in any layout. ``threads`` is the number of
    threads the kernel may use.
    """

    graph: Graph
    constant_inputs: frozenset[int]
    target: Target
    threads: int
    numerics: Numerics = Numerics.FAST

    @cached_property
    def text(self) -> str:
        """Everything that changes the code, as JSON; :meth:`parse` reads it back."""
        return json.dumps(
            {
                "graph": str(self.graph),
                "constant_inputs": sorted(self.constant_inputs),
                "target": str(self.target),
                "threads": self.threads,
                "numerics": self.numerics.value,
            },
            sort_keys=True,
        )

    @property
    def is_symbolic(self) -> bool:
        """Whether sizes depend on symbols; their bounds are part of the graph, and so of the key."""
        return bool(self.graph.symbols)

    @cached_property
    def representative(self) -> Task:
        """This task at typical sizes: what schedules are chosen for. The task itself when it is static."""
        if not self.is_symbolic:
            return self
        graph = canonicalise(specialise(self.graph, typical_values(self.graph.symbols)))
        return Task(graph, self.constant_inputs, self.target, self.threads, self.numerics)

    @cached_property
    def key(self) -> str:
        """Hexadecimal hash of :attr:`text`, 24 digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:24]

    @staticmethod
    def parse(text: str) -> Task:
        """The task of a text form; TextFormError when it is malformed."""
        try:
            fields = json.loads(text)
            return Task(
                canonicalise(parse(fields["graph"])),
                frozenset(fields["constant_inputs"]),
                Target.parse(fields["target"]),
                int(fields["threads"]),
                Numerics(fields["numerics"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TextFormError(f"not the text form of a task: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
