"""The way through the house, as one readable function: import, passes, code generation, a program that can be called.

Passes, cost models and code generation are imported where they are used, since a program that the cache has needs none of them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .arguments import positional
from .auto_precision import AutoPrecision, checked_tolerance
from .calibration import FlatSamples, digest, flat_samples, require_like, samples_of
from .codegen.precision import AUTO
from .codegen.target import Kind, Target
from .collection import collection_paused
from .errors import OptionError
from .evaluation import HostEvaluator
from .ir import Constant, Graph
from .ir.program import Signature
from .module import CompiledModel, own_forward
from .options import Options, check_options
from .program_cache import find_program, is_cacheable, keep_program, program_key
from .runtime.devices import executable_for
from .runtime.executable import Callee, Executable
from .warning import warn_fallback

if TYPE_CHECKING:
    from .codegen.assembly import Choose, Progress
    from .costmodel import Estimate
    from .frontend import Exported, Imported, State
    from .passes import Context


def compile(
    model: Any,
    *,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: str | Target = "cpu",
    precision: str | Mapping[str, str] = "fp32",
    tolerance: float | None = None,
    calibration: Any = None,
    sparsity: str | None = "auto",
    nonfinite: str = "fast",
    database: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    memory_budget: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> CompiledModel:
    """``model`` as a compiled model, callable like it.

    ``model`` is an nn.Module, a function on tensors, a torch.fx.GraphModule or an ExportedProgram. With ``example_inputs`` (positional) or
    ``example_kwargs`` it is compiled now for arguments of those shapes and dtypes, without them at the first call; further shapes are
    compiled when they are first seen. ``dynamic_shapes``, as torch.export takes it, names dimensions with ranges that one program shall
    serve; a call with a size outside of them raises SizeError. Operations that mlc cannot compile run in PyTorch, between natively
    compiled parts, with one warning (:class:`mlc.FallbackWarning`) that lists them; with ``strict`` they are an error.
    ``nonfinite="strict"`` treats NaN and infinity exactly as PyTorch does, ``"fast"`` promises that for finite inputs.
    ``database`` is a tuning database (see :func:`mlc.tune`) or JSON lines exported from one, ``threads`` bounds the threads of a call
    (default: all cores of the target). ``progress`` is told (kernels done, kernels in all, label).

    ``precision`` is a mode in which weights are stored, such as ``"w8"``, ``"w4"`` or ``"mxfp4"``, or in which layers compute: ``"bf16"``,
    ``"fp16"`` or ``"int8"`` (``docs/precision.md`` lists them), or a dict from module path to mode (as text:
    ``"decoder=w4,decoder.head=w8"``): a path stands for the module and what is inside it, ``*`` in it for any characters, and the longest
    that fits a layer wins. Layers that none fits are computed in fp32.

    ``precision="auto"`` chooses a mode for each layer so that the predicted time is least while the relative error of the model's results
    stays within ``tolerance`` (0.01 unless given). That is verified by running the compiled program on the calibration samples, half of
    which have no part in the choice, or on inputs made up like the example. Where nothing holds the answer is fp32, with a
    :class:`mlc.PrecisionWarning`; ``report()`` shows modes, errors and times.

    ``calibration`` is a list (or another iterable) of a few samples like ``example_inputs``, each a tensor, a tuple of the positional
    arguments or a mapping from their names, by which ``"int8"`` judges the range of each activation; without it, ranges are found anew in
    every call, which takes time.

    ``sparsity="auto"`` finds zeros in the weights (see :func:`prune`) and leaves them out where that is predicted to be faster, ``"off"``
    or None computes with them as with other numbers; so does ``nonfinite="strict"``, since zero times infinity is NaN.

    ``memory_budget`` has only its default in this version.

    Raises OptionError and TargetError (arguments), ExportError (the model), and if ``strict`` UnsupportedOpError (the model), LoweringError
    and BuildError (code generation).
    """
    is_auto = precision == AUTO
    if not is_auto:
        _require_default("tolerance", tolerance, None, "give it with precision='auto', which chooses modes by it")
    _require_default("memory_budget", memory_budget, None, "leave it out")
    options = check_options(
        target=target,
        threads=threads,
        nonfinite=nonfinite,
        database=database,
        strict=strict,
        progress=progress,
        precision="fp32" if is_auto else precision,
        calibration=samples_of(calibration, model),
        sparsity=sparsity,
    )
    name = getattr(model, "__name__", type(model).__name__)

    initial: dict[str, Constant] = {}

    auto = AutoPrecision(options, checked_tolerance(tolerance), name) if is_auto else None

    def compile_signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callee:
        require_like(options.calibration, model, args, dynamic=dynamic_shapes is not None)
        own = own_forward(model)
        if auto is None:
            return compile_program(own, args, kwargs, options, dynamic_shapes=dynamic_shapes, name=name, initial=initial)
        with collection_paused():
            exported = _exported(own, args, kwargs, options, dynamic_shapes)

        def compile_with(options: Options) -> Callee:
            with collection_paused():
                return compile_exported(exported, options, name=name, initial=initial)

        def export() -> Exported:
            return exported if dynamic_shapes is None else _exported(own, args, kwargs, options)

        return auto.compile(own, args, kwargs, export, compile_with)

    executables = []
    if example_inputs is not None or example_kwargs is not None or _is_exported(model):
        executables.append(compile_signature(positional(example_inputs), dict(example_kwargs or {})))
    return CompiledModel(_callable(model), compile_signature, executables, name, lambda: auto.report if auto is not None else None)


def estimate(
    model: Any,
    *,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    target: str | Target = "cpu",
    threads: int | None = None,
    precision: str | Mapping[str, str] = "fp32",
) -> Estimate:
    """The roofline of ``model``: the least time that ``target`` needs for each operation, and what bounds it. Compiles nothing.

    Weights of lower ``precision`` count with the bytes of their codes and scales.
    """
    from .costmodel import estimate as estimate_graph

    options = check_options(target=target, threads=threads, precision=precision)
    lowered = lower_model(model, positional(example_inputs), dict(example_kwargs or {}), options)
    return estimate_graph(lowered.graph, options.target, options.threads)


@dataclass(frozen=True)
class Lowered:
    """A model after all passes: what code generation gets."""

    graph: Graph
    signature: Signature
    states: tuple[State, ...] = ()


def compile_program(
    model: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Options,
    *,
    dynamic_shapes: Any = None,
    name: str = "model",
    initial: dict[str, Constant] | None = None,
) -> Callee:
    """``model`` for arguments like ``args`` and ``kwargs``, as something to call: an Executable, or when PyTorch has to run a part of it, a
    SegmentedExecutable, with a warning that says which.

    ``initial`` holds the first contents of the model's states as its first program has them, and is completed with those of this program:
    when a further one is compiled, a call may have changed them.

    Raises OptionError (a precision for a module that there is not), ExportError, and with ``options.strict`` UnsupportedOpError (the
    model), LoweringError or BuildError (code generation) or PassError (a fault of mlc).
    """
    with collection_paused():
        exported = _exported(model, args, kwargs, options, dynamic_shapes)
        return compile_exported(exported, options, name=name, initial=initial)


def _exported(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, dynamic_shapes: Any = None) -> Exported:
    """``model`` as an exported program that ``options`` fit."""
    from .frontend import export_model
    from .frontend.location import module_paths

    exported = export_model(model, args, kwargs, dynamic_shapes)
    options.precision.check_modules(module_paths(exported.program.graph))
    return exported


def compile_exported(exported: Exported, options: Options, *, name: str = "model", initial: dict[str, Constant] | None = None) -> Callee:
    """An exported program, in our operation set, as something to call; see :func:`compile_program`. It may be changed."""
    from .division import Division, divide

    known = initial if initial is not None else {}

    def generate(imported: Imported) -> Executable:
        for state in imported.states:
            if state.name not in known or known[state.name].type != state.initial.type:
                known[state.name] = state.initial
        key = None
        samples = flat_samples(options.calibration, exported, imported)
        if is_cacheable(options):
            states = [(state.name, known[state.name]) for state in imported.states]
            key = program_key(imported, states, options, name, calibration=digest(samples))
            if (found := find_program(key)) is not None:
                if options.progress is not None:
                    kernels = len({call.symbol for call in found[0].calls})
                    options.progress(kernels, kernels, name)
                return executable_for(*found)
        from .codegen.assembly import assemble

        lowered = lower_imported(imported, options, samples)
        assembled = assemble(
            lowered.graph,
            options.target,
            lowered.signature,
            config_chooser(options),
            threads=options.threads,
            numerics=options.numerics,
            name=name,
            progress=options.progress,
            states=[(state.name, known[state.name]) for state in lowered.states],
        )
        if key is not None:
            keep_program(key, assembled)
        return executable_for(assembled.program, assembled.library, assembled.weights)

    # PyTorch is at hand only where this process runs.
    made = divide(exported, generate, strict=options.strict or options.target.kind is not Kind.CPU)
    if not isinstance(made, Division):
        return made
    from .plan import segmented

    if made.fallback:
        warn_fallback(name, made.fallback)

    def compile_again(part: Exported) -> Callee:
        return compile_exported(part, options, name=name)

    return segmented(exported, made, compile_again, name=name, target=str(options.target))


def lower_model(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options) -> Lowered:
    """``model`` as a graph of fused nodes: the front end, then every pass."""
    from .frontend import import_model

    return lower_imported(import_model(model, args, kwargs), options)


def lower_imported(imported: Imported, options: Options, samples: FlatSamples = ()) -> Lowered:
    """An imported graph after every pass. ``samples`` are the calibration's, of the graph's inputs."""
    from .passes import default_pipeline

    pipeline = options.pipeline or default_pipeline(options.target, sparsity=options.sparsity)
    graph = pipeline.run(imported.graph, pass_context(options, samples), options.instruments)
    return Lowered(graph, imported.signature, imported.states)


def pass_context(options: Options, samples: FlatSamples = ()) -> Context:
    """What passes may ask about this compilation."""
    from .costmodel import CostOracle
    from .passes import Context
    from .passes.acceptance import template_takes

    return Context(
        target=options.target,
        threads=options.threads,
        numerics=options.numerics,
        precision=options.precision,
        calibration=samples,
        cost=CostOracle(options.target, options.threads, numerics=options.numerics),
        evaluator=HostEvaluator(),
        takes=functools.partial(template_takes, kind=options.target.kind),
    )


def config_chooser(options: Options) -> Choose:
    """Picks configs from the tuning database, else by the cost model, else the template's default."""
    from .autotune.choose import chooser

    return chooser(options.database)


def _require_default(name: str, value: Any, default: Any, remedy: str) -> None:
    if value != default:
        raise OptionError(f"{name}={value!r} is not supported by this version of mlc; {remedy}")


def _is_exported(model: Any) -> bool:
    return type(model).__name__ == "ExportedProgram"


def _callable(model: Any) -> Callable[..., Any]:
    """What a compiled model falls back to: the model itself, or the module of an ExportedProgram."""
    if _is_exported(model):
        module: Callable[..., Any] = model.module()
        return module
    if not callable(model):
        raise OptionError(f"cannot compile a {type(model).__name__}; give an nn.Module, a function, a GraphModule or an ExportedProgram")
    return model  # type: ignore[no-any-return]
