"""Executable: a program with its library and weights, callable on NumPy arrays and torch tensors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, SignatureError
from ..ir.program import ALIGNMENT, Program, Signature
from . import _native, trees
from .features import require_features
from .frameworks import describe_signature, framework_of, native_spec, random_inputs
from .report import KernelReport, ProgramReport

_LOCKED_SECONDS = 10e-6
"""Programs expected to take less keep the interpreter's lock: handing it over would cost more than it frees."""


class Executable:
    """One compiled signature.

    ``library`` is the path of the native library, ``weights`` any object with the buffer protocol that holds the packed
    constants (kept as it is when aligned, else copied once). ``threads`` bounds the program's own number of threads. The
    library is opened at the first call, where DeviceUnavailableError is raised if the processor cannot run it.
    """

    def __init__(self, program: Program, library: str | Path, weights: Any = None, *, threads: int | None = None) -> None:
        self.program = program
        self.library = Path(library)
        self.weights = _aligned_weights(program, weights)
        allowed = min(program.threads, _native.available_cpus())
        self.threads = max(1, min(allowed, threads) if threads is not None else allowed)
        self._dispatch: _native.Dispatch | None = None

    @property
    def signature(self) -> Signature:
        return self.program.signature

    @cached_property
    def runner(self) -> _native.Runner:
        """The native side; opens the library."""
        program, signature = self.program, self.program.signature
        require_features(program.features, program.target)
        try:
            return _native.Runner(
                library=_native.Library(str(self.library)),
                entry=program.entry,
                inputs=tuple(native_spec(spec) for spec in signature.inputs),
                outputs=tuple(native_spec(spec) for spec in signature.outputs),
                constants=self.weights,
                arena_bytes=program.arena_bytes,
                threads=self.threads,
                calls=len(program.calls),
                release_lock=self.expected_seconds > _LOCKED_SECONDS,
                plan=trees.flat_plan(trees.input_tree(signature)),
                output=trees.output_form(trees.output_tree(signature), len(signature.outputs)),
            )
        except OSError as error:
            raise ArtifactError(f"the native library of '{program.name}' cannot be loaded: {error}; compile the model again") from error

    @cached_property
    def expected_seconds(self) -> float:
        """A rough, optimistic estimate of one call."""
        return sum(times * max(call.flops / 5e10, call.bytes / 2e10) for call, times in self.program.runs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program; outputs are torch tensors if any input is one, else NumPy arrays. SignatureError, KernelError."""
        if self._dispatch is None:
            dispatch = _native.Dispatch(self.call_generally)
            dispatch.add(self.runner)
            self._dispatch = dispatch
        return self._dispatch(*args, **kwargs)

    def call_generally(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The same call without the native fast path: any structure, any strides, any alignment, explained errors."""
        return self.run(self.bind(args, kwargs))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat inputs of a call; SignatureError if its structure differs. Shapes and dtypes are looked at by :meth:`run`."""
        return trees.flatten_call(self.signature, args, kwargs)

    def run(self, leaves: Sequence[Any]) -> Any:
        """Runs on the flat inputs and gives the outputs in their structure."""
        runner = self.runner
        framework = framework_of(leaves)
        result = runner.leaves(*leaves)
        if result is not NotImplemented:
            return result
        inputs = [framework.prepare(spec, leaf) for spec, leaf in zip(self.signature.inputs, leaves, strict=True)]
        outputs = [framework.empty(spec) for spec in self.signature.outputs]
        runner.run(tuple(address for _, address in inputs), tuple(address for _, address in outputs))
        return trees.unflatten(trees.output_tree(self.signature), [tensor for tensor, _ in outputs])

    def check(self, leaves: Sequence[Any]) -> None:
        """SignatureError unless every flat input has the spec's dtype, shape and device."""
        framework = framework_of(leaves)
        for spec, leaf in zip(self.signature.inputs, leaves, strict=True):
            framework.check(spec, leaf)

    def profile(self, leaves: Sequence[Any] | None = None, *, calls: int = 20, warmup: int = 3) -> ProgramReport:
        """Runs the program ``calls`` times after ``warmup`` and reports the median time of each kernel."""
        if calls < 1:
            raise ValueError("profile needs at least one call")
        leaves = random_inputs(self.signature) if leaves is None else leaves
        framework = framework_of(leaves)
        inputs = [framework.prepare(spec, leaf) for spec, leaf in zip(self.signature.inputs, leaves, strict=True)]
        outputs = [framework.empty(spec) for spec in self.signature.outputs]
        addresses = tuple(address for _, address in inputs), tuple(address for _, address in outputs)
        samples = [self.runner.profile(*addresses) for _ in range(warmup + calls)][warmup:]
        return self.report([statistics.median(times) * 1e-9 for times in zip(*samples, strict=True)])

    def report(self, seconds: Sequence[float] | None = None) -> ProgramReport:
        """What the program consists of; with the ``seconds`` of each kernel call when they were measured."""
        program = self.program
        times: Sequence[float | None] = [None] * len(program.calls) if seconds is None else seconds
        return ProgramReport(
            name=program.name,
            signature=self.signature_text,
            target=program.target,
            threads=self.threads,
            arena_bytes=program.arena_bytes,
            arena_lower_bound=program.arena_lower_bound,
            weights_bytes=program.constant_bytes,
            kernels=tuple(
                KernelReport(
                    call.symbol, call.label, call.location, call.task, call.config, count * call.flops, count * call.bytes, time, count
                )
                for (call, count), time in zip(program.runs, times, strict=True)
            ),
        )

    @property
    def signature_text(self) -> str:
        """The signature on one line: ``(x: f32[1,3]) -> f32[1,2]``."""
        return describe_signature(self.signature)


def choose(executables: Sequence[Executable], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Executable, list[Any]]:
    """The first executable that a call fits, with the call's flat inputs; SignatureError that says why none does."""
    problems: list[str] = []
    for executable in executables:
        try:
            leaves = executable.bind(args, kwargs)
            executable.check(leaves)
        except SignatureError as error:
            if len(executables) == 1:
                raise
            problems.append(f"  {executable.signature_text}: {error}")
        else:
            return executable, leaves
    raise SignatureError("the call fits none of the compiled signatures:\n" + "\n".join(problems))


def _aligned_weights(program: Program, weights: Any) -> Any:
    if program.constant_bytes == 0:
        return None
    if weights is None:
        raise ArtifactError(f"'{program.name}' needs {program.constant_bytes} bytes of weights and got none; compile the model again")
    given = np.frombuffer(memoryview(weights), dtype=np.uint8)
    if given.nbytes < program.constant_bytes:
        raise ArtifactError(
            f"'{program.name}' needs {program.constant_bytes} bytes of weights and got {given.nbytes}; compile the model again"
        )
    if given.__array_interface__["data"][0] % ALIGNMENT == 0:
        return weights
    buffer = _native.Buffer(given.nbytes)
    np.frombuffer(memoryview(buffer), dtype=np.uint8)[:] = given
    return buffer
