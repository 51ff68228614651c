"""Executable: a program with its library and weights, callable on NumPy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from ..errors import ArtifactError, DeviceUnavailableError, SignatureError, SizeError
from ..ir.program import ALIGNMENT, Form, Program, Signature, StateSpec, TensorSpec
from ..ir.size import evaluate
from ..ir.types import DType
from . import _native, trees
from .features import require_features
from .frameworks import describe_signature, framework_of, native_spec, nbytes, random_inputs
from .report import KernelReport, ProgramReport
from .sizes import concrete, native_size, native_symbol, typical_values, values_of
from .states import State, States, addresses

_LOCKED_SECONDS = 10e-6
"""Programs expected to take less keep the interpreter's lock: handing it over would cost more than it frees."""


class Callee(Protocol):
    """What runs the calls of one signature: a native program, or native programs and PyTorch by turns."""

    @property
    def signature(self) -> Signature:
        """The flat inputs and outputs, and their structure."""

    @property
    def signature_text(self) -> str:
        """The signature on one line: ``(x: f32[1,3]) -> f32[1,2]``."""

    @property
    def changes(self) -> frozenset[str]:
        """The names of the model's buffers that a call changes."""

    def limit_threads(self, threads: int) -> None:
        """Bounds the threads of its native programs; for sessions that attach them from now on."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat inputs of a call; SignatureError if its structure differs. Shapes and dtypes are looked at by :meth:`check`."""

    def check(self, leaves: Sequence[Any]) -> None:
        """SignatureError unless every flat input has the signature's dtype, shape and device."""

    def run(self, leaves: Sequence[Any], states: States | None = None) -> Any:
        """Runs on the flat inputs and gives the outputs in their structure. ``states`` are those of the calling session."""

    def profile(self, leaves: Sequence[Any] | None = None, *, calls: int = 20, warmup: int = 3) -> ProgramReport:
        """Runs ``calls`` times after ``warmup`` and reports the median time of each kernel."""

    def report(self, seconds: Sequence[float] | None = None) -> ProgramReport:
        """What it consists of; with the ``seconds`` of each kernel call when they were measured."""


