"""Tasks in PyTorch, whose kernels come from vendor libraries (oneDNN, MKL): what a tuned kernel must not lose to."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from ..errors import UnsupportedOpError
from ..ir import Graph, Node

_CHANNELS_LAST = (0, 2, 3, 1)


def _conv(node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    attributes: Mapping[str, Any] = node.attributes
    padding = [low for low, _ in attributes["padding"]]
    return torch.conv2d(x, weight, bias, attributes["stride"], padding, attributes["dilation"], attributes["groups"])


def _attention(node: Node, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    attributes: Mapping[str, Any] = node.attributes
    return functional.scaled_dot_product_attention(q, k, v, is_causal=attributes["is_causal"], scale=attributes["scale"])


def _norm(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(node: Node, x: torch.Tensor, *operands: torch.Tensor) -> torch.Tensor:
        return function(x, x.shape[-1:], *operands, eps=node.attributes["eps"])

    return run


def _plain(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda node, *operands: function(*operands)


_OPERATIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "linear": _plain(functional.linear),
    "matmul": _plain(torch.matmul),
    "conv": _conv,
    "attention": _attention,
    "softmax": lambda node, x: torch.softmax(x, node.attributes["axis"]),
    "layer_norm": _norm(functional.layer_norm),
    "rms_norm": _norm(functional.rms_norm),
    "relu": _plain(torch.relu),
    "gelu": _plain(functional.gelu),
    "silu": _plain(functional.silu),
    "tanh": _plain(torch.tanh),
    "exp": _plain(torch.exp),
    "add": _plain(torch.add),
    "mul": _plain(torch.mul),
}
"""By operation, a function of the node and its operands."""


def vendor_call(graph: Graph, seed: int = 0) -> Callable[[], Sequence[torch.Tensor]]:
    """``graph`` on random inputs, one PyTorch operation after the other; UnsupportedOpError for an operation without counterpart here."""
    missing = sorted({node.op for node in graph.nodes if node.op not in _OPERATIONS})
    if missing:
        raise UnsupportedOpError(f"no PyTorch operation is known here for {', '.join(missing)}")
    generator = torch.Generator().manual_seed(seed)
    given = {}
    for value in graph.inputs:
        tensor = torch.randn(value.tensor.static_shape, generator=generator)
        given[value] = tensor.to(memory_format=torch.channels_last) if value.tensor.layout.order == _CHANNELS_LAST else tensor

    def run() -> Sequence[torch.Tensor]:
        values = dict(given)
        for node in graph.nodes:
            values[node.output] = _OPERATIONS[node.op](node, *(values[value] for value in node.inputs))
        return [values[value] for value in graph.outputs]

    return run


def vendor_seconds(graph: Graph, threads: int, seconds: float = 0.15) -> float:
    """Seconds of a call: the median of those made within ``seconds``, after two that warm up."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        run = vendor_call(graph)
        run(), run()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)
