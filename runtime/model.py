"""Several executables behind one callable, and the model that comes out of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SignatureError
from ..ir.program import Signature
from . import artifact
from .c_export import export_c
from .executable import Callee, choose
from .frameworks import needs_gradient
from .report import ProgramReport, Report
from .session import Session
from .states import States


class Model:
    """Calls the executable whose signature fits the arguments.

    Calls from several threads run at the same time, each with an arena of its own. Outputs are torch tensors if any input is
    one, else NumPy arrays; they are the caller's and never reused.
    """

    def __init__(self, executables: Sequence[Callee], name: str = "model") -> None:
        self._name = name
        self._executables: list[Callee] = []
        self._default = self._new_session(self._own_states())
        self._dispatch = self._default.dispatch
        for executable in executables:
            self._add(executable)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._dispatch(*args, **kwargs)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The compiled signatures."""
        return tuple(executable.signature for executable in self._executables)

    @property
    def executables(self) -> tuple[Callee, ...]:
        """What was compiled, one per signature."""
        return tuple(self._executables)

    @property
    def default_session(self) -> Session:
        """The session whose states calls of the model itself use."""
        return self._default

    def session(self) -> Session:
        """A new session: callable like the model, with states (caches, counters) of its own, which start as they were at compilation."""
        return self._new_session(None)

    def save(self, path: str | Path) -> None:
        """Writes all compiled signatures into one artifact, atomically. ArtifactError when nothing is compiled yet."""
        artifact.save(path, self._executables, self._name)

    def export_c(self, folder: str | Path, name: str | None = None) -> tuple[Path, ...]:
        """Writes a model compiled for a microcontroller as C99: ``name.c``, ``name.h`` and ``mlc_abi.h`` in ``folder``.

        ``name`` (default: the model's, in lower case) prefixes the functions; a second signature is called ``name_1`` and so on.
        Returns the paths. ArtifactError when nothing is compiled yet, or for a target that is not compiled to C.
        """
        return export_c(folder, artifact.whole_programs(self._executables, self._name), name or self._name)

    def report(self) -> Report:
        """What the compiled programs consist of: kernels, work, memory. Print it, or take ``to_dict()``."""
        return Report(self._name, tuple(executable.report() for executable in self._executables))

    def profile(self, *args: Any, calls: int = 20, **kwargs: Any) -> ProgramReport:
        """The median time of each kernel over ``calls`` calls with these arguments; without any, of the first signature with
        random inputs (normally distributed floats, zeros elsewhere)."""
        if not self._executables:
            raise SignatureError(
                "nothing is compiled yet, so there is nothing to profile; call the model once, or compile it with example_inputs"
            )
        if not args and not kwargs:
            return self._executables[0].profile(calls=calls)
        executable, leaves = choose(self._executables, args, kwargs)
        return executable.profile(leaves, calls=calls)

    def _add(self, executable: Callee) -> None:
        """Makes an executable part of the model; it is tried first.

        One for a device that is absent can be saved and reported on: calls of it arrive at ``_call_generally`` and raise there.
        """
        self._executables.append(executable)
        self._default.adopt(executable)

    def _own_states(self) -> States:
        """The states of the model's default session."""
        return States()

    def _new_session(self, states: States | None) -> Session:
        # The model must live as long as its sessions, which ask it for programs; not the other way round.
        session = Session(self._call_in, states)
        for executable in self._executables:
            session.adopt(executable)
        return session

    def _call_in(self, session: Session, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A call that a session's native dispatch passed on: the first of its kind, or one that needs copies, structure or explanation."""
        executable, leaves = choose(self._executables, args, kwargs)
        session.adopt(executable)
        return session.run(executable, leaves)


class LoadedModel(Model):
    """A model from an artifact. It has no parameters and no gradients."""

    def _call_in(self, session: Session, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        executable, leaves = choose(self._executables, args, kwargs)
        for spec, leaf in zip(executable.signature.inputs, leaves, strict=False):
            if needs_gradient(leaf):
                raise SignatureError(
                    f"input '{spec.name}' requires a gradient, which a compiled program does not compute; call it under "
                    f"torch.inference_mode() or torch.no_grad(), or pass {spec.name}.detach()"
                )
        session.adopt(executable)
        return session.run(executable, leaves)

    def __repr__(self) -> str:
        lines = "".join(f"\n  {executable.signature_text}" for executable in self._executables)
        return f"LoadedModel '{self._name}':{lines}"


def load(path: str | Path, *, threads: int | None = None) -> LoadedModel:
    """The model of an artifact written by ``save``. Needs neither torch nor TVM.

    ``threads`` bounds the threads a call uses. ArtifactError when the file is damaged, foreign or newer than this version;
    DeviceUnavailableError when this machine's processor lacks what the program needs.
    """
    name, executables = artifact.load(path, threads=threads)
    return LoadedModel(executables, name)
