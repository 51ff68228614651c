"""``precision="auto"``: a mode for each layer, so that the whole model's error stays within a tolerance and the predicted time is least.

:mod:`.layers` finds what is decided together, :mod:`.rounding` is what modes do to numbers, :mod:`.simulation` runs the model with some
layers lowered, :mod:`.timing` predicts what that gains, :mod:`.knapsack` decides, and :mod:`.search` is all of it.
"""

from ...ir import relative_error
from .knapsack import Candidate, cheapest
from .layers import Layer, layers_of
from .search import Assignment, LayerChoice, Sensitivities, sensitivities_of
from .simulation import Simulation, lowered_error
from .timing import predicted_seconds

__all__ = [
    "Assignment",
    "Candidate",
    "Layer",
    "LayerChoice",
    "Sensitivities",
    "Simulation",
    "cheapest",
    "layers_of",
    "lowered_error",
    "predicted_seconds",
    "relative_error",
    "sensitivities_of",
]
