"""Random torch programs: source text of a function over tensors, and of the module that it may call layers of.

A program grows line by line; each line is run eagerly as it is drawn, and dropped when torch raises. The text is what a reader of a
failure wants to see, and what makes it reproducible.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import Error, ExportError, UnsupportedOpError
from ..frontend import import_model
from .oracle import Failure, Outcome, Settings, check_graph
from .reference import Reference, reference_of
from .steps.drawing import EXTENTS

_MAX_ELEMENTS = 4000
_LARGEST = 1e4

# {x}, {y}: floats; {n}: integers; {b}: truth values; {a}: an axis of {x}; {k}: a small number; {s}: a scalar.
_LINES_TEXT = """
torch.relu({x}) ; torch.tanh({x}) ; torch.sigmoid({x}) ; torch.exp({x}.clamp(max=5)) ; torch.sin({x}) * torch.cos({y}) ;
F.gelu({x}) ; F.silu({x}) ; F.softplus({x}) ; F.hardswish({x}) ; F.leaky_relu({x}, {s}) ; F.elu({x}) ; F.mish({x}) ;
torch.sqrt({x}.abs() + 0.1) ; torch.rsqrt({x}.square() + 0.5) ; torch.log({x}.abs() + 0.5) ; torch.log1p({x}.abs()) ; {x} + {y} ;
{x} - {y} ; {x} * {y} ; {x} / ({y}.abs() + 0.5) ; {x} * {s} ; {s} - {x} ; {x} + {n} ; {x} * {b} ; {n} * {s} ;
torch.maximum({x}, {y}) ; torch.minimum({x}, {y}) ; {x}.clamp(-1, 1) ; {x}.clamp(min={y}) ; torch.where({b}, {x}, {y}) ;
torch.where({x} > {y}, {x}, {s}) ; {x}.masked_fill({b}, {s}) ; torch.pow({x}.abs() + 0.2, {s}) ; {x} ** 2 ; torch.erf({x}) ;
torch.addcmul({x}, {x}, {y}, value={s}) ; torch.lerp({x}, {y}, 0.3) ; {x}.floor() ; {x}.round() ; torch.fmod({x}, 1.7) ;
torch.remainder({x}, 1.3) ; torch.floor_divide({n}, 3) ; {n} % 5 ; {n} // 2 ; {n} & 3 ; {n} | 4 ; {n} ^ 1 ; ~{n} ; {n} + {n} ;
{n} * {n} ; {x} > {y} ; {x} <= {s} ; {n} == 2 ; {b} & ({x} > 0) ; {b} | ~{b} ; torch.logical_xor({b}, {b}) ; {n}.bool() ;
{x}.to(torch.int64) ; {n}.float() ; {b}.float() ; {b}.int() ; {x}.double() ; {n}.to(torch.int32) ; {n}.to(torch.uint8) ;
{x}.isnan() ; {x}.sum({a}) ; {x}.mean({a}, keepdim=True) ; {x}.amax({a}) ; {x}.amin({a}, keepdim=True) ; {x}.sum() ; {x}.mean() ;
{x}.max() ; {x}.var({a}, unbiased=False) ; {x}.std({a}) ; {x}.norm(dim={a}) ; {x}.prod({a}) ; {x}.argmax({a}) ;
{x}.argmin({a}, keepdim=True) ; {b}.any() ; {b}.all(0) ; {n}.sum() ; {n}.max() ; {x}.cumsum({a}) ; {n}.cumsum(0) ;
torch.logsumexp({x}, {a}) ; F.softmax({x}, {a}) ; F.log_softmax({x}, {a}) ; F.normalize({x}, dim={a}) ;
F.layer_norm({x}, {x}.shape[-1:]) ; {x}.t() ; {x}.transpose(0, -1) ; {x}.mT ; {x}.flatten() ; {x}.flatten(1) ; {x}.unsqueeze({a}) ;
{x}.squeeze() ; {x}.reshape(-1, {x}.shape[-1]) ; {x}.permute(*reversed(range({x}.dim()))) ; {x}.expand({k}, *{x}.shape) ;
{x}.repeat({k}, *[1] * ({x}.dim() - 1)) ; {x}.flip({a}) ; {x}.roll(1, {a}) ; {x}[..., 1:] ; {x}[..., ::2] ; {x}[0] ; {x}[..., -1] ;
{x}.narrow({a}, 0, 1) ; {x}.select({a}, -1) ; torch.cat([{x}, {y}], {a}) ; torch.stack([{x}, {x} * 2], {a}) ;
{x}.chunk(2, {a})[0] ; {x}.split(1, {a})[-1] ; {x}.unbind({a})[0] ; F.pad({x}, (1, 2)) ; F.pad({x}, (1, 0, 0, 2), value={s}) ;
{x}.tril() ; {x}.triu(1) ; {x}.diagonal(0, -2, -1) ; {x} @ {y} ; {x} @ {x}.mT ; torch.einsum('...i,...j->...ij', {x}, {y}) ;
torch.bmm({x}, {x}.mT) ; torch.outer({x}.flatten()[:7], {y}.flatten()[:5]) ; {x}.sort({a}).values ; {x}.topk(1, {a}).values ;
torch.gather({x}, {a}, {x}.argmax({a}, keepdim=True)) ; {x}.index_select({a}, self.index) ; {x}[self.index] ;
{x}.scatter({a}, torch.zeros_like({x}, dtype=torch.int64), 2.0) ; F.one_hot({n}.clamp(0, 3), 4) ; torch.zeros_like({x}) ;
torch.ones({k}, device={x}.device) + {s} ; torch.arange({k}) * {x} ; {x}.new_full((2, {k}), {s}) ; self.linear({x}) ;
self.linear(F.relu({x})) ; self.norm({x}) ; self.embed({n}.clamp(0, 9)) ; self.rms({x}) ; {x} * self.scale ; self.conv({x}) ;
self.bn(self.conv({x})) ; F.relu(self.depthwise({x})) ; self.gn({x}) ; F.max_pool2d({x}, 2) ; F.avg_pool2d({x}, 2, 1) ;
F.adaptive_avg_pool2d({x}, 1) ; F.interpolate({x}, scale_factor=2) ; self.up({x}) ; F.pixel_shuffle({x}, 2) ;
F.max_pool2d({x}, 3, 2, 1, ceil_mode=True) ; F.unfold({x}, 2) ; F.scaled_dot_product_attention({x}, {y}, {y}) ;
F.scaled_dot_product_attention({x}, {x}, {x}, is_causal=True)
"""
_LINES = [line.strip() for line in _LINES_TEXT.split(" ;")]


class Layers(torch.nn.Module):
    """The layers that programs call; ``width`` is the last axis of the first input, ``channels`` its second."""

    def __init__(self, width: int, channels: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.linear = torch.nn.Linear(width, int(EXTENTS[seed % len(EXTENTS)]))
            self.norm = torch.nn.LayerNorm(width)
            self.rms = torch.nn.RMSNorm(width)
            self.embed = torch.nn.Embedding(10, width)
            self.scale = torch.nn.Parameter(torch.randn(width))
            self.conv = torch.nn.Conv2d(channels, 8, 3, stride=1 + seed % 2, padding=1)
            self.bn = torch.nn.BatchNorm2d(8)
            self.depthwise = torch.nn.Conv2d(channels, channels, 3, padding=seed % 2, groups=channels)
            self.gn = torch.nn.GroupNorm(1, channels)
            self.up = torch.nn.ConvTranspose2d(channels, 4, 2, stride=2)
            for parameter in self.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
            self.bn.running_var = torch.rand(8) + 0.5
            self.bn.running_mean = torch.randn(8) * 0.3
        self.register_buffer("index", torch.tensor([0, 0]))


@dataclass(frozen=True)
class TorchProgram:
    """A module's forward as lines ``v3 = ...`` over ``inputs`` x0, x1, ..., returning the values ``results``."""

    lines: tuple[str, ...]
    results: tuple[str, ...]
    inputs: tuple[torch.Tensor, ...]
    width: int
    channels: int
    seed: int

    def module(self) -> torch.nn.Module:
        """The program as a module in eval mode."""
        space: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "Layers": Layers}
        exec(compile(self.source(), "<random program>", "exec"), space)
        module: torch.nn.Module = space["Program"](self.width, self.channels, self.seed)
        return module.eval()

    def source(self) -> str:
        """The module's text."""
        names = ", ".join(f"x{number}" for number in range(len(self.inputs)))
        body = "".join(f"        {line}\n" for line in self.lines)
        inputs = "".join(f"# x{number}: {tensor.dtype} {list(tensor.shape)}\n" for number, tensor in enumerate(self.inputs))
        head = f"{inputs}class Program(Layers):  # Layers({self.width}, {self.channels}, {self.seed})\n    def forward(self, {names}):\n"
        # Copies: a result that is an argument is returned as itself, and no output of the program.
        return f"{head}{body}        return {', '.join(f'({result}).clone()' for result in self.results)},\n"


