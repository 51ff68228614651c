"""Modes for layers under an error budget: the knapsack, what is decided together, simulated errors, repair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from golden import CONTEXT

from mlc.codegen.precision import MODES, Mode, Precision
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, Location, TensorType, Value, interpret
from mlc.passes import Context, Pipeline
from mlc.passes.auto_precision import (
    Assignment,
    Candidate,
    Layer,
    Simulation,
    cheapest,
    layers_of,
    lowered_error,
    relative_error,
    sensitivities_of,
)

EVALUATING = Context(CONTEXT.target, threads=2, takes=CONTEXT.takes, evaluator=interpret)


def linear(builder: GraphBuilder, x: Value, features: int, module: str, spread: float = 1.0) -> Value:
    generator = np.random.default_rng(len(module))
    weight = generator.standard_normal((features, x.tensor.static_shape[-1])).astype(np.float32) / x.tensor.static_shape[-1] ** 0.5
    weight[0] *= spread
    return builder.call("linear", x, builder.constant(ArrayConstant(weight)), location=Location(module, "", ""))


def chain() -> Graph:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (4, 64)), "x")
    hidden = builder.call("relu", linear(builder, x, 64, "first"))
    hidden = builder.call("relu", linear(builder, hidden, 64, "second."))
    return builder.finish([linear(builder, hidden, 64, "third..")])


def ill_conditioned() -> Graph:
    """Logits that are the small difference of large, nearly equal numbers."""
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (4, 64)), "x")
    weight = np.random.default_rng(7).standard_normal((64, 64)).astype(np.float32)
    other = weight + np.random.default_rng(8).standard_normal((64, 64)).astype(np.float32) * 1e-4
    left = builder.call("linear", x, builder.constant(ArrayConstant(weight)), location=Location("left", "", ""))
    right = builder.call("linear", builder.call("neg", x), builder.constant(ArrayConstant(other)), location=Location("right", "", ""))
    return builder.finish([builder.call("add", left, right)])


def samples(count: int, seed: int = 0) -> list[list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [[generator.standard_normal((4, 64)).astype(np.float32)] for _ in range(count)]


def by_bits(layer: Layer, mode: Mode) -> float:
    """The fewer bits the quicker."""
    order = ["fp32", "bf16", "fp16", "w8", "mxfp8", "mxfp6", "int8", "codebook4", "mxfp4", "w4", "codebook3", "w3", "w2", "ternary"]
    return 1.0 - 0.06 * order.index(mode.name)


def exhaustive(layers: Sequence[Sequence[Candidate]], tolerance: float) -> float:
    fitting = (each for each in itertools.product(*layers) if math.fsum(item.error**2 for item in each) <= tolerance**2)
    return min(sum(item.seconds for item in each) for each in fitting)


@pytest.mark.parametrize("seed", range(8))
def test_the_knapsack_is_solved_exactly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    layers = [
        [Candidate("fp32", 1.0, 0.0), *(Candidate(f"m{number}", *generator.random(2)) for number in range(3))]
        for _ in range(generator.integers(1, 6))
    ]
    picked = cheapest(layers, 0.6)
    assert math.fsum(item.error**2 for item in picked) <= 0.6**2
    assert sum(item.seconds for item in picked) == pytest.approx(exhaustive(layers, 0.6), rel=1e-5)
    assert all(item in candidates for item, candidates in zip(picked, layers, strict=True))


def test_infinite_errors_and_no_layers() -> None:
    assert cheapest([], 0.1) == []
    assert [item.mode for item in cheapest([[Candidate("fp32", 1.0, 0.0), Candidate("w2", 0.1, math.inf)]], 0.1)] == ["fp32"]


def test_layers_over_one_value_and_of_one_module_are_decided_together() -> None:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (4, 64)), "x")
    query, key = linear(builder, x, 64, "query"), linear(builder, x, 64, "key")
    again = linear(builder, builder.call("mul", query, key), 32, "query")
    graph = builder.finish([linear(builder, again, 16, "out")])
    assert [layer.modules for layer in layers_of(graph)] == [("query", "key"), ("out",)]
    assert layers_of(graph)[0].parameters == 64 * 64 * 2 + 32 * 64


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("mode", ["w8", "w4", "ternary", "mxfp4", "bf16", "int8"])
def test_a_simulated_layer_computes_what_its_passes_make_of_it(mode: str, calibrated: bool) -> None:
    """Against the interpreter on the graph after the passes that realise the mode, with ranges from the same samples."""
    graph, given = chain(), samples(2)
    ctx = replace(EVALUATING, calibration=given if calibrated else ())
    layer = layers_of(graph)[1]
    simulation = Simulation(graph, layers_of(graph), given, ctx)
    changes = simulation.changes(layer, MODES[mode])
    assert changes is not None
    precision = Precision.of({"second.": mode})
    expected = lowered_error(graph, precision, given, ctx)
    assert simulation.error([changes]) == pytest.approx(expected, rel=1e-3)
    realised = Pipeline.parse("encode-weights,narrow-operands").run(graph, replace(ctx, precision=precision))
    by_hand = max(relative_error(interpret(realised, sample), interpret(graph, sample)) for sample in given)
    assert expected == pytest.approx(by_hand) and 1e-4 < by_hand < 1.0


def test_several_layers_together_are_right_to_first_order() -> None:
    graph, given = chain(), samples(2)
    layers = layers_of(graph)
    simulation = Simulation(graph, layers, given, EVALUATING)
    changes = [change for layer in layers if (change := simulation.changes(layer, MODES["w8"])) is not None]
    assert len(changes) == len(layers)
    assert simulation.error(changes) == pytest.approx(lowered_error(graph, Precision.of("w8"), given, EVALUATING), rel=0.05)


def test_decisions_are_those_of_running_the_lowered_model_for_each_layer_and_mode() -> None:
    """The plain way: passes applied and the model run anew for every candidate, all candidates in one knapsack."""
    graph, given = chain(), samples(1)
    layers, tolerance = layers_of(graph), 0.05
    candidates = [
        [
            Candidate(name, by_bits(layer, mode), lowered_error(graph, Precision.of({layer.modules[0]: name}), given, EVALUATING))
            for name, mode in MODES.items()
        ]
        for layer in layers
    ]
    plain = [candidate.mode for candidate in cheapest(candidates, tolerance)]
    assert len(set(plain) - {"fp32"}) >= 1
    found = sensitivities_of(graph, given, [], EVALUATING, tolerance, seconds=by_bits)
    assert [candidate.mode for candidate in cheapest(found.candidates, tolerance)] == plain


def chosen(graph: Graph, calibrating: list[list[np.ndarray]], held_out: list[list[np.ndarray]], tolerance: float) -> Assignment:
    return sensitivities_of(graph, calibrating, held_out, EVALUATING, tolerance, seconds=by_bits).choose(tolerance)


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 0.003])
def test_the_tolerance_holds_where_nothing_was_calibrated(tolerance: float) -> None:
    graph = chain()
    found = chosen(graph, samples(2), samples(2, 1), tolerance)
    assert found.error <= tolerance and found.lowered
    realised = replace(EVALUATING, precision=found.precision, calibration=samples(2))
    lowered = Pipeline.parse("encode-weights,narrow-operands").run(graph, realised)
    for sample in samples(4, 2):
        assert relative_error(interpret(lowered, sample), interpret(graph, sample)) <= 1.2 * tolerance


def test_more_tolerance_is_never_slower() -> None:
    graph = chain()
    times = [
        sum(layer.seconds for layer in chosen(graph, samples(1), samples(1, 1), tolerance).layers) for tolerance in (1e-3, 1e-2, 1e-1, 0.5)
    ]
    assert times == sorted(times, reverse=True) and times[0] > times[-1]


def test_ill_conditioned_results_leave_fp32() -> None:
    found = chosen(ill_conditioned(), samples(2), samples(2, 1), 1e-2)
    assert not found.lowered and found.error == 0.0 and not found.precision.rules
    assert min(layer.least_error for layer in found.layers if layer.least_error is not None) > 0.0
    assert any(layer.least_error is not None and layer.least_error > 1e-2 for layer in found.layers)


def test_repair_promotes_what_errs_most_on_held_out_samples() -> None:
    """Calibration shows only small numbers in the first feature; what is held out has large ones, where a mode errs."""
    graph = chain()
    calm, wild = samples(1), samples(1, 1)
    calm[0][0][:, 0] = 0
    wild[0][0][:, 0] = 1e3
    loose = chosen(graph, calm, calm, 0.05)
    strict = chosen(graph, calm, wild, 0.05)
    assert strict.error <= 0.05
    assert len(strict.lowered) <= len(loose.lowered)


@pytest.mark.parametrize(
    ("result", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([math.nan, 1.0], [2.0, 1.0], math.inf),
        ([1.0, 0.0], [0.0, 0.0], math.inf),
    ],
)
def test_errors(result: list[float], expected: list[float], error: float) -> None:
    assert relative_error([np.array(result, np.float32)], [np.array(expected, np.float32)]) == pytest.approx(error)


def test_errors_of_integers_are_shares() -> None:
    assert relative_error([np.array([1, 2, 3, 4])], [np.array([1, 2, 3, 5])]) == 0.25
