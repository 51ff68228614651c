"""Recurrent layers: one loop over time for each layer and direction, with the input's share of all gates computed before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ...ir import GraphBuilder, TensorType, Value
from ..conversion import Conversion, static
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten

Step: TypeAlias = "Callable[[GraphBuilder, Value, Sequence[Value], _Weights], Sequence[Value]]"
"""``step(builder, gates, states, weights)``: the next states, from the input's share of the gates and the states before. The first
state is the output of the layer."""


@dataclass(frozen=True)
class _Weights:
    """Parameters of a layer in one direction, named as in PyTorch: ``weight_ih`` [gates, input], ``weight_hh`` [gates, hidden],
    ``bias_ih`` and ``bias_hh`` [gates] or None, ``weight_hr`` [projected, hidden] or None."""

    weight_ih: Value
    weight_hh: Value
    bias_ih: Value | None = None
    bias_hh: Value | None = None
    weight_hr: Value | None = None

    @property
    def recurrent(self) -> list[Value]:
        """What a step reads."""
        return [value for value in (self.weight_hh, self.bias_hh, self.weight_hr) if value is not None]

    def inside(self, builder: GraphBuilder) -> _Weights:
        """The parameters as further inputs of a body, in the order of :attr:`recurrent`."""
        weight_hh = builder.input(self.weight_hh.type)
        bias_hh = None if self.bias_hh is None else builder.input(self.bias_hh.type)
        weight_hr = None if self.weight_hr is None else builder.input(self.weight_hr.type)
        return _Weights(weight_hh, weight_hh, None, bias_hh, weight_hr)


def _linear(builder: GraphBuilder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    return builder.call("linear", x, weight, *([] if bias is None else [bias]))


def _parts(builder: GraphBuilder, gates: Value, count: int) -> list[Value]:
    """``gates`` cut into ``count`` equal parts along the last axis."""
    axis = gates.tensor.rank - 1
    width = static(gates.tensor.shape[axis], "the hidden size") // count
    return [builder.call("slice", gates, axis=axis, start=i * width, stop=(i + 1) * width, step=1) for i in range(count)]


def _lstm_step(builder: GraphBuilder, gates: Value, states: Sequence[Value], weights: _Weights) -> Sequence[Value]:
    h, c = states
    call = builder.call
    total = call("add", gates, _linear(builder, h, weights.weight_hh, weights.bias_hh))
    i, f, g, o = _parts(builder, total, 4)
    c = call("add", call("mul", call("sigmoid", f), c), call("mul", call("sigmoid", i), call("tanh", g)))
    h = call("mul", call("sigmoid", o), call("tanh", c))
    return (h if weights.weight_hr is None else _linear(builder, h, weights.weight_hr)), c


def _gru_step(builder: GraphBuilder, gates: Value, states: Sequence[Value], weights: _Weights) -> Sequence[Value]:
    (h,) = states
    call = builder.call
    recurrent = _linear(builder, h, weights.weight_hh, weights.bias_hh)
    (xr, xz, xn), (hr, hz, hn) = (_parts(builder, value, 3) for value in (gates, recurrent))
    r = call("sigmoid", call("add", xr, hr))
    z = call("sigmoid", call("add", xz, hz))
    n = call("tanh", call("add", xn, call("mul", r, hn)))
    return (call("add", n, call("mul", z, call("sub", h, n))),)


def _rnn_step(activation: str) -> Step:
    def step(builder: GraphBuilder, gates: Value, states: Sequence[Value], weights: _Weights) -> Sequence[Value]:
        (h,) = states
        recurrent = _linear(builder, h, weights.weight_hh, weights.bias_hh)
        return (builder.call(activation, builder.call("add", gates, recurrent)),)

    return step


def _input_gates(c: Conversion, x: Value, weights: _Weights, merge_biases: bool) -> tuple[Value, _Weights]:
    """The input's share of the gates, [..., gates], and the weights that are left for the steps."""
    bias = weights.bias_ih
    if merge_biases and bias is not None and weights.bias_hh is not None:
        bias = c.call("add", bias, weights.bias_hh)
        weights = _Weights(weights.weight_ih, weights.weight_hh, None, None, weights.weight_hr)
    return _linear(c.builder, x, weights.weight_ih, bias), weights