def random_program(generator: np.random.Generator, length: int | None = None) -> TorchProgram:
    """A program of about ``length`` lines (default: up to 12) that eager PyTorch runs."""
    inputs = _random_tensors(generator)
    width, channels = _layer_sizes(inputs)
    seed = int(generator.integers(1 << 16))
    layers = Layers(width, channels, seed).eval()
    values: dict[str, torch.Tensor] = {f"x{number}": tensor for number, tensor in enumerate(inputs)}
    lines: list[str] = []
    wanted = length or int(generator.integers(2, 12))
    for _ in range(wanted * 12):
        if len(lines) == wanted:
            break
        text = _fill(generator, _LINES[int(generator.integers(len(_LINES)))], values)
        if text is None:
            continue
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = eval(text, {"torch": torch, "F": torch.nn.functional, "self": layers, **values})
        except Exception:
            continue
        if not isinstance(result, torch.Tensor) or not _usable(result):
            continue
        name = f"v{len(lines)}"
        lines.append(f"{name} = {text}")
        values[name] = result
    return _without_unused(TorchProgram(tuple(lines), _results(lines, values), inputs, width, channels, seed))


def _random_tensors(generator: np.random.Generator) -> tuple[torch.Tensor, ...]:
    rank = int(generator.choice([0, 1, 2, 2, 3, 3, 4, 4]))
    while True:
        shape = [int(EXTENTS[int(generator.integers(len(EXTENTS)))]) for _ in range(rank)]
        if np.prod(shape) <= 1500:
            break
    tensors = [_floats(generator, shape)]
    other = [1 if generator.random() < 0.25 else extent for extent in shape][int(generator.random() < 0.2) :]
    tensors.append(_floats(generator, other))
    tensors.append(torch.from_numpy(np.asarray(generator.integers(-3, 10, shape))))
    tensors.append(torch.from_numpy(np.asarray(generator.random(shape) < 0.5)))
    return tuple(tensors)


