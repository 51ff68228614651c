"""Every Graph -> Graph transformation, the pipeline that orders them, and the instruments that watch it."""

from .base import Context, CostOracle, Evaluator, Pass, RewriteBudget, passes, register_pass
from .bisect import Culprit, bisect
from .common_subexpressions import CommonSubexpressions, DeadCode
from .control_flow import ControlFlow
from .decompose import Decompose
from .default import default_pipeline
from .encode_weights import EncodeWeights
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fold_rates import FoldRates
from .fuse import Fuse, kernel_count
from .horizontal import Horizontal
from .instruments import Compare, Dump, Instrument, Time, Verify, Watch, random_inputs, relative_difference
from .keep_halves import KeepHalves
from .layout import AssignLayouts
from .narrow_activations import NarrowActivations
from .narrow_operands import NarrowOperands
from .pipeline import Pipeline
from .raise_composites import RaiseComposites
from .simplify import Simplify
from .sparsity import Sparsity
from .unrolled_loops import BatchLayers, LeadSlices
from .widen_halves import WidenHalves

__all__ = [
    "AssignLayouts",
    "BatchLayers",
    "CommonSubexpressions",
    "Compare",
    "Context",
    "ControlFlow",
    "CostOracle",
    "Culprit",
    "DeadCode",
    "Decompose",
    "Dump",
    "EncodeWeights",
    "Evaluator",
    "FoldBatchNorm",
    "FoldConstants",
    "FoldRates",
    "Fuse",
    "Horizontal",
    "Instrument",
    "KeepHalves",
    "LeadSlices",
    "NarrowActivations",
    "NarrowOperands",
    "Pass",
    "Pipeline",
    "RaiseComposites",
    "RewriteBudget",
    "Simplify",
    "Sparsity",
    "Time",
    "Verify",
    "Watch",
    "WidenHalves",
    "bisect",
    "default_pipeline",
    "kernel_count",
    "passes",
    "random_inputs",
    "register_pass",
    "relative_difference",
]
