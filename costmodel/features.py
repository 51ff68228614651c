"""Tasks and configs as vectors of numbers, the input of learned cost models.

Extents, bytes and counts enter as ``log2(1 + x)``. The vector says what the task is, what the machine is, what the schedule
does on that machine, and last the knobs themselves, so that a template with knobs of no known role can be learned too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..codegen.space import Config
from ..codegen.task import Numerics, Task
from ..errors import LoweringError
from .model import Floats
from .roofline import Rates, roofline, roofs
from .schedule import schedule
from .workload import AnchorKind, workload

KNOB_SLOTS = 6
"""Knobs of a config that enter as plain numbers, in the order of their names."""

_TASK_NAMES = (
    *(f"anchor_{kind.value}" for kind in AnchorKind),
    "batch",
    "rows",
    "columns",
    "depth",
    "taps",
    "stride",
    "operations",
    "constant_bytes",
    "activation_bytes",
    "output_bytes",
    "intensity",
    "transcendental",
    "nodes",
    "inner",
    "strict",
)
_TARGET_NAMES = (
    "threads",
    "vector_lanes",
    "vector_registers",
    "fma_units",
    "data_over_l1",
    "data_over_l2",
    "data_over_l3",
    "roof_compute",
    "roof_l2",
    "roof_l3",
    "roof_memory",
)
_SCHEDULE_NAMES = (
    "tile_rows",
    "tile_vectors",
    "accumulators",
    "block_depth",
    "unroll",
    "row_groups",
    "row_tiles",
    "panels",
    "register_pressure",
    "vector_efficiency",
    "balance",
    "panel_over_l1",
    "panel_over_l2",
    "rows_over_l1",
    "tile_over_l1",
    "rows_total_over_l2",
    "panels_total_over_l2",
    "loads_per_multiply",
    "chain_length",
    "depth_remainder",
    "row_remainder",
    "panel_remainder",
    "row_stride_alias",
    "template_estimate",
)
_KNOB_NAMES = tuple(f"knob_{slot}" for slot in range(KNOB_SLOTS))

_CUT_NAME = "attention_estimate"
"""Apart from ``template_estimate``, which is nothing for attention to models that were trained before there was one."""

FEATURE_NAMES: tuple[str, ...] = (*_TASK_NAMES, *_TARGET_NAMES, *_SCHEDULE_NAMES, *_KNOB_NAMES, _CUT_NAME)
"""Names of the columns of :func:`feature_matrix`. A saved model knows those that it was trained on."""

_PAGE = 4096


def feature_matrix(task: Task, configs: Sequence[Config]) -> Floats:
    """Features [configs, len(FEATURE_NAMES)] of ``configs`` of one task; all finite."""
    shared = [*task_features(task), *_target_features(task)]
    rows = [
        [*shared, *_schedule_features(task, config), estimate, *_knob_features(config), cut]
        for config, estimate, cut in zip(configs, _template_estimates(task, configs), _cut_estimates(task, configs), strict=True)
    ]
    return np.asarray(rows, dtype=np.float64).reshape(len(configs), len(FEATURE_NAMES))


def _template_estimates(task: Task, configs: Sequence[Config]) -> list[float]:
    """log2 of the time that the template reckons with over the roofline's; 0 where it does not reckon or is not known."""
    from ..codegen.templates import template_named

    estimates: Sequence[float] | None = None
    with contextlib.suppress(LoweringError):
        if configs:
            estimates = template_named(configs[0].template).estimated_cycles(task, configs)
    return _over_roofline(task, estimates, len(configs))


def _cut_estimates(task: Task, configs: Sequence[Config]) -> list[float]:
    """log2 of the time that cutting attention into blocks is reckoned to take over the roofline's; 0 for anything else."""
    from ..codegen.templates import template_named
    from ..codegen.templates.attention import Attention

    cycles: Sequence[float] | None = None
    with contextlib.suppress(LoweringError):
        template = template_named(configs[0].template) if configs else None
        cycles = template.cut_cycles(task, configs) if isinstance(template, Attention) else None
    return _over_roofline(task, cycles, len(configs))


