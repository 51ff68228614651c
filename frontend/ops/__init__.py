"""The converters, one function for each ATen operation or family; importing this package registers them."""

from . import (
    activation,
    arithmetic,
    comparison,
    contraction,
    creation,
    embedding_bag,
    indexing,
    movement,
    no_effect,
    normalisation,
    ordering,
    pooling,
    reduction,
    resampling,
    scatter,
    transcendental,
)

__all__ = [
    "activation",
    "arithmetic",
    "comparison",
    "contraction",
    "creation",
    "embedding_bag",
    "indexing",
    "movement",
    "no_effect",
    "normalisation",
    "ordering",
    "pooling",
    "reduction",
    "resampling",
    "scatter",
    "transcendental",
]
