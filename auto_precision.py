"""``precision="auto"``: decides modes for a model's layers, verifies the compiled program, and says what was done."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .calibration import Call, Calls, FlatSamples, flat_call, similar_call
from .codegen.precision import FP32, FP32_THROUGHOUT, Precision
from .errors import DeviceUnavailableError, Error, OptionError, PrecisionWarning
from .precision_cache import Decision, decision_key, find_decision, keep_decision
from .runtime.executable import Callee
from .runtime.precision_report import LayerPrecision, PrecisionReport
from .runtime.states import States
from .warning import warn

if TYPE_CHECKING:
    from .frontend import Exported, Imported
    from .ir import Graph
    from .options import Options
    from .passes import Context
    from .passes.auto_precision import Assignment, Sensitivities

DEFAULT_TOLERANCE = 1e-2
Export = Callable[[], "Exported"]
"""Exports the model for the sizes at hand."""
CompileWith = Callable[["Options"], Callee]
"""Compiles the model for the signature at hand."""
_ATTEMPTS = 6
"""How often modes are chosen anew after the compiled program erred too much."""
_SHRINK = 0.8
"""The share of the error budget that is left then, at most."""


@dataclass
class AutoPrecision:
    """The modes of a model's layers, decided for the first signature and kept for all further ones.

    They are decided again when that signature is compiled again, which happens when the model's weights changed.
    """

    options: Options
    tolerance: float
    name: str
    report: PrecisionReport | None = None
    _decided: Options | None = None
    _signature: tuple[Any, ...] = field(default=())

    def compile(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], export: Export, compile_with: CompileWith) -> Callee:
        """The program for arguments like these."""
        signature = _signature_of(args, kwargs)
        if self._decided is None or signature == self._signature:
            search = _Search(model, args, kwargs, self.options, self.tolerance, self.name)
            decision = search.decide(export, compile_with)
            self._decided = replace(search.options, precision=decision.precision)
            self.report, self._signature = decision.report, signature
            if not decision.precision.rules and decision.report.note:
                warn(f"{self.name}: precision='auto': {decision.report.note}", PrecisionWarning)
            if search.verified is not None:
                return search.verified
        return compile_with(self._decided)


def checked_tolerance(tolerance: object) -> float:
    """The tolerance that a user gave, or the usual one; OptionError unless it is a positive number."""
    if tolerance is None:
        return DEFAULT_TOLERANCE
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < np.inf:
        raise OptionError(f"tolerance={tolerance!r}: give the relative error that is allowed of the model's results, such as 0.01")
    return float(tolerance)


@dataclass(frozen=True)
class _Analysis:
    """What was found out about a model: its graph of simple operations, and what its layers may be lowered to."""

    imported: Imported
    graph: Graph
    ctx: Context
    samples: FlatSamples
    sensitivities: Sensitivities

    def simulated_error(self, precision: Precision) -> float:
        """The error with ``precision`` by running the lowered graph on this machine."""
        from .passes.auto_precision import lowered_error

        return lowered_error(self.graph, precision, self.samples, self.ctx)


class _Search:
    """The search for one signature: ``samples`` calibrate, ``held_out`` only judge."""

    def __init__(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options, tolerance: float, name: str) -> None:
        self._model, self._tolerance, self._name = model, tolerance, name
        self.verified: Callee | None = None
        """The program with the modes that were decided, where the search compiled it."""
        given = options.calibration
        middle = -(-len(given) // 2)
        own: Call = (args, kwargs)
        self.samples: Calls = tuple((sample, kwargs) for sample in given[:middle]) or (own, similar_call(own, seed=0))
        self.held_out: Calls = tuple((sample, kwargs) for sample in given[middle:]) or (similar_call(own, seed=1),)
        # Other inputs may err more than those few: the fewer they are, the larger the margin.
        self._allowed = tolerance / (1 + 1 / math.sqrt(len(self.samples) + len(self.held_out)))
        # What is held out must not show in the ranges of activations.
        self.options = replace(options, calibration=given[:middle])

    def decide(self, export: Export, compile_with: CompileWith) -> Decision:
        """The modes, and the report on them: from the cache, or found and verified now."""
        from .frontend import import_exported

        begin = time.perf_counter()
        try:
            imported = import_exported(export())
            samples, held_out = (tuple(flat_call(imported, *call) for call in calls) for calls in (self.samples, self.held_out))
            key = decision_key(imported, self.options, self._name, self._tolerance, (samples, held_out))
            if (found := find_decision(key)) is not None:
                return found
            analysis = self._analysed(imported, samples, held_out)
        except Error as fault:
            first = str(fault).partition("\n")[0]
            return self._exact((), f"the model is computed in fp32, since it could not be analysed as a whole: {first}")
        decision = self._proved(analysis, compile_with)
        decision = replace(decision, report=replace(decision.report, search_seconds=time.perf_counter() - begin))
        if self.verified is not None or not decision.precision.rules:
            # Not where the device is absent, by which it may be verified another time.
            keep_decision(key, decision)
        return decision

    def _analysed(self, imported: Imported, samples: FlatSamples, held_out: FlatSamples) -> _Analysis:
        from .driver import pass_context
        from .passes import Pipeline
        from .passes.auto_precision import sensitivities_of
        from .passes.default import SIMPLE

        ctx = pass_context(self.options, samples if self.options.calibration else ())
        graph = Pipeline.parse(SIMPLE).run(imported.graph, ctx)
        sensitivities = sensitivities_of(graph, samples, held_out, ctx, self._allowed)
        return _Analysis(imported, graph, ctx, (*samples, *held_out), sensitivities)

    def _proved(self, analysis: _Analysis, compile_with: CompileWith) -> Decision:
        """The modes of least time with which the compiled program errs by no more than is allowed."""
        sensitivities = analysis.sensitivities
        assignment = sensitivities.choose(self._allowed)
        if not assignment.lowered:
            return self._exact(_rows(assignment), self._why(assignment))
        expected = self._expected(analysis.imported, compile_with)
        budget = self._allowed
        for _ in range(_ATTEMPTS):
            program, note = None, ""
            try:
                program = compile_with(replace(self.options, precision=assignment.precision))
                error = self._measured(program, expected)
            except DeviceUnavailableError:
                error = analysis.simulated_error(assignment.precision)
                note = "the device is absent: the error is that of a simulation on this machine"
            if error <= self._allowed:
                self.verified = program
                return Decision(assignment.precision, self._report(_rows(assignment), error, note))
            # What was estimated to first order falls short by about as much again.
            budget *= min(_SHRINK, self._allowed / error)
            assignment = sensitivities.choose(budget)
            if not assignment.lowered:
                break
        note = f"no layer can be lowered within the tolerance of {self._tolerance:g}; it is computed in fp32"
        return self._exact(_rows(assignment), note)

    def _expected(self, imported: Imported, compile_with: CompileWith) -> list[list[np.ndarray]]:
        """What the model gives for every sample, calibrating and held out: by PyTorch, unless that would change states of the model."""
        import torch

        shapes = [tuple(spec.shape) for spec in imported.signature.outputs]
        if not imported.states and callable(self._model):
            with torch.no_grad():
                # Copies, as a model may change what it is given.
                calls = (copy.deepcopy((args, dict(kwargs))) for args, kwargs in (*self.samples, *self.held_out))
                results = [_tensors(self._model(*args, **kwargs)) for args, kwargs in calls]
            if all([array.shape for array in each] == shapes for each in results):
                return results
        return self._results(compile_with(replace(self.options, precision=FP32_THROUGHOUT)))

    def _results(self, program: Callee) -> list[list[np.ndarray]]:
        """The tensors that ``program`` gives for every sample, calibrating and held out."""
        return [_run(program, *call) for call in (*self.samples, *self.held_out)]

    def _measured(self, program: Callee, expected: Sequence[Sequence[np.ndarray]]) -> float:
        from .passes.auto_precision import relative_error

        return max(relative_error(results, right) for results, right in zip(self._results(program), expected, strict=True))

    def _exact(self, rows: tuple[LayerPrecision, ...], note: str) -> Decision:
        return Decision(Precision(), self._report(tuple(map(_in_fp32, rows)), 0.0, note))

    def _report(self, rows: tuple[LayerPrecision, ...], error: float, note: str) -> PrecisionReport:
        count = len(self.samples) + len(self.held_out)
        return PrecisionReport(self._tolerance, error, count, len(self.held_out), rows, note)

    def _why(self, assignment: Assignment) -> str:
        """Why nothing is lowered."""
        tried = [layer for layer in assignment.layers if layer.least_error is not None]
        if not tried:
            return "no mode is predicted to make any layer quicker on this target; the model is computed in fp32"
        best = min(tried, key=lambda layer: layer.least_error or 0.0)
        place = "on samples that calibrate" if (best.least_error or 0.0) <= self._allowed else "already"
        where = ", ".join(best.modules) or "the model itself"
        return (
            f"a tolerance of {self._tolerance:g} cannot be met with any layer in fewer bits; the model is computed in fp32. "
            f"The least error, of '{where}' alone in its best mode that is quicker, is {best.least_error:.1e} {place}"
        )


def _rows(assignment: Assignment) -> tuple[LayerPrecision, ...]:
    return tuple(
        LayerPrecision(layer.modules, layer.parameters, layer.mode, layer.error, layer.seconds, layer.fp32_seconds)
        for layer in assignment.layers
    )


def _in_fp32(row: LayerPrecision) -> LayerPrecision:
    return replace(row, mode=FP32.name, error=0.0, seconds=row.fp32_seconds)


def _run(program: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
    """The tensors among the results of a call, with states as they were at first."""
    return _tensors(program.run(program.bind(tuple(args), kwargs), States()))


def _tensors(result: Any) -> list[np.ndarray]:
    import torch
    from torch.utils import _pytree as pytree

    tensors = (leaf.detach() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))
    return [np.array((leaf.float() if leaf.dtype is torch.bfloat16 else leaf).cpu().numpy()) for leaf in tensors]


def _signature_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Shapes and dtypes of the tensors of a call."""
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves((args, dict(kwargs)))
    return tuple((str(leaf.dtype), tuple(leaf.shape)) if hasattr(leaf, "shape") else repr(leaf) for leaf in leaves)