def _floats(generator: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(generator.standard_normal(shape), dtype=np.float32))


def _layer_sizes(inputs: Sequence[torch.Tensor]) -> tuple[int, int]:
    shape = inputs[0].shape
    return (shape[-1] if len(shape) else 3), (shape[1] if len(shape) == 4 else 3)


def _usable(tensor: torch.Tensor) -> bool:
    if tensor.numel() > _MAX_ELEMENTS or tensor.is_complex() or tensor.dtype in (torch.float16, torch.bfloat16):
        return False
    return not tensor.is_floating_point() or bool((tensor.abs() < _LARGEST).all()) or tensor.numel() == 0


_HOLE = re.compile(r"\{(\w)\}")


def _fill(generator: np.random.Generator, template: str, values: dict[str, torch.Tensor]) -> str | None:
    """The template with names and numbers for its holes; None when no value fits one."""
    names = list(values)
    kinds: dict[str, Callable[[torch.Tensor], bool]] = {
        "x": lambda tensor: tensor.is_floating_point(),
        "y": lambda tensor: tensor.is_floating_point(),
        "n": lambda tensor: tensor.dtype in (torch.int64, torch.int32, torch.uint8),
        "b": lambda tensor: tensor.dtype is torch.bool,
    }
    chosen: dict[str, str] = {}
    for letter, fits in kinds.items():
        if "{" + letter + "}" in template:
            fitting = [name for name in names if fits(values[name])]
            if not fitting:
                return None
            recent = fitting[-3:] if generator.random() < 0.7 else fitting
            chosen[letter] = recent[int(generator.integers(len(recent)))]
    rank = values[chosen["x"]].dim() if "x" in chosen else 1
    chosen["a"] = str(int(generator.integers(-max(rank, 1), max(rank, 1))))
    chosen["k"] = str(int(generator.integers(1, 4)))
    chosen["s"] = str((0.5, 2.0, -1.0, 0.1, 3)[int(generator.integers(5))])
    return _HOLE.sub(lambda match: chosen[match[1]], template)


