"""CompiledModel: what :func:`mlc.compile` returns, callable like the model it came from."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .arguments import leaves_in, parameter_names, torch_arrays
from .errors import Error, OptionError, SignatureError, SizeError
from .ir.program import Signature
from .original import PLACE, buffer_of, owner_of, watched
from .runtime import Model, ProgramReport, Report, _native, trees
from .runtime.executable import Callee, choose
from .runtime.frameworks import needs_gradient, random_inputs, torch_framework
from .runtime.precision_report import PrecisionReport
from .runtime.session import Session
from .runtime.states import BorrowedStates, States

CompileSignature: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Callee]
"""Compiles the model for the arguments of one call. The executable's signature must describe those arguments as they were spelled:
what was positional stays positional, what was a keyword stays a keyword."""

_CALLERS = "transformers.generation."
"""Where methods come from, generate above all, that call their model. They get a copy of the module (the weights are the same ones) whose
``forward`` is the compiled model."""

_RETURNING_SELF = frozenset(
    {
        "train",
        "eval",
        "to",
        "to_empty",
        "cpu",
        "cuda",
        "half",
        "float",
        "double",
        "bfloat16",
        "type",
        "apply",
        "requires_grad_",
        "share_memory",
    }
)
"""Methods of a module that return the module: here they return the compiled model."""


class CompiledModel(Model):
    """A model that compiles itself for each new signature and runs the compiled programs.

    - A call under autograd (gradients enabled, and an argument or a parameter requires one) runs the original model, with one
      warning, because a compiled program computes no gradients. Call it under ``torch.inference_mode()`` or ``torch.no_grad()``.
    - Changes of parameters, buffers and of ``training`` are noticed at the next call and compiled in: assignment, optimizer steps,
      ``load_state_dict``, ``to``, in-place operations. Writes through ``.data`` or NumPy views do not count versions and cannot be
      noticed: call :meth:`refresh` after them, and after changes of plain attributes and hooks, which are compiled in as well.
    - Attributes that it does not have itself are those of the original model (``.config``, submodules), to read and to write.

    Calls from several threads are safe; one signature is compiled once.
    """

    def __init__(
        self,
        original: Callable[..., Any],
        compile_signature: CompileSignature,
        executables: Sequence[Callee] = (),
        name: str | None = None,
        precision: Callable[[], PrecisionReport | None] = lambda: None,
    ) -> None:
        """``executables``: what was compiled from example inputs already. ``precision`` reports on what ``precision="auto"`` decided."""
        self._precision = precision
        self._original = original
        self._compile_signature: CompileSignature | None = compile_signature
        self._stale: list[Signature] = []
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self._generation = 0
        self._thread_limit: int | None = None
        self._weights = _native.Dispatch(lambda args, kwargs: None)
        self._parameter_names = parameter_names(original)
        super().__init__((), name or str(getattr(original, "__name__", type(original).__name__)))
        for executable in executables:
            self._adopt(executable)

    # ---- calling ----

    def _call_in(self, session: Session, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._is_recorded(args, kwargs):
            if session is not self._default:
                raise SignatureError("a session computes no gradients; call it under torch.inference_mode() or torch.no_grad()")
            return self._call_original(args, kwargs)
        with self._lock:
            if session.dispatch.changed() or session.generation != self._generation:
                if self._weights.changed():
                    self._warn_once(
                        "the model's weights, buffers or training mode changed since it was compiled; it is compiled again", level=4
                    )
                    self.refresh()
                # Without that, a buffer that the model changes was replaced by another tensor.
                session.renew(self._generation)
            if "transformers.cache_utils" in sys.modules:
                from .frontend.holders import initialise

                initialise(owner_of(self._original)[0], args, kwargs)
            executable, leaves = self._find(args, kwargs)
            session.adopt(executable)
            self._watch(session)
        return session.run(executable, leaves)

    def session(self) -> Session:
        """A new session: callable like the model, with states (caches, counters) of its own, which start as they were at compilation."""
        with self._lock:
            session = super().session()
            session.generation = self._generation
            self._watch(session)
            return session

    def _own_states(self) -> States:
        return BorrowedStates(lambda name: buffer_of(self._original, name))

    def _watch(self, session: Session) -> None:
        """Lets the native dispatch notice changes of the original: of weights their content, of states only which tensor they are."""
        if self._compile_signature is None or session.watches:
            return
        torch_framework()  # the native side must know torch to read versions and addresses
        changing = {name for executable in self._executables for name in executable.changes}
        entries = list(watched(self._original, changing))
        session.watch(entries)
        if session is self._default:
            self._weights.watch([entry for entry in entries if entry[2] != PLACE])

    def _find(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Callee, list[Any]]:
        """The executable for a call and the call's flat inputs; compiles one when none fits."""
        if self._executables:
            try:
                return self._choose(args, kwargs)
            except SizeError:
                # The user has said which sizes the model is for.
                raise
            except SignatureError as error:
                if self._compile_signature is None:
                    raise SignatureError(f"{error}\nThe model's weights were released, so no further signature can be compiled") from None
        elif self._compile_signature is None:
            raise SignatureError("the model's weights were released before anything was compiled; load the model anew")
        given = torch_arrays((args, dict(kwargs)))
        try:
            executable = self._compile_signature(*given)
        except Error as error:
            if not self._executables:
                raise
            known = "".join(f"\n  {executable.signature_text}" for executable in self._executables)
            raise SignatureError(
                f"the call fits none of the compiled signatures:{known}\nand compiling it for this call failed: {error}"
            ) from error
        self._adopt(executable)
        return self._choose(args, kwargs)

    def _choose(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Callee, list[Any]]:
        try:
            return choose(self._executables, args, kwargs)
        except SignatureError:
            for executable in self._executables:
                spelled = self._spell(executable, args, kwargs)
                if spelled is not None:
                    try:
                        return choose([executable], *spelled)
                    except SignatureError:
                        continue
            raise

    def _spell(self, executable: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments with the same ones positional as in the executable's signature; None when that cannot be."""
        positional, keywords = trees.input_tree(executable.signature)["items"]
        names = self._parameter_names[: len(positional["items"])]
        values = dict(zip(self._parameter_names, args, strict=False))
        if len(args) > len(self._parameter_names) or values.keys() & kwargs.keys():
            return None
        values |= kwargs
        if values.keys() != {*names, *keywords["keys"]} or len(names) != len(positional["items"]):
            return None
        return tuple(values[name] for name in names), {key: values[key] for key in keywords["keys"]}

    def _adopt(self, executable: Callee) -> None:
        if self._thread_limit is not None:
            executable.limit_threads(self._thread_limit)
        self._add(executable)
        self._default.watches = False  # the program may change buffers that the others do not
        self._watch(self._default)

    # ---- autograd ----

    def _is_recorded(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if any(needs_gradient(value) for value in leaves_in((args, kwargs))):
            return True
        import torch

        return (
            torch.is_grad_enabled()
            and isinstance(self._original, torch.nn.Module)
            and self._compile_signature is not None
            and any(isinstance(value, torch.Tensor) for value in leaves_in((args, kwargs)))
            and any(parameter.requires_grad for parameter in self._original.parameters())
        )

    def _call_original(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._compile_signature is None:
            raise SignatureError(
                "an input requires a gradient, but the original model's weights were released; "
                "call under torch.inference_mode() or torch.no_grad()"
            )
        self._warn_once(
            "gradients are enabled and an input or a parameter requires them, so the original PyTorch model runs and not the compiled one; "
            "call under torch.inference_mode() or torch.no_grad() to run the compiled one",
            level=5,
        )
        return own_forward(self._original)(*args, **kwargs)

    def _warn_once(self, text: str, level: int) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(f"{self._name}: {text}", stacklevel=level)

    # ---- threads ----

    @property
    def threads(self) -> int | None:
        """How many threads a call may use at most; None before anything is compiled. To be set to fewer than it was compiled for."""
        return max((executable.report().threads for executable in self._executables), default=self._thread_limit)

    @threads.setter
    def threads(self, threads: int) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise OptionError(f"threads={threads!r}: give a whole number of at least 1")
        with self._lock:
            self._thread_limit = threads
            for executable in self._executables:
                executable.limit_threads(threads)
            self._generation += 1
            self._default.renew(self._generation)

    # ---- weights ----

    def refresh(self) -> None:
        """Forgets the compiled programs, so that the next call compiles the model as it is now."""
        with self._lock:
            if self._compile_signature is None:
                return
            self._stale += self.signatures
            self._executables = []
            self._generation += 1
            self._default.renew(self._generation)

    def release_weights(self) -> None:
        """Frees the original model's parameters and buffers; the signatures compiled so far keep working on their own copy.

        The module stays as an empty shell for its attributes: it can neither run nor be compiled for further signatures.
        """
        import torch

        with self._lock:
            self._update()
            if not self._executables:
                raise SignatureError(
                    "nothing is compiled yet; call the model once, or compile it with example_inputs, before releasing its weights"
                )
            self._compile_signature = None
            self._default.watch([])
            self._weights.watch([])
            if isinstance(self._original, torch.nn.Module):
                self._original.to("meta")

    def _update(self) -> None:
        """Compiles again, with random inputs, the signatures that a change of the weights made stale."""
        if self._weights.changed():
            self.refresh()
        stale, self._stale = self._stale, []
        for signature in stale:
            if self._compile_signature is not None and signature not in self.signatures:
                args, kwargs = trees.unflatten(trees.input_tree(signature), random_inputs(signature, torch=True))
                self._adopt(self._compile_signature(args, kwargs))

    # ---- what Model offers, on the weights as they are ----

    def save(self, path: str | Path) -> None:
        """Writes all compiled signatures into one artifact, atomically. ArtifactError when nothing is compiled yet."""
        with self._lock:
            self._update()
            super().save(path)

    def export_c(self, folder: str | Path, name: str | None = None) -> tuple[Path, ...]:
        """Writes a model compiled for a microcontroller as C99: ``name.c``, ``name.h`` and ``mlc_abi.h`` in ``folder``."""
        with self._lock:
            self._update()
            return super().export_c(folder, name)

    def report(self) -> Report:
        """What the compiled programs consist of: kernels, work, memory. Print it, or take ``to_dict()``."""
        with self._lock:
            self._update()
            return dataclasses.replace(super().report(), precision=self._precision())

    def profile(self, *args: Any, calls: int = 20, **kwargs: Any) -> ProgramReport:
        """The median time of each kernel over ``calls`` calls with these arguments, compiling for them first if need be; without
        any, of the first signature with random inputs (normally distributed floats, zeros elsewhere)."""
        with self._lock:
            self._update()
            if args or kwargs:
                executable, leaves = self._find(args, kwargs)
                return executable.profile(leaves, calls=calls)
            return super().profile(calls=calls)

    # ---- the original's attributes ----

    @property
    def __signature__(self) -> inspect.Signature:
        original = own_forward(self._original)
        return inspect.signature(getattr(original, "forward", original))

    def __getattr__(self, name: str) -> Any:
        original = self.__dict__.get("_original")
        if original is None:
            raise AttributeError(name)
        value = getattr(original, name)
        function = getattr(value, "__func__", None)
        if getattr(function, "__module__", "").startswith(_CALLERS) and value.__self__ is original:
            caller = copy.copy(original)
            vars(caller)["forward"] = self
            return getattr(caller, name)
        if name in _RETURNING_SELF and callable(value):

            def method(*args: Any, **kwargs: Any) -> Any:
                result = value(*args, **kwargs)
                return self if result is original else result

            return method
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self._original, name, value)

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            object.__delattr__(self, name)
        else:
            delattr(self._original, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._original)})

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._original)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        return self._original[key]  # type: ignore[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._original)  # type: ignore[call-overload, no-any-return]

    def __contains__(self, item: Any) -> bool:
        return item in self._original  # type: ignore[operator]

    def __reduce__(self) -> Any:
        raise TypeError("a compiled model cannot be pickled or copied; use save() and mlc.load(), or compile a copy of the original model")

    def __repr__(self) -> str:
        lines = "".join(f"\n  {executable.signature_text}" for executable in self._executables)
        return f"CompiledModel '{self._name}':{lines or ' nothing compiled yet'}"


def own_forward(model: Any) -> Any:
    """``model``; a copy of it (the weights are the same ones) with its class's ``forward`` where a compiled model took that one's place, as
    in ``model.forward = mlc.compile(model)``."""
    if not isinstance(vars(model).get("forward") if hasattr(model, "__dict__") else None, CompiledModel):
        return model
    twin = copy.copy(model)
    del vars(twin)["forward"]
    return twin
