"""Spaces of schedules: named integer knobs with constraints, and the configs in them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ..errors import LoweringError


@dataclass(frozen=True)
class Config:
    """One point of a space: the template's name and a value per knob.

    The text form is ``matmul{mr=8,nr=32}``.
    """

    template: str
    knobs: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(template: str, knobs: Mapping[str, int]) -> Config:
        return Config(template, tuple(sorted(knobs.items())))

    @staticmethod
    def parse(text: str) -> Config:
        """The config of a text form; LoweringError when it is malformed."""
        name, brace, inner = text.partition("{")
        if not brace or not inner.endswith("}") or not name.isidentifier():
            raise LoweringError(f"'{text}' is not a config: expected template{{knob=value,...}}")
        knobs: dict[str, int] = {}
        for item in filter(None, inner[:-1].split(",")):
            key, equals, value = item.partition("=")
            if not equals or not value.lstrip("-").isdigit():
                raise LoweringError(f"'{item}' in config '{text}' is not knob=integer")
            knobs[key] = int(value)
        return Config.of(name, knobs)

    def __getitem__(self, knob: str) -> int:
        for name, value in self.knobs:
            if name == knob:
                return value
        raise LoweringError(f"config {self} has no knob '{knob}'")

    def __str__(self) -> str:
        return self.template + "{" + ",".join(f"{name}={value}" for name, value in self.knobs) + "}"


@dataclass(frozen=True)
class Space:
    """All configs of a template for one task: the product of ``choices``, less what ``allows`` refuses.

    Spaces are small (a few dozen points) and every point must build. ``default`` is the best point by construction, the one used
    when neither a measurement nor a cost model says better.
    """

    template: str
    choices: tuple[tuple[str, tuple[int, ...]], ...]
    default: Config
    allows: Callable[[Mapping[str, int]], bool] = lambda knobs: True

    @classmethod
    def of_points(cls, template: str, ranked: Sequence[Mapping[str, int]], group: str, each: int) -> Self:
        """Of ``ranked`` points, the best first, the first ``each`` for every value of the knob ``group``; the best is the default."""
        kept = [
            point
            for value in dict.fromkeys(point[group] for point in ranked)
            for point in [other for other in ranked if other[group] == value][:each]
        ]
        choices = tuple((name, tuple(sorted({point[name] for point in kept}))) for name in sorted(ranked[0]))
        return cls(template, choices, Config.of(template, ranked[0]), lambda knobs: dict(knobs) in kept)

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """Every allowed config, the default first."""
        return (self.default, *(config for config in self._enumerate() if config != self.default))

    def _enumerate(self) -> Iterator[Config]:
        names = [name for name, _ in self.choices]
        for values in itertools.product(*(values for _, values in self.choices)):
            knobs = dict(zip(names, values, strict=True))
            if self.allows(knobs):
                yield Config.of(self.template, knobs)

    def __len__(self) -> int:
        return len(self.configs)

    @cached_property
    def _members(self) -> frozenset[Config]:
        return frozenset(self.configs)

    def __contains__(self, config: object) -> bool:
        return config in self._members

    def sample(self, count: int, seed: int) -> Sequence[Config]:
        """Up to ``count`` different configs, the same ones for the same seed."""
        configs = list(self.configs)
        random.Random(seed).shuffle(configs)
        return configs[:count]

    def neighbours(self, config: Config) -> Sequence[Config]:
        """Allowed configs that differ from ``config`` by one step of one knob."""
        knobs = dict(config.knobs)
        found = []
        for name, values in self.choices:
            position = values.index(knobs[name]) if knobs.get(name) in values else 0
            for step in (position - 1, position + 1):
                if 0 <= step < len(values):
                    candidate = Config.of(self.template, {**knobs, name: values[step]})
                    if candidate in self:
                        found.append(candidate)
        return found

    def mutated(self, config: Config, generator: random.Random) -> Config:
        """``config`` with another value for one knob, chosen by chance; itself where no such config is allowed."""
        knobs = dict(config.knobs)
        others = [
            Config.of(self.template, {**knobs, name: value})
            for name, values in self.choices
            for value in values
            if value != knobs.get(name)
        ]
        allowed = [other for other in others if other in self]
        return generator.choice(allowed) if allowed else config

    def crossed(self, one: Config, other: Config, generator: random.Random) -> Config:
        """A config with each knob from either parent, by chance; ``one`` where the result is not allowed."""
        mother, father = dict(one.knobs), dict(other.knobs)
        child = Config.of(self.template, {name: generator.choice((mother[name], father[name])) for name, _ in self.choices})
        return child if child in self else one

    def nearest(self, config: Config) -> Config | None:
        """The allowed config whose values are nearest to those of a ``config`` of another task's space; None for another template's.

        Distance counts steps among the choices of each knob, since values may be far apart.
        """
        if config.template != self.template:
            return None
        wanted = dict(config.knobs)
        shared = [(name, values) for name, values in self.choices if name in wanted]

        def steps(candidate: Config) -> int:
            return sum(abs(_place(values, candidate[name]) - _place(values, wanted[name])) for name, values in shared)

        return min(self.configs, key=steps)


def _place(values: Sequence[int], value: int) -> int:
    """Where among ``values`` the one nearest to ``value`` stands."""
    return min(range(len(values)), key=lambda place: abs(values[place] - value))