class Executable:
    """One compiled signature.

    ``library`` is the path of the native library, ``weights`` any object with the buffer protocol that holds the packed
    constants (kept as it is when aligned, else copied once). ``threads`` bounds the program's own number of threads. The
    library is opened at the first call, where DeviceUnavailableError is raised if the processor cannot run it.
    """

    dispatches: ClassVar[bool] = True
    """Whether :attr:`runner` takes calls by the native fast path."""

    def __init__(self, program: Program, library: str | Path, weights: Any = None, *, threads: int | None = None) -> None:
        self.program = program
        self.library = Path(library)
        self.weights = _aligned_weights(program, weights)
        allowed = min(program.threads, _native.available_cpus())
        self.threads = max(1, min(allowed, threads) if threads is not None else allowed)
        self._dispatch: _native.Dispatch | None = None

    def limit_threads(self, threads: int) -> None:
        """Bounds the threads of a call; for sessions that attach the program from now on."""
        self.threads = max(1, min(self.program.threads, _native.available_cpus(), threads))
        self._dispatch = None
        self.states.forget()

    @property
    def signature(self) -> Signature:
        return self.program.signature

    @property
    def changes(self) -> frozenset[str]:
        """The names of the model's buffers that a call changes."""
        return frozenset(state.name for state in self.program.states)

    @cached_property
    def states(self) -> States:
        """The states of calls that bring none: of this object, called by itself."""
        return States()

    @property
    def runner(self) -> _native.Runner:
        """The native side, on the executable's own states; opens the library."""
        return self.states.attach(self)

    def make_runner(self, states: Sequence[State], guard: _native.Guard) -> _native.Runner:
        """A native side that works on ``states``, in the order of the program's, under their ``guard``."""
        program, signature = self.program, self.program.signature
        if program.form is Form.SOURCES:
            raise DeviceUnavailableError(
                f"'{program.name}' was compiled to C sources for '{program.target}', which this machine is not; write them to a "
                "folder with export_c(), build them for the device, and call the model there"
            )
        require_features(program.features, program.target)
        mutated = tuple(index for index, spec in enumerate(signature.inputs) if spec.mutated)
        try:
            return _native.Runner(
                library=_native.Library(str(self.library)),
                entry=program.entry,
                inputs=tuple(native_spec(spec, signature.symbols) for spec in signature.inputs),
                outputs=tuple(native_spec(spec, signature.symbols) for spec in signature.outputs),
                constants=self.weights,
                arena_bytes=program.arena_bytes,
                threads=self.threads,
                calls=len(program.calls),
                release_lock=self.expected_seconds > _LOCKED_SECONDS,
                # What changes its inputs must tell the framework, and may return them: that is not for the native dispatch.
                plan=trees.flat_plan(trees.input_tree(signature)) if not mutated else None,
                output="list" if mutated else trees.output_form(trees.output_tree(signature), len(signature.outputs)),
                states=addresses(states),
                state_owner=[state.tensor for state in states],
                guard=guard,
                mutated=mutated,
                symbols=tuple(native_symbol(symbol) for symbol in signature.symbols),
                slots=tuple(native_size(size, signature.symbols) for size in program.slots),
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

    def run(self, leaves: Sequence[Any], states: States | None = None) -> Any:
        """Runs on the flat inputs (behind them the objects that the result contains) and gives the outputs in their structure.

        ``states`` are those of the calling session, by default the executable's own.
        """
        states = states if states is not None else self.states
        runner = states.attach(self)
        count = len(self.signature.inputs)
        inputs, passed = leaves[:count], leaves[count:]
        if not states.direct:
            states.fetch()
        result = runner.leaves(*inputs)
        if self._mutated:
            if result is NotImplemented:
                result = self._run_on_copies(runner, inputs)
            framework_of(inputs).note_mutation([inputs[index] for index in self._mutated])
            result = self._build([*result, *passed])
        elif result is NotImplemented:
            result = self._build(self._run_on_copies(runner, inputs))
        if not states.direct:
            states.store()
        return result

    def _run_on_copies(self, runner: _native.Runner, leaves: Sequence[Any]) -> list[Any]:
        """The flat outputs, for inputs of which some do not lie in memory as the program needs them."""
        framework = framework_of(leaves)
        for index in self._mutated:
            framework.require_writable(self.signature.inputs[index], leaves[index])
        values = values_of(self.signature, leaves)
        signature = concrete(self.signature, values)
        inputs = [framework.prepare(spec, leaf) for spec, leaf in zip(signature.inputs, leaves, strict=True)]
        outputs = [framework.empty(spec) for spec in signature.outputs]
        self._check_overlaps(signature, inputs)
        runner.run(tuple(address for _, address in inputs), tuple(address for _, address in outputs), tuple(values.values()))
        for index in self._mutated:
            if inputs[index][0] is not leaves[index]:
                framework.assign(leaves[index], inputs[index][0])
        return [tensor for tensor, _ in outputs]

    def _check_overlaps(self, signature: Signature, inputs: Sequence[tuple[Any, int]]) -> None:
        """SignatureError when an input that the program changes shares memory with another."""
        specs = signature.inputs
        ends = [address + nbytes(spec) for spec, (_, address) in zip(specs, inputs, strict=True)]
        for index in self._mutated:
            for other, (_, address) in enumerate(inputs):
                if other != index and inputs[index][1] < ends[other] and address < ends[index]:
                    raise SignatureError(
                        f"input '{specs[index].name}', which the model changes in place, shares memory with input '{specs[other].name}'; "
                        "pass a clone of one of them"
                    )

    @cached_property
    def _mutated(self) -> tuple[int, ...]:
        return tuple(index for index, spec in enumerate(self.signature.inputs) if spec.mutated)

    @cached_property
    def _build(self) -> Callable[[Sequence[Any]], Any]:
        return trees.builder(trees.output_tree(self.signature))

    def initial_state(self, spec: StateSpec) -> np.ndarray | None:
        """The first content of a state of the program; None for zeros."""
        if spec.initial is None:
            return None
        count = nbytes(TensorSpec(spec.name, spec.dtype, spec.shape))
        content = np.frombuffer(memoryview(self.weights), np.uint8)[spec.initial : spec.initial + count]
        return content.view(DType.parse(spec.dtype).numpy).reshape(spec.shape)

    def check(self, leaves: Sequence[Any]) -> None:
        """SignatureError unless every flat input has the spec's dtype, shape and device; SizeError for a size that is out of range."""
        framework = framework_of(leaves)
        signature = concrete(self.signature, values_of(self.signature, leaves))
        for spec, leaf in zip(signature.inputs, leaves, strict=False):
            framework.check(spec, leaf)

    def profile(self, leaves: Sequence[Any] | None = None, *, calls: int = 20, warmup: int = 3) -> ProgramReport:
        """Runs the program ``calls`` times after ``warmup`` and reports the median time of each kernel."""
        import statistics  # which takes as long to import as an artifact to be loaded again

        if calls < 1:
            raise ValueError("profile needs at least one call")
        leaves = random_inputs(self.signature) if leaves is None else leaves
        framework = framework_of(leaves)
        values = values_of(self.signature, leaves)
        signature = concrete(self.signature, values)
        inputs = [framework.prepare(spec, leaf) for spec, leaf in zip(signature.inputs, leaves, strict=False)]
        outputs = [framework.empty(spec) for spec in signature.outputs]
        places = tuple(address for _, address in inputs), tuple(address for _, address in outputs), tuple(values.values())
        samples = []
        for _ in range(warmup + calls):
            self.states.reset()  # else a cache is full at some time
            samples.append(self.runner.profile(*places))
        samples = samples[warmup:]
        return self.report([statistics.median(times) * 1e-9 for times in zip(*samples, strict=True)])

    def report(self, seconds: Sequence[float] | None = None) -> ProgramReport:
        """What the program consists of, at typical sizes; with the ``seconds`` of each kernel call when they were measured."""
        program = self.program
        slots = [evaluate(size, typical_values(self.signature)) for size in program.slots]
        times: Sequence[float | None] = [None] * len(program.calls) if seconds is None else seconds
        return ProgramReport(
            name=program.name,
            signature=self.signature_text,
            target=program.target,
            threads=self.threads,
            arena_bytes=program.arena_bytes + sum(-(-size // ALIGNMENT) * ALIGNMENT for size in slots),
            arena_lower_bound=program.arena_lower_bound,
            weights_bytes=program.constant_bytes,
            footprint=program.footprint,
            kernels=tuple(
                KernelReport(
                    call.symbol,
                    call.label,
                    call.location,
                    call.task,
                    call.config,
                    count * call.flops,
                    count * call.bytes,
                    time,
                    count,
                    call.precision,
                )
                for (call, count), time in zip(program.runs, times, strict=True)
            ),
        )

    @property
    def signature_text(self) -> str:
        """The signature on one line: ``(x: f32[1,3]) -> f32[1,2]``."""
        return describe_signature(self.signature)


_AnyCallee = TypeVar("_AnyCallee", bound=Callee)


def choose(executables: Sequence[_AnyCallee], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[_AnyCallee, list[Any]]:
    """The first executable that a call fits, with the call's flat inputs; SignatureError that says why none does, a
    SizeError when one of them only lacks a wider range."""
    problems: list[str] = []
    kind: type[SignatureError] = SignatureError
    for executable in executables:
        try:
            leaves = executable.bind(args, kwargs)
            executable.check(leaves)
        except SignatureError as error:
            if len(executables) == 1:
                raise
            problems.append(f"  {executable.signature_text}: {error}")
            kind = SizeError if isinstance(error, SizeError) else kind
        else:
            return executable, leaves
    raise kind("the call fits none of the compiled signatures:\n" + "\n".join(problems))


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
