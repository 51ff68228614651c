"""Models that mlc compiles in part: native programs and PyTorch run by turns."""

from __future__ import annotations

import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import fx

from .errors import Error, FallbackWarning, SignatureError
from .ir.program import Signature
from .runtime import Executable, KernelReport, ProgramReport, trees
from .runtime.executable import Callee
from .runtime.frameworks import describe_signature, is_torch_tensor, random_inputs, torch_framework
from .runtime.report import FallbackReport
from .runtime.sizes import concrete, values_of
from .runtime.states import BorrowedStates, States
from .warning import warn

Values: TypeAlias = Sequence[Any]
"""Tensors, or the numbers of sizes."""


SIZE_LIMIT = 16
"""For how many combinations of sizes a part whose sizes depend on data is compiled."""


class Stretch(Protocol):
    """A part of a model that runs as one."""

    def __call__(self, *values: Any) -> Values:
        """The outputs for the inputs."""

    def rows(self) -> tuple[KernelReport, ...]:
        """What it consists of, for the report."""

    def executables(self) -> tuple[Executable, ...]:
        """The native programs it has by now."""


class NativeStretch:
    """Runs a native program, which takes its inputs by position and returns a tuple."""

    def __init__(self, executable: Executable) -> None:
        self._executable = executable

    def __call__(self, *values: Any) -> Values:
        if not values:  # there is nothing to tell the executable that tensors are torch's
            outputs = [torch_framework().empty(spec) for spec in self._executable.signature.outputs]
            self._executable.runner.run((), tuple(address for _, address in outputs))
            return [tensor for tensor, _ in outputs]
        results: Values = self._executable(*values)
        return results

    def rows(self) -> tuple[KernelReport, ...]:
        return self._executable.report().kernels

    def executables(self) -> tuple[Executable, ...]:
        return (self._executable,)


class TorchStretch:
    """Runs a graph module in PyTorch."""

    def __init__(self, module: fx.GraphModule, label: str, location: str) -> None:
        self._forward = module.forward
        self._row = KernelReport("pytorch", f"pytorch: {label}", location, "", "", 0, 0)

    def __call__(self, *values: Any) -> Values:
        results: Values = self._forward(*values)
        return results

    def rows(self) -> tuple[KernelReport, ...]:
        return (self._row,)

    def executables(self) -> tuple[Executable, ...]:
        return ()


class WholeStretch:
    """Runs a part that is itself divided."""

    def __init__(self, callee: Callee) -> None:
        self._callee = callee

    def __call__(self, *values: Any) -> Values:
        results: Values = self._callee.run(values)
        return results

    def rows(self) -> tuple[KernelReport, ...]:
        return self._callee.report().kernels

    def executables(self) -> tuple[Executable, ...]:
        return self._callee.executables() if isinstance(self._callee, SegmentedExecutable) else ()


class SizedStretch:
    """Compiles a part whose sizes are known only when it is called, once for each combination of sizes.

    ``compile`` gets the inputs at ``arguments``, the others being weights, and what it gives takes the tensors among them. When there
    have been :data:`SIZE_LIMIT` combinations, or one could not be compiled, PyTorch runs it.
    """

    def __init__(self, compile: Callable[[Values], Stretch], eager: TorchStretch, arguments: Sequence[int]) -> None:
        self._compile = compile
        self._eager = eager
        self._arguments = tuple(arguments)
        self._lock = threading.RLock()
        self._known: OrderedDict[tuple[Any, ...], Stretch] = OrderedDict()
        self._warned = False

    def __call__(self, *values: Any) -> Values:
        given = [values[position] for position in self._arguments]
        key = tuple([value.shape if isinstance(value, torch.Tensor) else value for value in given])
        stretch = self._known.get(key) or self._made(key, given)
        if stretch is self._eager:
            return stretch(*values)
        return stretch(*[value for value in given if isinstance(value, torch.Tensor)])

    def _made(self, key: tuple[Any, ...], values: Values) -> Stretch:
        with self._lock:
            if key in self._known:
                return self._known[key]
            if len(self._known) >= SIZE_LIMIT:
                self._warn(f"it was compiled for {SIZE_LIMIT} combinations of sizes already")
                return self._eager
            try:
                self._known[key] = self._compile(values)
            except Error as error:
                self._warn(str(error))
                self._known[key] = self._eager
            return self._known[key]

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            (row,) = self._eager.rows()
            warn(f"a part of the model runs in PyTorch for further sizes ({row.label}): {reason}", FallbackWarning)

    def rows(self) -> tuple[KernelReport, ...]:
        if not self._known:
            (row,) = self._eager.rows()
            return (KernelReport("sized", row.label.replace("pytorch", "compiled when called"), row.location, "", "", 0, 0),)
        return next(reversed(self._known.values())).rows()

    def executables(self) -> tuple[Executable, ...]:
        return tuple(executable for stretch in self._known.values() for executable in stretch.executables())