def _direction(
    c: Conversion, x: Value, states: Sequence[Value], weights: _Weights, step: Step, merge_biases: bool, reverse: bool
) -> tuple[Value, list[Value]]:
    """One layer in one direction over ``x`` [time, batch, input]: its outputs [time, batch, hidden], and the last states."""
    gates, weights = _input_gates(c, x, weights, merge_biases)
    body = GraphBuilder("step", c.builder.symbols)
    body.location = c.builder.location
    before = [body.input(state.type) for state in states]
    piece = body.input(TensorType(gates.tensor.dtype, gates.tensor.shape[1:]))
    after = step(body, piece, before, weights.inside(body))
    node = c.builder.add(
        "loop",
        *states,
        gates,
        *weights.recurrent,
        attributes={"trips": gates.tensor.shape[0], "carried": len(states), "sliced": 1, "reverse": reverse},
        regions=[body.finish([*after, after[0]])],
    )
    return node.outputs[len(states)], list(node.outputs[: len(states)])


def _layers(
    c: Conversion,
    x: Value,
    initial: Sequence[Value],
    parameters: Sequence[Value],
    step: Step,
    *,
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    merge_biases: bool,
) -> tuple[Value, ...]:
    """All layers: the last one's outputs, and the last states of each layer and direction, stacked like ``initial``."""
    directions = 2 if bidirectional else 1
    per_direction = len(parameters) // (layers * directions)
    if batch_first:
        x = c.permute(x, (1, 0, 2))
    last: list[list[Value]] = [[] for _ in initial]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            position = layer * directions + direction
            given = list(parameters[position * per_direction : (position + 1) * per_direction])
            weights = _weights(given, has_biases)
            states = [c.reshape(c.slice(state, 0, position, position + 1), state.tensor.shape[1:]) for state in initial]
            output, final = _direction(c, x, states, weights, step, merge_biases, reverse=direction == 1)
            outputs.append(output)
            for values, value in zip(last, final, strict=True):
                values.append(c.reshape(value, (1, *value.tensor.shape)))
        x = outputs[0] if len(outputs) == 1 else c.call("concat", *outputs, axis=2)
    stacked = [values[0] if len(values) == 1 else c.call("concat", *values, axis=0) for values in last]
    return (c.permute(x, (1, 0, 2)) if batch_first else x), *stacked


def _weights(given: Sequence[Value], has_biases: bool) -> _Weights:
    weight_ih, weight_hh, *rest = given
    biases = rest[:2] if has_biases else [None, None]
    projection = rest[2:] if has_biases else rest
    return _Weights(weight_ih, weight_hh, biases[0], biases[1], projection[0] if projection else None)


def _require_evaluation(dropout: float, train: bool) -> None:
    if train and dropout > 0:
        raise Unsupported("dropout between recurrent layers is active: call model.eval() before compiling")


@converts(aten.lstm.input)
def lstm(
    c: Conversion,
    x: Value,
    hx: Sequence[Value],
    params: Sequence[Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    _require_evaluation(dropout, train)
    options = {"has_biases": has_biases, "bidirectional": bidirectional, "batch_first": batch_first}
    return _layers(c, x, hx, params, _lstm_step, layers=num_layers, merge_biases=True, **options)


def _single_state(step: Step, merge_biases: bool) -> Callable[..., tuple[Value, ...]]:
    def convert(
        c: Conversion,
        x: Value,
        hx: Value,
        params: Sequence[Value],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Value, ...]:
        _require_evaluation(dropout, train)
        options = {"has_biases": has_biases, "bidirectional": bidirectional, "batch_first": batch_first}
        return _layers(c, x, [hx], params, step, layers=num_layers, merge_biases=merge_biases, **options)

    return convert


converts(aten.gru.input)(_single_state(_gru_step, merge_biases=False))
converts(aten.rnn_tanh.input)(_single_state(_rnn_step("tanh"), merge_biases=True))
converts(aten.rnn_relu.input)(_single_state(_rnn_step("relu"), merge_biases=True))


@converts(aten.lstm_cell.default)
def lstm_cell(c: Conversion, x: Value, hx: Sequence[Value], *parameters: Value | None) -> tuple[Value, ...]:
    gates, weights = _input_gates(c, x, _Weights(*parameters), merge_biases=True)  # type: ignore[arg-type]
    return tuple(_lstm_step(c.builder, gates, hx, weights))


def _cell(step: Step, merge_biases: bool) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, hx: Value, *parameters: Value | None) -> Value:
        gates, weights = _input_gates(c, x, _Weights(*parameters), merge_biases)  # type: ignore[arg-type]
        return step(c.builder, gates, [hx], weights)[0]

    return convert


converts(aten.gru_cell.default)(_cell(_gru_step, merge_biases=False))
converts(aten.rnn_tanh_cell.default)(_cell(_rnn_step("tanh"), merge_biases=True))
converts(aten.rnn_relu_cell.default)(_cell(_rnn_step("relu"), merge_biases=True))