def _results(lines: Sequence[str], values: dict[str, torch.Tensor]) -> tuple[str, ...]:
    used = {word for line in lines for word in re.findall(r"\b[vx]\d+\b", line.partition(" = ")[2])}
    leaves = [f"v{number}" for number in range(len(lines)) if f"v{number}" not in used]
    return tuple(leaves[-4:]) or ("x0 * 1.0",)


def _without_unused(program: TorchProgram) -> TorchProgram:
    """Only the lines that the results need."""
    needed = {word for text in program.results for word in re.findall(r"\b[vx]\d+\b", text)}
    kept = []
    for line in reversed(program.lines):
        name, _, text = line.partition(" = ")
        if name in needed:
            kept.append(line)
            needed.update(re.findall(r"\b[vx]\d+\b", text))
    return replace(program, lines=tuple(reversed(kept)))


def check_program(program: TorchProgram, settings: Settings) -> tuple[Outcome, Any]:
    """What is wrong with a program, and the imported graph with its inputs (None when import failed).

    The imported graph must compute what eager PyTorch does, in float64 on both sides where that is possible.
    """
    module = program.module()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imported = import_model(module, program.inputs, {})
    except UnsupportedOpError as error:
        return Outcome(refused=str(error).strip().splitlines()[-1].strip()), None
    except ExportError as error:
        return Outcome(refused=f"torch.export: {str(error).splitlines()[0]}"), None
    except Exception as error:
        return Outcome(Failure("import", type(error).__name__, str(error))), None
    inputs = [tensor.numpy() for tensor in program.inputs]
    try:
        reference = reference_of(imported.graph, inputs)
    except Error as error:
        return Outcome(Failure("import", type(error).__name__, str(error))), None
    failure = _against_eager(module, program, reference)
    if failure is not None:
        return Outcome(failure), None
    return check_graph(imported.graph, inputs, settings, reference), (imported.graph, inputs)


def _against_eager(module: torch.nn.Module, program: TorchProgram, reference: Reference) -> Failure | None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eager = [tensor.numpy() for tensor in module(*program.inputs)]
    for value, array in zip(reference.graph.outputs, eager, strict=True):
        if value.tensor.dtype.numpy != array.dtype or value.tensor.static_shape != array.shape:
            return Failure("import", "wrong", f"%{value.name} is {value.type}, in PyTorch {array.dtype}{list(array.shape)}")
    problem = reference.problem(eager, "eager PyTorch, against the imported graph,")
    return Failure("import", "wrong", problem) if problem is not None else None


def reduce_program(program: TorchProgram, failure: Failure, settings: Settings) -> TorchProgram:
    """The program with as few results and lines as show a failure of the same stage and kind."""

    def fails(smaller: TorchProgram) -> bool:
        try:
            return failure.alike(check_program(smaller, settings)[0].failure)
        except Exception:
            return False

    for result in program.results:
        single = _without_unused(replace(program, results=(result,)))
        if len(program.results) > 1 and fails(single):
            program = single
            break
    for line in reversed(program.lines):
        name, _, text = line.partition(" = ")
        for other in dict.fromkeys(re.findall(r"\b[vx]\d+\b", text)):
            renamed = tuple(re.sub(rf"\b{name}\b", other, each) for each in program.lines if each != line)
            results = tuple(re.sub(rf"\b{name}\b", other, each) for each in program.results)
            smaller = _without_unused(replace(program, lines=renamed, results=results))
            if fails(smaller):
                program = smaller
                break
    return program
