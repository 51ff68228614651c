"""Reductions, norms, products, convolutions, pooling and resampling against eager PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager import bools, check, check_both_precisions, ints, rand
from torch import Tensor

X = rand(2, 3, 4)

REDUCTIONS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "sum": (lambda x: (x.sum(), x.sum(0), x.sum(-1, keepdim=True), x.sum((0, -1)), x.sum((), keepdim=True)), X),
    "mean": (lambda x: (x.mean(), x.mean(1), x.mean((-1, 0), keepdim=True), x.mean(dtype=torch.float64)), X),
    "prod": (lambda x: (x.prod(), x.prod(1), x.prod(-1, keepdim=True)), X),
    "max": (lambda x: (x.max(), x.max(1), x.max(-1, keepdim=True), x.amax((0, 2)), x.amax()), X),
    "min": (lambda x: (x.min(), x.min(1), x.min(-1, keepdim=True), x.amin((0, 2)), x.aminmax(dim=0)), X),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmin(-1, keepdim=True), x.argmin(), x.argmax(keepdim=True)), X),
    "any": (lambda x: ((x > 0).any(), (x > 2).any(1), (x > -1).all(), (x > -1).all(-1, keepdim=True), x.any((0, 1)), x.all((0, 1))), X),
    "var": (lambda x: (x.var(), x.var(1), x.std(-1, unbiased=False), x.var((0, 2), correction=0), torch.var_mean(x, 1, keepdim=True)), X),
    "norm": (lambda x: (x.norm(), x.norm(dim=1), x.norm(1, -1), x.norm(math.inf, 0), x.norm(3, 1, keepdim=True), F.normalize(x)), X),
    "more norms": (lambda x: (torch.linalg.vector_norm(x, -math.inf), torch.linalg.vector_norm(x, 0, 1), torch.linalg.norm(x[0])), X),
    "logsumexp": (lambda x: (x.logsumexp(1), x.logsumexp((0, 1), keepdim=True)), X),
    "cumsum": (lambda x: (x.cumsum(0), x.cumsum(-1), x.cumprod(1), (x > 0).cumsum(1)), X),
    "distances": (
        lambda x: (
            torch.cdist(x, x[:, :2]),
            F.pairwise_distance(x, x.flip(0)),
            F.cosine_similarity(x, x.flip(0)),
            torch.dist(x, x.flip(0)),
        ),
        X,
    ),
    "0-d": (
        lambda x: (x.sum(), x.mean(0), x.max(0), x.argmax(), x.any(), x.cumsum(0), x.softmax(0), x.var(correction=0), x.sort()),
        torch.tensor(0.7),
    ),
    "not a number": (lambda x: (x.max(), x.amin(), x.max(0), x.sum(), x.argmax()), torch.tensor([1.0, math.nan, 3.0])),
    "empty": (lambda x: (x.sum(), x.sum(0), x.prod(), x.any(), x.all(), x.cumsum(0)), torch.empty(0, 3)),
    "softmax": (lambda x: (x.softmax(-1), x.softmax(0), x.log_softmax(1), F.softmin(x, 1), x.half().softmax(-1, dtype=torch.float32)), X),
    "layer_norm": (
        lambda x: (F.layer_norm(x, (4,)), F.layer_norm(x, (3, 4), x[0], x[1], 1e-3), F.layer_norm(x, (4,), None, x[0, 0])),
        X,
    ),
    "rms_norm": (lambda x: (F.rms_norm(x, (4,)), F.rms_norm(x, (4,), x[0, 0], 1e-3), F.rms_norm(x, (3, 4), x[0], 1e-3)), X),
    "group_norm": (lambda x: (F.group_norm(x, 2), F.group_norm(x, 4, x[0, :, 0], x[1, :, 0], 1e-3)), rand(2, 4, 5)),
    "instance_norm": (lambda x: (F.instance_norm(x), F.instance_norm(x, None, None, x[0, :, 0], x[1, :, 0])), rand(2, 4, 5)),
    "batch_norm": (
        lambda x: (
            F.batch_norm(x, x[0, :, 0], x[0, :, 1].exp(), x[1, :, 0], x[1, :, 1]),
            F.batch_norm(x, x[0, :, 0], x[0, :, 1].exp(), eps=0.1),
            F.batch_norm(x, None, None, training=True),
        ),
        rand(2, 4, 5),
    ),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), rand(2, 4, 5)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name: str) -> None:
    function, x = REDUCTIONS[name]
    check_both_precisions(function, [x])


def test_reductions_of_integers_and_booleans_give_int64() -> None:
    x, mask = ints(3, 4, dtype=torch.int32), bools(3, 4)
    check(
        lambda x, mask: (x.sum(), x.sum(0), x.prod(1), mask.sum(1), mask.cumsum(0), x.cumsum(1), x.max(1), mask.any(0), x.any(0)), [x, mask]
    )
    check(lambda x: (x.any(), x.all(0), x.sum(dtype=torch.float32)), [ints(3, 4, low=0, high=2, dtype=torch.uint8)])


def signal(*shape: int) -> Tensor:
    return rand(*shape)


PRODUCTS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "linear": (
        lambda x, w: (F.linear(x, w), F.linear(x, w, w[:, 0]), F.linear(x[0, 0], w), F.linear(x, w[0])),
        [rand(2, 3, 4), rand(5, 4)],
    ),
    "mm": (lambda a, b: (a @ b, torch.mm(a, b), a @ b[:, 0], a[0] @ b, a[0] @ b[:, 0], torch.mv(a, b[:, 0])), [rand(3, 4), rand(4, 5)]),
    "addmm": (
        lambda a, b: (torch.addmm(a[:, :1], a, b), torch.addmm(b[0], a, b, beta=0.5, alpha=2), torch.addmv(a[:, 0], a, b[:, 0])),
        [rand(3, 4), rand(4, 5)],
    ),
    "bmm": (
        lambda a, b: (torch.bmm(a, b), a @ b, a[:, None] @ b, torch.baddbmm(a[:, :, :1], a, b, alpha=0.5), a @ b[0], a @ b[0, :, 0]),
        [rand(2, 3, 4), rand(2, 4, 5)],
    ),
    "einsum": (
        lambda a, b: (torch.einsum("bij,bjk->bik", a, b), torch.einsum("bij,cjk->bcik", a, b), torch.tensordot(a, b, ([2], [1]))),
        [rand(2, 3, 4), rand(2, 4, 5)],
    ),
    "outer": (lambda a, b: (torch.outer(a, b), torch.dot(a, b[:3]), torch.kron(a, b)), [rand(3), rand(5)]),
    "bilinear": (lambda a, b: F.bilinear(a, b, BILINEAR.to(a.dtype)), [rand(5, 3), rand(5, 4)]),
    "conv1d": (lambda x, w: (F.conv1d(x, w), F.conv1d(x, w, w[:, 0, 0], 2, 1, 2), F.conv1d(x[0], w)), [signal(2, 4, 9), rand(6, 4, 3)]),
    "conv2d": (
        lambda x, w: (
            F.conv2d(x, w),
            F.conv2d(x, w, w[:, 0, 0, 0], (2, 1), (1, 0), (1, 2)),
            F.conv2d(x, w, padding="same"),
            F.conv2d(x[0], w),
        ),
        [signal(2, 4, 7, 8), rand(6, 4, 3, 3)],
    ),
    "even kernel, same size": (lambda x, w: F.conv2d(x, w, padding="same", dilation=(1, 3)), [signal(1, 2, 7, 8), rand(3, 2, 2, 4)]),
    "grouped conv2d": (
        lambda x, w: (F.conv2d(x, w, groups=2), F.conv2d(x, w[:4, :1], groups=4, padding=1)),
        [signal(2, 4, 7, 8), rand(6, 2, 3, 3)],
    ),
    "conv3d": (lambda x, w: F.conv3d(x, w, stride=(1, 2, 1), padding=1), [signal(1, 2, 4, 5, 6), rand(3, 2, 2, 3, 3)]),
    "conv_transpose1d": (
        lambda x, w: (F.conv_transpose1d(x, w), F.conv_transpose1d(x, w, None, 2, 1, 1)),
        [signal(2, 4, 5), rand(4, 3, 4)],
    ),
    "conv_transpose2d": (
        lambda x, w: (F.conv_transpose2d(x, w, w[0, :, 0, 0], 2, 1, 1), F.conv_transpose2d(x, w, None, (1, 3), 0, 0, 2, (2, 1))),
        [signal(2, 4, 5, 4), rand(4, 2, 3, 3)],
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name: str) -> None:
    function, args = PRODUCTS[name]
    check_both_precisions(function, args)


BILINEAR = rand(2, 3, 4)
KEEP, KEEP_BATCH, KEEP_HEADS, KEEP_FIVE, BIAS = bools(5, 6), bools(2, 1, 1, 6), bools(4, 5, 6), bools(1, 2, 1, 5, 6), rand(2, 4, 5, 6)

SDPA = F.scaled_dot_product_attention
Q, K, V = rand(2, 4, 5, 8), rand(2, 4, 6, 8, seed=1), rand(2, 4, 6, 3, seed=2)
ATTENTION: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "plain": lambda q, k, v: (SDPA(q, k, v), SDPA(q, k, v, scale=0.3), SDPA(q, k, v, is_causal=True)),
    "boolean mask": lambda q, k, v: (SDPA(q, k, v, KEEP), SDPA(q, k, v, KEEP_BATCH)),
    "float mask": lambda q, k, v: SDPA(q, k, v, BIAS.to(q.dtype)),
    "every key masked": lambda q, k, v: SDPA(q, k, v, torch.zeros(5, 6, dtype=torch.bool)),
    "grouped heads": lambda q, k, v: SDPA(q, k[:, :2], v[:, :2], enable_gqa=True),
    "three axes": lambda q, k, v: (SDPA(q[0], k[0], v[0]), SDPA(q[0], k[0], v[0], KEEP_HEADS)),
    "two axes": lambda q, k, v: SDPA(q[0, 0], k[0, 0], v[0, 0], is_causal=True),
    "one key head": lambda q, k, v: SDPA(q, k[:, :1], v[:, :1]),
    "broadcast batch": lambda q, k, v: (SDPA(q[:1], k, v), SDPA(q, k[:1], v), SDPA(q[0], k, v)),
    "five axes": lambda q, k, v: (SDPA(q[None], k[None], v[None]), SDPA(q[None], k[None], v[None], KEEP_FIVE)),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_stays_whole(name: str) -> None:
    imported = check_both_precisions(ATTENTION[name], [Q, K, V])
    assert "attention" in {node.op for node in imported.graph.nodes}


WINDOWS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "max_pool1d": (lambda x: (F.max_pool1d(x, 3), F.max_pool1d(x, 3, 2, 1, ceil_mode=True)), signal(2, 4, 9)),
    "max_pool2d": (
        lambda x: (F.max_pool2d(x, 2), F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, (2, 3), (1, 2), 1, ceil_mode=True), F.max_pool2d(x[0], 2)),
        signal(2, 3, 7, 8),
    ),
    "dilated max_pool2d": (lambda x: F.max_pool2d(x, 2, 3, 1, 2, ceil_mode=True), signal(2, 3, 7, 8)),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2, 2), signal(1, 2, 4, 5, 6)),
    "avg_pool1d": (lambda x: (F.avg_pool1d(x, 3), F.avg_pool1d(x, 3, 2, 1, True, False)), signal(2, 4, 9)),
    "avg_pool2d": (
        lambda x: (
            F.avg_pool2d(x, 2),
            F.avg_pool2d(x, 3, 2, 1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            F.avg_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.avg_pool2d(x, 2, divisor_override=3),
        ),
        signal(2, 3, 7, 8),
    ),
    "ceil_mode whose last window would start in the padding": (
        lambda x: (F.avg_pool2d(x, 2, 2, 1, ceil_mode=True), F.max_pool2d(x, 2, 2, 1, ceil_mode=True), F.avg_pool2d(x, 3, 3, 1, True)),
        signal(1, 2, 5, 6),
    ),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 2, 1), signal(1, 2, 4, 5, 6)),
    "adaptive pools that divide": (
        lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, (2, 4)), F.adaptive_max_pool2d(x, (3, 2))),
        signal(2, 3, 6, 8),
    ),
    "adaptive pools that do not": (
        lambda x: (
            F.adaptive_avg_pool2d(x, (4, 3)),
            F.adaptive_max_pool2d(x, (4, 3)),
            F.adaptive_avg_pool2d(x, 9),
            F.adaptive_max_pool1d(x[0], 3),
        ),
        signal(2, 3, 7, 8),
    ),
    "adaptive_avg_pool1d": (lambda x: (F.adaptive_avg_pool1d(x, 3), F.adaptive_avg_pool1d(x, 4)), signal(2, 3, 9)),
    "lp_pool": (lambda x: F.lp_pool2d(x, 2, 2), signal(1, 2, 4, 6)),
    "nearest": (
        lambda x: (
            F.interpolate(x, scale_factor=2),
            F.interpolate(x, size=(5, 11)),
            F.interpolate(x, scale_factor=(1.7, 0.6)),
            F.interpolate(x, scale_factor=1.7, recompute_scale_factor=True),
        ),
        signal(2, 3, 7, 8),
    ),
    "nearest of other ranks": (lambda x: (F.interpolate(x, size=7), F.interpolate(x[:, :, None, None], scale_factor=2)), signal(2, 3, 5)),
    "nearest-exact": (lambda x: F.interpolate(x, scale_factor=1.7, mode="nearest-exact"), signal(2, 3, 7, 8)),
    "bilinear": (
        lambda x: [
            F.interpolate(x, mode="bilinear", align_corners=align, **how)
            for align in (False, True)
            for how in ({"scale_factor": 2}, {"size": (3, 11)}, {"scale_factor": 1.7})
        ],
        signal(2, 3, 7, 8),
    ),
    "linear": (lambda x: F.interpolate(x, size=7, mode="linear"), signal(2, 3, 5)),
    "trilinear": (lambda x: F.interpolate(x, size=(3, 4, 9), mode="trilinear"), signal(1, 2, 2, 5, 6)),
    "bicubic": (
        lambda x: (
            F.interpolate(x, size=(9, 5), mode="bicubic"),
            F.interpolate(x, scale_factor=1.7, mode="bicubic"),
            F.interpolate(x, size=(9, 5), mode="bicubic", align_corners=True),
        ),
        signal(2, 3, 7, 8),
    ),
    "antialiased": (
        lambda x: [F.interpolate(x, size=(3, 5), mode=mode, antialias=True) for mode in ("bicubic", "bilinear")],
        signal(2, 3, 7, 8),
    ),
    "grid_sample": (
        lambda x: F.grid_sample(
            x, F.affine_grid(torch.tensor([[[0.9, 0.2, 0.1], [-0.1, 0.8, 0]]], dtype=x.dtype), (1, 2, 5, 5), False), align_corners=False
        ),
        signal(1, 2, 7, 8),
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_pooling_and_resampling(name: str) -> None:
    function, x = WINDOWS[name]
    check_both_precisions(function, [x])
