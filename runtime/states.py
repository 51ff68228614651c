"""States: the buffers that programs keep from call to call, and the lock under which they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SignatureError
from ..ir.program import StateSpec, TensorSpec
from . import _native
from .frameworks import Framework, framework_of, numpy_framework, torch_framework

if TYPE_CHECKING:
    from .executable import Executable


@dataclass
class State:
    """One buffer: ``tensor`` (NumPy or torch) at ``address``, and the content it starts with (None: zeros)."""

    spec: TensorSpec
    tensor: Any
    address: int
    initial: np.ndarray | None


class States:
    """The buffers of one session, by name; programs of one model share those of equal names.

    Each is made, with its first content, when a program that uses it is attached. ``guard`` is held by whoever reads or writes them.
    """

    def __init__(self) -> None:
        self.guard = _native.Guard()
        self._states: dict[str, State] = {}
        self._runners: dict[Executable, _native.Runner] = {}

    def attach(self, executable: Executable) -> _native.Runner:
        """The runner of ``executable`` on these states. DeviceUnavailableError, ArtifactError when it cannot be loaded."""
        runner = self._runners.get(executable)
        if runner is None:
            runner = executable.make_runner(self.of(executable), self.guard)
            self._runners[executable] = runner
        return runner

    def of(self, executable: Executable) -> list[State]:
        """The states that ``executable`` works on, in the order of its program's; made if need be."""
        return [self._state(spec, executable) for spec in executable.program.states]

    @property
    def direct(self) -> bool:
        """Whether programs work on the very memory that the states are known by, so that a call needs no copies."""
        return True

    def fetch(self) -> None:
        """Before a call that is not direct."""

    def store(self) -> None:
        """After a call that is not direct."""

    def forget(self) -> None:
        """Drops the runners, so that programs are attached anew; the contents stay."""
        self._runners.clear()

    def _state(self, spec: StateSpec, executable: Executable) -> State:
        tensor_spec = TensorSpec(spec.name, spec.dtype, spec.shape)
        known = self._states.get(spec.name)
        if known is not None and known.spec == tensor_spec:
            return known
        state = self._make(tensor_spec, executable.initial_state(spec))
        self._states[spec.name] = state
        return state

    def _make(self, spec: TensorSpec, initial: np.ndarray | None) -> State:
        framework = _framework()
        tensor, address = framework.empty(spec)
        state = State(spec, tensor, address, initial)
        _reset(state, framework)
        return state

    def tensors(self) -> dict[str, Any]:
        """The buffers themselves, by name: what is written to them the next call sees. torch tensors where torch is loaded."""
        return {name: state.tensor for name, state in self._states.items()}

    def load(self, contents: Mapping[str, Any]) -> None:
        """Copies ``contents`` into the buffers of those names; SignatureError for unknown names, other shapes or dtypes."""
        unknown = sorted(contents.keys() - self._states.keys())
        if unknown:
            raise SignatureError(
                f"there are no states {unknown} (there are: {sorted(self._states)}); states exist once a program is compiled"
            )
        framework = framework_of([*self.tensors().values(), *contents.values()])
        checked = {name: framework.check(self._states[name].spec, value) for name, value in contents.items()}
        with self.guard:
            for name, value in checked.items():
                framework.assign(self._states[name].tensor, value)

    def reset(self) -> None:
        """Gives every buffer its first content again."""
        with self.guard:
            for state in self._states.values():
                _reset(state, framework_of([state.tensor]))


class BorrowedStates(States):
    """States that are the buffers of a torch module: programs and PyTorch see the same contents.

    ``buffers`` gives the tensor of a name as it is now, None where there is none. A tensor that programs cannot work on as it lies in
    memory (strided, unaligned) is copied before and after each call.
    """

    def __init__(self, buffers: Any) -> None:
        super().__init__()
        self._buffers = buffers
        self._copied: list[tuple[Any, Any]] = []

    @property
    def direct(self) -> bool:
        return not self._copied

    def forget(self) -> None:
        super().forget()
        self._states.clear()
        self._copied.clear()

    def fetch(self) -> None:
        for owned, copy in self._copied:
            torch_framework().assign(copy, owned)

    def store(self) -> None:
        for owned, copy in self._copied:
            torch_framework().assign(owned, copy)

    def tensors(self) -> dict[str, Any]:
        originals = {id(copy): owned for owned, copy in self._copied}
        return {name: originals.get(id(tensor), tensor) for name, tensor in super().tensors().items()}

    def reset(self) -> None:
        super().reset()
        self.store()

    def load(self, contents: Mapping[str, Any]) -> None:
        super().load(contents)
        self.store()

    def _make(self, spec: TensorSpec, initial: np.ndarray | None) -> State:
        tensor = self._buffers(spec.name)
        if tensor is None:
            return super()._make(spec, initial)
        usable, address = torch_framework().prepare(spec, tensor)
        if usable is not tensor:
            self._copied.append((tensor, usable))
        return State(spec, usable, address, initial)


def _framework() -> Framework:
    """torch's where it is loaded: its tensors are also NumPy's to see."""
    import sys

    return torch_framework() if "torch" in sys.modules else numpy_framework()


def _reset(state: State, framework: Framework) -> None:
    content = np.zeros(state.spec.static_shape, framework.numpy_dtype(state.spec)) if state.initial is None else state.initial
    framework.assign(state.tensor, framework.from_array(content, state.spec))


def addresses(states: Sequence[State]) -> tuple[int, ...]:
    """Where the states lie."""
    return tuple(state.address for state in states)