def _over_roofline(task: Task, cycles: Sequence[float] | None, count: int) -> list[float]:
    """log2 of each of ``count`` estimates over the roofline's; 0 where there are none."""
    if cycles is None:
        return [0.0] * count
    bound = roofline(task).seconds * task.target.frequency
    return [_ratio(each, bound) for each in cycles]


def _log(value: float) -> float:
    return math.log2(1 + max(value, 0))


def _ratio(value: float, base: float) -> float:
    """log2 of value / base, kept within +-20."""
    return max(-20.0, min(20.0, math.log2(max(value, 1e-9) / max(base, 1e-9))))


@lru_cache(maxsize=1024)
def task_features(task: Task) -> tuple[float, ...]:
    """What the task is, whatever the schedule and the machine: extents and bytes enter by their binary logarithms."""
    work = workload(task.graph, task.constant_inputs)
    anchor = work.anchor
    return (
        *(float(anchor.kind is kind) for kind in AnchorKind),
        _log(anchor.batch),
        _log(anchor.rows),
        _log(anchor.columns),
        _log(anchor.depth),
        float(anchor.taps),
        float(anchor.stride),
        _log(work.operations),
        _log(work.constant_bytes),
        _log(work.activation_bytes),
        _log(work.output_bytes),
        _log(work.intensity),
        _log(work.transcendental),
        float(work.nodes),
        _log(work.inner),
        float(task.numerics is Numerics.STRICT),
    )


@lru_cache(maxsize=1024)
def _target_features(task: Task) -> tuple[float, ...]:
    target = task.target
    work = workload(task.graph, task.constant_inputs)
    rates = Rates.sustained(target, task.threads)
    roof = roofs(work, rates)
    total = max(roof.seconds, 1e-12)
    return (
        float(task.threads),
        float(target.vector_lanes),
        float(target.vector_registers),
        float(target.fma_units),
        *(_ratio(work.nbytes, capacity) for capacity in rates.capacity),
        roof.compute / total,
        roof.l2 / total,
        roof.l3 / total,
        roof.memory / total,
    )


def _schedule_features(task: Task, config: Config) -> tuple[float, ...]:
    plan, target = schedule(task, config), task.target
    anchor = workload(task.graph, task.constant_inputs).anchor
    accumulators = plan.tile_rows * plan.tile_vectors
    panel = plan.tile_vectors * max(target.vector_lanes, 1)
    stride = 4 * anchor.depth
    return (
        float(plan.tile_rows),
        float(plan.tile_vectors),
        float(accumulators),
        _log(plan.block_depth),
        float(plan.unroll),
        float(plan.row_groups),
        _log(plan.row_tiles),
        _log(plan.panels),
        plan.register_pressure,
        plan.vector_efficiency,
        plan.balance,
        _ratio(plan.panel_bytes, target.l1_bytes),
        _ratio(plan.panel_bytes, target.l2_bytes),
        _ratio(plan.row_bytes, target.l1_bytes),
        _ratio(plan.panel_bytes + plan.row_bytes, target.l1_bytes),
        _ratio(4 * anchor.rows * anchor.depth / plan.row_groups, target.l2_bytes),
        _ratio(4 * anchor.columns * anchor.depth * plan.row_groups / task.threads, target.l2_bytes),
        plan.loads_per_multiply,
        accumulators / max(4 * target.fma_units, 1),
        (anchor.depth % plan.unroll) / max(anchor.depth, 1),
        anchor.rows / (plan.row_tiles * plan.tile_rows),
        (anchor.columns % panel) / panel,
        plan.tile_rows * math.gcd(stride, _PAGE) / _PAGE,
    )


def _knob_features(config: Config) -> list[float]:
    values = [float(value) for _, value in config.knobs[:KNOB_SLOTS]]
    return values + [-1.0] * (KNOB_SLOTS - len(values))