@dataclass(frozen=True)
class Step:
    """One stretch with the slots it reads and writes, and those that nothing reads after it."""

    run: Stretch
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Steps over numbered slots.

    ``constants`` are the tensors of the model, by slot; ``results`` the flat results of the call, as a slot or
    (wrapped in a tuple of one) a value that is always the same. ``mutations`` are copied at the end, in order: from a slot into a
    tensor of the model, or into the tensor in a slot.
    """

    arguments: tuple[int, ...]
    constants: Mapping[int, torch.Tensor]
    steps: tuple[Step, ...]
    results: tuple[int | tuple[Any], ...]
    mutations: tuple[tuple[torch.Tensor | int, int], ...]
    slots: int

    def run(self, arguments: Values, observe: Callable[[Step, list[Any]], None] | None = None) -> list[Any]:
        """The flat results; ``observe`` is told of each step and its inputs before it runs."""
        slots: list[Any] = [None] * self.slots
        for slot, tensor in self.constants.items():
            slots[slot] = tensor
        for slot, value in zip(self.arguments, arguments, strict=True):
            slots[slot] = value
        with torch.no_grad():
            for step in self.steps:
                inputs = [slots[slot] for slot in step.inputs]
                if observe is not None:
                    observe(step, inputs)
                for slot, value in zip(step.outputs, step.run(*inputs), strict=True):
                    slots[slot] = value
                for slot in step.dead:
                    slots[slot] = None
                del inputs
            for target, source in self.mutations:
                (slots[target] if isinstance(target, int) else target).copy_(slots[source])
            # A tensor of the model is the model's, what a call returns is the caller's.
            for slot in self.constants.keys() & set(self.results):
                slots[slot] = slots[slot].clone()
        return [result[0] if isinstance(result, tuple) else slots[result] for result in self.results]


class SegmentedExecutable:
    """One compiled signature of a model of which PyTorch runs a part."""

    def __init__(
        self,
        name: str,
        signature: Signature,
        plan: Plan,
        *,
        target: str,
        changes: Iterable[str] = (),
        fallback: Sequence[FallbackReport] = (),
    ) -> None:
        """``changes`` names the buffers of the model that ``plan`` changes; ``fallback`` says what PyTorch runs, and why."""
        self.name = name
        self.signature = signature
        self.changes = frozenset(changes)
        self._plan = plan
        self._build = trees.builder(trees.output_tree(signature))
        self._target = target
        self._fallback = tuple(fallback)

    @property
    def signature_text(self) -> str:
        """The signature on one line: ``(x: f32[1,3]) -> f32[1,2]``."""
        return describe_signature(self.signature)

    def limit_threads(self, threads: int) -> None:
        """Bounds the threads of its native programs. PyTorch has its own setting, ``torch.set_num_threads``."""
        for executable in self.executables():
            executable.limit_threads(threads)

    def executables(self) -> tuple[Executable, ...]:
        """The native programs it has by now."""
        return tuple(executable for step in self._plan.steps for executable in step.run.executables())

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat inputs of a call; SignatureError if its structure differs."""
        return trees.flatten_call(self.signature, args, kwargs)

    def check(self, leaves: Sequence[Any]) -> None:
        """SignatureError unless every flat input has the signature's dtype, shape and device."""
        self._tensors(leaves)

    def run(self, leaves: Sequence[Any], states: States | None = None) -> Any:
        """Runs on the flat inputs and gives the outputs in their structure; NumPy arrays if no input is a torch tensor.

        Buffers that the model changes are the model's own: SignatureError for the ``states`` of a session that has others.
        """
        if self.changes and states is not None and not isinstance(states, BorrowedStates):
            raise SignatureError(
                f"PyTorch runs a part of '{self.name}', which changes the model's own buffers {sorted(self.changes)}: "
                "call the model itself, not a session of it"
            )
        count = len(self.signature.inputs)
        results = self._plan.run(self._tensors(leaves))
        if count and not any(map(is_torch_tensor, leaves[:count])):
            results = [result.numpy() if isinstance(result, torch.Tensor) else result for result in results]
        return self._build([*results, *leaves[count:]])

    def _tensors(self, leaves: Sequence[Any]) -> list[Any]:
        framework = torch_framework()
        leaves = leaves[: len(self.signature.inputs)]
        signature = concrete(self.signature, values_of(self.signature, leaves))
        # What the model changes in place are the caller's arrays.
        leaves = [torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) and leaf.flags.writeable else leaf for leaf in leaves]
        return [framework.check(spec, leaf) for spec, leaf in zip(signature.inputs, leaves, strict=True)]

    def profile(self, leaves: Sequence[Any] | None = None, *, calls: int = 20, warmup: int = 3) -> ProgramReport:
        """Runs ``calls`` times after ``warmup`` and reports the median time of each kernel, and of each stretch in PyTorch."""
        if calls < 1:
            raise ValueError("profile needs at least one call")
        arguments = self._tensors(random_inputs(self.signature, torch=True) if leaves is None else leaves)
        seen: list[tuple[Step, list[Any]]] = []
        self._plan.run(arguments, lambda step, inputs: seen.append((step, inputs)))
        rows: list[KernelReport] = []
        with torch.no_grad():
            for step, inputs in seen:
                if isinstance(step.run, NativeStretch):
                    (executable,) = step.run.executables()
                    rows += executable.profile(inputs, calls=calls, warmup=warmup).kernels
                    continue
                samples = []
                for _ in range(warmup + calls):
                    start = time.perf_counter()
                    step.run(*inputs)
                    samples.append(time.perf_counter() - start)
                rows.append(_timed(step.run.rows(), statistics.median(samples[warmup:])))
        return self._report(tuple(rows))

    def report(self, seconds: Sequence[float] | None = None) -> ProgramReport:
        """What it consists of: the kernels of its native programs, and a row for each stretch in PyTorch."""
        return self._report(tuple(row for step in self._plan.steps for row in step.run.rows()))

    def _report(self, rows: tuple[KernelReport, ...]) -> ProgramReport:
        executables = self.executables()
        return ProgramReport(
            name=self.name,
            signature=self.signature_text,
            target=self._target,
            threads=max((executable.threads for executable in executables), default=1),
            arena_bytes=max((executable.program.arena_bytes for executable in executables), default=0),
            arena_lower_bound=max((executable.program.arena_lower_bound for executable in executables), default=0),
            weights_bytes=sum(executable.program.constant_bytes for executable in executables),
            kernels=rows,
            fallback=self._fallback,
        )


def _timed(rows: Sequence[KernelReport], seconds: float) -> KernelReport:
    """One row for a stretch that was timed as a whole."""
    first, label = rows[0], " + ".join(row.label for row in rows)
    return KernelReport(
        first.symbol, label, first.location, "", "", sum(row.flops for row in rows), sum(row.bytes for row in rows), seconds
    )
