"""Reductions, normalisations, data movement and indexing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from op_case import INF, NAN, Case, booleans, case, floats, integers

from mlc.ir import DType


def reduction_cases() -> list[Case]:
    x = floats(2, 3, 4)
    special = np.array([[1.0, NAN, 3.0], [INF, -INF, 2.0], [5.0, 5.0, -0.0]])
    cases = []
    dimensional = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}
    for kind, function in dimensional.items():
        for axes in ((0,), (1, 2), (0, 1, 2)):
            for keepdims in (False, True):
                cases.append(
                    case(
                        "reduce",
                        [x],
                        lambda x, f=function, a=axes, k=keepdims: f(x, a, keepdim=k),
                        kind=kind,
                        axes=axes,
                        keepdims=keepdims,
                    )
                )
        cases.append(case("reduce", [special], lambda x, f=function: f(x, (1,)), kind=kind, axes=(1,)))
        cases.append(case("reduce", [floats(0, 3)], lambda x, f=function: f(x, (1,)), kind=kind, axes=(1,)))
    for kind in ("sum", "mean"):
        cases.append(case("reduce", [floats(2, 0)], lambda x, f=dimensional[kind]: f(x, (1,)), kind=kind, axes=(1,)))
    small = integers(3, 5, dtype=np.int8, low=-128, high=128)
    cases += [
        case("reduce", [floats()], lambda x: x, kind="sum", axes=()),
        case("reduce", [x], lambda x: torch.prod(x, 1), kind="prod", axes=(1,)),
        case("reduce", [small], lambda x: torch.sum(x, 1, dtype=torch.int8), kind="sum", axes=(1,)),
        case("reduce", [small], lambda x: torch.prod(x, 1, dtype=torch.int8), kind="prod", axes=(1,)),
        case("reduce", [small], lambda x: torch.amax(x, 1), kind="max", axes=(1,)),
        case("reduce", [booleans(3, 4)], lambda x: torch.any(x, 1), kind="any", axes=(1,)),
        case("reduce", [booleans(3, 4)], lambda x: torch.all(x, 1, keepdim=True), kind="all", axes=(1,), keepdims=True),
        case("reduce", [special], lambda x: torch.any(x, 1), kind="any", axes=(1,)),
        case("reduce", [booleans(2, 0)], lambda x: torch.all(x, 1), kind="all", axes=(1,)),
    ]
    for kind, function in (("argmax", torch.argmax), ("argmin", torch.argmin)):
        for array in (x[:, :, 0], special, small):
            cases.append(case("reduce", [array], lambda x, f=function: f(x, 1, keepdim=True), kind=kind, axes=(1,), keepdims=True))
    for kind, running in (("sum", torch.cumsum), ("prod", torch.cumprod)):
        cases.append(case("scan", [x], lambda x, f=running: f(x, 1), kind=kind, axis=1))
        cases.append(case("scan", [special], lambda x, f=running: f(x, -1), kind=kind, axis=-1))
        cases.append(case("scan", [small], lambda x, f=running: f(x, 0, dtype=torch.int8), kind=kind, axis=0))
        cases.append(case("scan", [floats(0)], lambda x, f=running: f(x, 0), kind=kind, axis=0))
    for kind, extreme in (("max", torch.cummax), ("min", torch.cummin)):
        for array in (x, special, small):
            cases.append(case("scan", [array], lambda x, f=extreme: f(x, 1)[0], kind=kind, axis=1))
    for array in (x, special, np.array([-np.inf, -np.inf, 2.0, 800.0, np.inf, np.inf])):
        cases.append(case("scan", [array], lambda x: torch.logcumsumexp(x, -1), kind="logsumexp", axis=-1))
    return cases


def normalisation_cases() -> list[Case]:
    x = floats(2, 6, 5)
    masked = np.array([[1.0, -INF, 2.0], [-INF, -INF, -INF], [INF, 1.0, 2.0], [NAN, 1.0, 2.0], [900.0, 1.0, -900.0]])
    weight, bias, mean, variance = floats(6), floats(6, seed=1), floats(6, seed=2), floats(6, seed=3, positive=True)
    last, last_bias, both = floats(5), floats(5, seed=1), floats(6, 5)
    cases = []
    for op, function in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        for axis in (0, 2, -2):
            cases.append(case(op, [x], lambda x, f=function, a=axis: f(x, a), axis=axis))
        cases.append(case(op, [masked], lambda x, f=function: f(x, 1), axis=1))
        cases.append(case(op, [floats(2, 0)], lambda x, f=function: f(x, 1), axis=1))
    cases += [
        case("layer_norm", [x], lambda x: F.layer_norm(x, (5,))),
        case("layer_norm", [x, last, last_bias], lambda x, w, b: F.layer_norm(x, (5,), w, b, 1e-3), eps=1e-3),
        case("layer_norm", [x, both], lambda x, w: F.layer_norm(x, (6, 5), w), axes=2),
        case("layer_norm", [floats(0, 5), last], lambda x, w: F.layer_norm(x, (5,), w)),
        case("rms_norm", [x], lambda x: F.rms_norm(x, (5,), eps=1e-6)),
        case("rms_norm", [x, last], lambda x, w: F.rms_norm(x, (5,), w, 1e-3), eps=1e-3),
        case("group_norm", [x], lambda x: F.group_norm(x, 3), groups=3),
        case("group_norm", [floats(2, 6), weight], lambda x, w: F.group_norm(x, 2, w), groups=2),
        case("group_norm", [floats(2, 6, 3, 2), weight, bias], lambda x, w, b: F.group_norm(x, 6, w, b, 0.1), groups=6, eps=0.1),
        case("group_norm", [floats(0, 6, 3)], lambda x: F.group_norm(x, 3), groups=3),
        case("batch_norm", [x, mean, variance], lambda x, m, v: F.batch_norm(x, m, v)),
        case(
            "batch_norm",
            [floats(2, 6), mean, variance, weight, bias],
            lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, eps=0.1),
            eps=0.1,
        ),
    ]
    return cases


def movement_cases() -> list[Case]:
    x = floats(2, 3, 4)
    cases = [
        case("reshape", [x], lambda x: x.reshape(4, 6), shape=(4, 6)),
        case("reshape", [floats()], lambda x: x.reshape(1, 1), shape=(1, 1)),
        case("reshape", [floats(0, 3)], lambda x: x.reshape(5, 0), shape=(5, 0)),
        case("reshape", [booleans(1)], lambda x: x.reshape(()), shape=()),
        case("permute", [x], lambda x: x.permute(2, 0, 1), order=(2, 0, 1)),
        case("permute", [x], lambda x: x.permute(-1, 0, 1), order=(-1, 0, 1)),
        case("permute", [floats()], lambda x: x, order=()),
        case("broadcast_to", [floats(3, 1)], lambda x: x.expand(2, 3, 4), shape=(2, 3, 4)),
        case("broadcast_to", [integers()], lambda x: x.expand(2, 0), shape=(2, 0)),
        case("slice", [x], lambda x: x[:, 1:3], axis=1, start=1, stop=3),
        case("slice", [x], lambda x: x[..., 0:4:3], axis=-1, stop=4, step=3),
        case("slice", [x], lambda x: x[1:1], axis=0, start=1, stop=1),
        case("flip", [x], lambda x: x.flip(0, 2), axes=(0, -1)),
        case("flip", [x], lambda x: x, axes=()),
        case("concat", [x, floats(2, 1, 4), floats(2, 0, 4)], lambda *x: torch.cat(x, 1), axis=1),
        case("concat", [booleans(2), booleans(3)], lambda *x: torch.cat(x, -1), axis=-1),
        case("pad", [x], lambda x: F.pad(x, (1, 2, 0, 0, 3, 0), value=-INF), pads=((3, 0), (0, 0), (1, 2)), value=-INF),
        case("pad", [integers(2)], lambda x: F.pad(x, (1, 1), value=7), pads=((1, 1),), value=7),
        case("pad", [booleans(2)], lambda x: F.pad(x, (0, 1)), pads=((0, 1),)),
        case("pad", [floats()], lambda x: x, pads=()),
        case("relayout", [x], lambda x: x),
        case(
            "bitcast", [integers(3, 2, low=-(2**40), high=2**62)], lambda x: x.view(torch.float64), source=DType.INT64, dtype=DType.FLOAT64
        ),
        case("bitcast", [integers(4, dtype=np.int8)], lambda x: x.view(torch.uint8), source=DType.INT8, dtype=DType.UINT8),
        case("iota", [], lambda: torch.arange(5), size=5),
        case("iota", [], lambda: torch.arange(3, 9, 2, dtype=torch.int32), size=3, start=3, step=2, dtype=DType.INT32),
        case("iota", [], lambda: 0.5 - 0.25 * torch.arange(3.0), size=3, start=0.5, step=-0.25, dtype=DType.FLOAT32),
        case("iota", [], lambda: torch.arange(0), size=0),
        case("full", [], lambda: torch.full((2, 3), NAN), shape=(2, 3), value=NAN, dtype=DType.FLOAT32),
        case("full", [], lambda: torch.full((), 7), shape=(), value=7, dtype=DType.INT64),
        case("full", [], lambda: torch.full((2,), True), shape=(2,), value=True, dtype=DType.BOOL),
        case("take", [x, integers(2, 2, low=-3, high=3)], lambda x, i: x[:, i], axis=1),
        case("take", [x, np.array(1)], lambda x, i: x[i]),
        case("take", [integers(5), np.array([], np.int32)], lambda x, i: x[i.long()]),
        case("take_along", [x, integers(2, 2, 4, low=0, high=3)], lambda x, i: torch.gather(x, 1, i), axis=1),
        case("take_along", [x, integers(1, 5, 2, low=0, high=3)], lambda x, i: torch.gather(x, -2, i), axis=-2),
        case("take_nd", [x, integers(5, 2, low=0, high=2)], lambda x, i: x[i[:, 0], i[:, 1]]),
        case("take_nd", [x, np.array([1, 2, -1])], lambda x, i: x[1, 2, -1]),
        case("put", [x, floats(2, 2, 4), np.array([2, -3])], lambda x, v, i: x.index_copy(1, i % 3, v), axes=(1,)),
        case(
            "put",
            [x, floats(2, 1, 2), np.array([-1]), np.array([3, 0])],
            lambda x, v, i, j: x.index_put((torch.arange(2)[:, None, None], i[:, None], j), v),
            axes=(1, 2),
        ),
        case("put", [x, floats(2, 0, 4), np.zeros(0, np.int64)], lambda x, v, i: x, axes=(1,)),
        case("put", [x, floats(2, 3, 4)], lambda x, v: v, axes=()),
    ]
    ties = np.array([[3.0, 1.0, NAN, 1.0, -0.0, 0.0, INF, 3.0]])
    for descending in (False, True):
        for array in (x, ties, integers(3, 7, low=0, high=3), booleans(2, 6), floats(0, 2)):
            cases.append(
                case(
                    "sort",
                    [array],
                    lambda x, d=descending: torch.sort(x, dim=-1, descending=d, stable=True),
                    axis=-1,
                    descending=descending,
                )
            )
        cases.append(case("sort", [x], lambda x, d=descending: torch.topk(x, 2, 2, largest=d), axis=2, descending=descending, count=2))
    return cases
