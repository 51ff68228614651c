"""Sessions: calls of one model that share a set of states."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DeviceUnavailableError
from . import _native
from .executable import Callee, Executable
from .states import States


class Session:
    """One stream of calls of a model, callable like it, with states (caches, counters) of its own.

    A session's calls follow one another: a second thread waits until the first has its results. Calls of different sessions run at the same
    time. ``mlc.compile(model).session()`` makes one; a model called directly has a session of its own, its ``default_session``.
    """

    def __init__(self, call: Callable[[Session, tuple[Any, ...], dict[str, Any]], Any], states: States | None = None) -> None:
        """``call(session, args, kwargs)`` is asked where no program that was used before fits, or something changed."""
        self._held = states or States()
        self.dispatch = _native.Dispatch(functools.partial(call, self))
        self.generation = 0
        """Which state of the model's weights the adopted programs were compiled for."""
        self.watches = False
        """Whether the dispatch notices changes of the original model."""
        self._adopted: set[Executable] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.dispatch(*args, **kwargs)

    @property
    def states(self) -> dict[str, Any]:
        """The buffers by name, to read and to write; a torch tensor each where torch is loaded, else NumPy's. Empty before anything is
        compiled. Do not touch them while another thread calls the session."""
        return self._held.tensors()

    def load_states(self, states: Mapping[str, Any]) -> None:
        """Copies ``states`` into the buffers of those names. SignatureError for unknown names, other shapes or dtypes."""
        self._held.load(states)

    def reset(self) -> None:
        """Gives every buffer the content that it had when the model was compiled."""
        self._held.reset()

    def adopt(self, executable: Callee) -> None:
        """Makes a program one that the session tries first. What PyTorch runs a part of has no native dispatch."""
        if executable in self._adopted or not isinstance(executable, Executable):
            return
        self._adopted.add(executable)
        if not executable.dispatches:
            self._held.of(executable)
            return
        with contextlib.suppress(DeviceUnavailableError):
            runner = self._held.attach(executable)
            if self._held.direct:
                self.dispatch.add(runner)

    def watch(self, entries: list[tuple[dict[str, Any], str, int]]) -> None:
        """Lets the native dispatch notice changes of what a model consists of (see ``_native.Dispatch.watch``)."""
        self.dispatch.watch(entries)
        self.watches = True

    def renew(self, generation: int) -> None:
        """Forgets all programs; the states stay."""
        self.dispatch.reset()
        self.watches = False
        self._adopted.clear()
        self._held.forget()
        self.generation = generation

    def run(self, executable: Callee, leaves: list[Any]) -> Any:
        """Runs a program on its flat inputs."""
        return executable.run(leaves, self._held)
