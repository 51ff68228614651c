"""``precision="auto"``: decides modes for a model's layers, verifies the compiled program, and says what was done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .calibration import Call, Calls, flat_call, similar_call
from .codegen.precision import FP32_THROUGHOUT, Precision
from .errors import DeviceUnavailableError, Error, OptionError, PrecisionWarning
from .runtime.executable import Callee
from .runtime.precision_report import LayerPrecision, PrecisionReport
from .runtime.states import States
from .warning import warn

if TYPE_CHECKING:
    from .options import Options
    from .passes.auto_precision import Assignment

DEFAULT_TOLERANCE = 1e-2
CompileWith = Callable[["Options"], Callee]
"""Compiles the model for the signature at hand."""


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

    def compile(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], compile_with: CompileWith) -> Callee:
        """The program for arguments like these."""
        signature = _signature_of(args, kwargs)
        if self._decided is None or signature == self._signature:
            search = _Search(model, args, kwargs, self.options, self.tolerance)
            self._decided, self.report = search.decide(compile_with)
            self._signature = signature
            if not search.lowered and self.report.note:
                warn(f"{self.name}: precision='auto': {self.report.note}", PrecisionWarning)
        return compile_with(self._decided)


def checked_tolerance(tolerance: object) -> float:
    """The tolerance that a user gave, or the usual one; OptionError unless it is a positive number."""
    if tolerance is None:
        return DEFAULT_TOLERANCE
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < np.inf:
        raise OptionError(f"tolerance={tolerance!r}: give the relative error that is allowed of the model's results, such as 0.01")
    return float(tolerance)


class _Search:
    """The search for one signature: ``samples`` calibrate, ``held_out`` only judge."""

    def __init__(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options, tolerance: float) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._tolerance = tolerance
        given = options.calibration
        middle = -(-len(given) // 2)
        own: Call = (args, kwargs)
        self.samples: Calls = tuple((sample, kwargs) for sample in given[:middle]) or (own, similar_call(own, seed=0))
        self.held_out: Calls = tuple((sample, kwargs) for sample in given[middle:]) or (similar_call(own, seed=1),)
        # Other inputs may err more than those few: the fewer they are, the larger the margin.
        self._allowed = tolerance / (1 + 1 / math.sqrt(len(self.samples) + len(self.held_out)))
        # What is held out must not show in the ranges of activations.
        self._options = replace(options, calibration=given[:middle])
        self.lowered = False

    def decide(self, compile_with: CompileWith) -> tuple[Options, PrecisionReport]:
        """Options with the modes, and the report on them."""
        try:
            assignment = self._assignment()
        except Error as fault:
            first = str(fault).partition("\n")[0]
            return self._exact((), f"the model is computed in fp32, since it could not be analysed as a whole: {first}")
        if not assignment.lowered:
            return self._exact(_rows(assignment), self._why(assignment))
        # By the compiled model, since PyTorch would change its states.
        exact = compile_with(replace(self._options, precision=FP32_THROUGHOUT))
        expected = self._results(exact)
        promoted = 1
        while assignment.lowered:
            options = replace(self._options, precision=assignment.precision)
            try:
                error = self._measured(compile_with(options), expected)
            except DeviceUnavailableError:
                return self._found(options, assignment, assignment.error, "the device is absent: the error is that of a simulation in fp32")
            if error <= self._allowed:
                return self._found(options, assignment, error, "")
            for _ in range(min(promoted, len(assignment.lowered))):
                assignment = assignment.promoted()
            promoted *= 2
        return self._exact(
            _rows(assignment), f"no layer can be lowered within the tolerance of {self._tolerance:g}; it is computed in fp32"
        )

    def _assignment(self) -> Assignment:
        from .driver import pass_context
        from .frontend import export_model, import_exported
        from .passes import Pipeline
        from .passes.auto_precision import choose_modes
        from .passes.default import SIMPLE

        exported = export_model(self._model, self._args, self._kwargs)
        imported = import_exported(exported)
        samples, held_out = (tuple(flat_call(imported, *call) for call in calls) for calls in (self.samples, self.held_out))
        ctx = pass_context(self._options, samples)
        graph = Pipeline.parse(SIMPLE).run(imported.graph, ctx)
        return choose_modes(graph, samples, held_out, ctx, self._allowed)

    def _results(self, program: Callee) -> list[list[np.ndarray]]:
        """The tensors that ``program`` gives for every sample, calibrating and held out."""
        return [_run(program, *call) for call in (*self.samples, *self.held_out)]

    def _measured(self, program: Callee, expected: Sequence[Sequence[np.ndarray]]) -> float:
        from .passes.auto_precision import relative_error

        return max(relative_error(results, right) for results, right in zip(self._results(program), expected, strict=True))

    def _found(self, options: Options, assignment: Assignment, error: float, note: str) -> tuple[Options, PrecisionReport]:
        self.lowered = True
        return options, self._report(_rows(assignment), error, note)

    def _exact(self, rows: tuple[LayerPrecision, ...], note: str) -> tuple[Options, PrecisionReport]:
        return replace(self._options, precision=Precision()), self._report(rows, 0.0, note)

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


def _run(program: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
    """The tensors among the results of a call, with states as they were at first."""
    import torch
    from torch.utils import _pytree as pytree

    result = program.run(program.bind(tuple(args), kwargs), States())
    tensors = (leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))
    return [np.array((leaf.float() if leaf.dtype is torch.bfloat16 else leaf).numpy()) for leaf in tensors]


def _signature_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Shapes and dtypes of the tensors of a call."""
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves((args, dict(kwargs)))
    return tuple((str(leaf.dtype), tuple(leaf.shape)) if hasattr(leaf, "shape") else repr(leaf) for leaf in leaves)
