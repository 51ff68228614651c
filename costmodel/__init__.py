"""What a task costs: analytic bounds, features, a learned ranking, and the oracle that passes ask.

Importing this package loads neither xgboost nor torch nor tvm; models load what they need when they are used.
"""

from .estimate import Estimate, OperationEstimate, estimate
from .features import FEATURE_NAMES, feature_matrix
from .gradient_boosting import GradientBoostedModel
from .model import CostModel, Prediction, RooflineModel
from .model_files import load_cost_model
from .oracle import CostOracle
from .pretrained import pretrained
from .roofline import LAUNCH_SECONDS, Bound, Rates, Roofline, lower_bound, roofline, roofs
from .workload import Anchor, AnchorKind, Workload, workload

__all__ = [
    "FEATURE_NAMES",
    "LAUNCH_SECONDS",
    "Anchor",
    "AnchorKind",
    "Bound",
    "CostModel",
    "CostOracle",
    "Estimate",
    "GradientBoostedModel",
    "OperationEstimate",
    "Prediction",
    "Rates",
    "Roofline",
    "RooflineModel",
    "Workload",
    "estimate",
    "feature_matrix",
    "load_cost_model",
    "lower_bound",
    "pretrained",
    "roofline",
    "roofs",
    "workload",
]
