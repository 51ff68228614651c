"""Families of PyTorch operations as functions of a few tensors: what the table of operations in the documentation is made from.

Each function yields results of many operations, so that one export, and one compilation, serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Inputs(NamedTuple):
    """``x``, ``y`` are any floats, ``p`` positive, ``u`` in (0, 1), ``d`` fp64, ``i`` whole, ``j`` whole and not 0, ``k`` bytes."""

    x: Tensor
    y: Tensor
    p: Tensor
    u: Tensor
    d: Tensor
    i: Tensor
    j: Tensor
    k: Tensor
    b: Tensor


def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    x, y, d = (torch.randn(3, 4, generator=generator) for _ in range(3))
    i = torch.randint(-9, 10, (3, 4), generator=generator)
    j = torch.randint(1, 10, (3, 4), generator=generator) * torch.tensor([1, -1, 1, -1])
    k = torch.randint(0, 200, (3, 4), generator=generator).to(torch.uint8)
    u = torch.rand(3, 4, generator=generator) * 0.8 + 0.1
    return Inputs(x, y, y.abs() + 0.2, u, d.double(), i, j, k, x > 0)


def arithmetic(t: Inputs) -> list[Any]:
    x, y, p, d, i, j, k, b = t.x, t.y, t.p, t.d, t.i, t.j, t.k, t.b
    return [
        x + y, x + 2, i + 0.5, x + d, torch.add(x, y, alpha=0.5), b + b, x - y, 1 - x, torch.sub(x, i, alpha=2), torch.rsub(x, y),
        x * y, x * 3, b * x, x / y, i / j, 2 / p, torch.div(x, y, rounding_mode="floor"), torch.div(x, 0.3, rounding_mode="trunc"),
        torch.div(i, j, rounding_mode="trunc"), i // j, x // 0.7, k // 7, x % y, i % j, x % 0.4, 5 % j, torch.fmod(x, y), torch.fmod(i, 4),
        -x, x.abs(), i.abs(), x.square(), x.sign(), x.sgn(), b.sign(), p.reciprocal(), p.sqrt(), p.rsqrt(), torch.positive(x),
        x**2, x**3, p**-0.5, p**y, 2**x, i**2, torch.float_power(p, 2), x.floor(), x.ceil(), x.trunc(), x.round(), x.round(decimals=1),
        x.frac(), x.clamp(-1, 1), x.clamp(min=0.2), x.clamp_max(0.3), x.clamp_min(-0.3), torch.clamp(x, y - 1, y + 1), i.clamp(-2, 3),
        torch.maximum(x, y), torch.minimum(i, j), torch.fmax(x, y), torch.fmin(x, y), torch.hypot(x, y), torch.copysign(x, y),
        torch.copysign(x, -1.0), torch.lerp(x, y, 0.3), torch.lerp(x, y, p), torch.addcmul(x, y, p, value=0.5), torch.addcdiv(x, y, p),
        torch.nan_to_num(x / 0, 0.5, 7.0, -7.0), torch.deg2rad(x), torch.rad2deg(x), torch.ldexp(x, i), *torch.frexp(x), torch.angle(x),
        torch.nextafter(x, y), torch.heaviside(x, y), torch.signbit(x), torch.signbit(i), x.to(torch.int32), i.float(), x.double(), b.int(),
    ]  # fmt: skip


def bits(t: Inputs) -> list[Any]:
    i, j, k, b = t.i, t.j, t.k, t.b
    return [
        i & j, i | 3, i ^ j, ~i, ~b, b & ~b, b | b, b ^ b, k & 15, i << 2, i >> 1, torch.bitwise_left_shift(i, j.abs()),
        torch.bitwise_right_shift(k, 3), torch.bitwise_right_shift(i, j.abs()), torch.bitwise_and(i, 6), torch.bitwise_or(i, j),
        torch.bitwise_xor(i, 5), torch.bitwise_not(k), torch.gcd(i, j), torch.lcm(i, j), 3 & j, 1 << j.abs(),
    ]  # fmt: skip


def comparisons(t: Inputs) -> list[Any]:
    x, y, d, i, j, b = t.x, t.y, t.d, t.i, t.j, t.b
    return [
        x == y, x != y, x < y, x <= y, x > y, x >= y, x == 0, x != 0, i < 2, i <= 2.5, i > j, i >= 0, x < d, b == b, x != x,
        b.logical_and(x), b.logical_or(i), torch.logical_xor(x, y), torch.logical_not(i), torch.isnan(x), torch.isinf(x), torch.isfinite(x),
        torch.isposinf(x), torch.isneginf(x), torch.isreal(x), torch.isclose(x, y, 0.5, 0.5), torch.where(b, x, y), torch.where(b, x, 0.0),
        torch.where(b, i, x), x.masked_fill(b, -1e9), x.masked_fill(b, y[0, 0]), torch.isin(i, torch.tensor([1, 2, 5])), b.any(), b.all(1),
        torch.any(x, 0, keepdim=True), torch.all(i > 0), i.count_nonzero(), x.count_nonzero(1), torch.any(b, dim=(0, 1)),
    ]  # fmt: skip


def transcendental(t: Inputs) -> list[Any]:
    x, y, p, u, i = t.x, t.y, t.p, t.u, t.i
    return [
        x.exp(), x.exp2(), x.expm1(), p.log(), p.log2(), p.log10(), p.log1p(), x.sin(), x.cos(), x.tan(), u.asin(), u.acos(), x.atan(),
        torch.atan2(x, y), x.sinh(), x.cosh(), x.tanh(), x.asinh(), (p + 1).acosh(), u.atanh(), x.sigmoid(), torch.logit(u), x.sinc(),
        torch.logaddexp(x, y), torch.logaddexp2(x, y), torch.xlogy(x, p), torch.special.xlog1py(x, p), torch.special.entr(u), i.sin(),
        torch.special.expit(x), torch.special.log_softmax(x, 1), torch.special.xlogy(2, p), torch.logit(u, 0.3),
    ]  # fmt: skip


def special(t: Inputs) -> list[Any]:
    x, p, u, d = t.x, t.p, t.u, t.d
    s = torch.special
    return [
        x.erf(), x.erfc(), u.erfinv(), p.lgamma(), p.digamma(), torch.polygamma(1, p), torch.polygamma(0, p), torch.mvlgamma(p + 2, 2),
        x.i0(), s.i0e(x), s.i1(x), s.i1e(x), s.erfcx(x), s.ndtr(x), s.ndtri(u), s.log_ndtr(x), s.bessel_j0(p), s.bessel_j1(p),
        s.bessel_y0(p), s.bessel_y1(p), s.modified_bessel_i0(x), s.modified_bessel_i1(x), d.erfc(), d.lgamma(),
    ]  # fmt: skip


def activations(t: Inputs) -> list[Any]:
    x, y = t.x, t.y
    return [
        F.relu(x), F.relu6(x), F.leaky_relu(x, 0.2), F.elu(x, 0.5), F.celu(x, 0.7), F.selu(x), F.gelu(x), F.gelu(x, approximate="tanh"),
        F.silu(x), F.mish(x), F.softplus(x), F.softplus(x, 2, 1), F.hardtanh(x), F.hardsigmoid(x), F.hardswish(x), F.hardshrink(x),
        F.softshrink(x), F.tanhshrink(x), F.softsign(x), F.logsigmoid(x), F.threshold(x, 0.1, -2), F.glu(x), F.prelu(x, y[0, :1]),
        F.prelu(x, y[0]), F.rrelu(x, training=False), F.softmax(x, 1), F.softmin(x, 0), F.log_softmax(x, -1), F.normalize(x),
        F.dropout(x, training=False),
    ]  # fmt: skip


def reductions(t: Inputs) -> list[Any]:
    x, y, d, i, b = t.x, t.y, t.d, t.i, t.b
    holes = torch.where(b, x, math.nan)
    return [
        x.sum(), x.sum(1), i.sum(), b.sum(0), x.mean(), x.mean(0, True), x.prod(), i.prod(1), x.amax(), x.amin(1), x.max(), x.min(),
        *x.max(1), *x.min(0), *x.aminmax(dim=1), x.argmax(), x.argmax(1), i.argmin(0), x.var(), x.var(1, correction=0), x.std(), x.std(0),
        *torch.var_mean(x, 1), *torch.std_mean(x, 1), x.logsumexp(1), x.norm(), x.norm(1, 1), torch.linalg.vector_norm(x, math.inf),
        torch.linalg.vector_norm(x, 0, 1), torch.linalg.vector_norm(x, 2.5), torch.linalg.matrix_norm(x), torch.nansum(holes),
        torch.nanmean(holes, 0), torch.dist(x, y), torch.cdist(x, y), torch.cdist(x, y, 1.0), torch.cdist(x, y, 3.0), F.pdist(x), d.mean(),
        F.cosine_similarity(x, y), F.pairwise_distance(x, y), torch.trace(x), torch.renorm(x, 2, 0, 1.0), x.unsqueeze(0).amax((1, 2)),
    ]  # fmt: skip


def scans(t: Inputs) -> list[Any]:
    x, d, i, k, b = t.x, t.d, t.i, t.k, t.b
    return [
        x.cumsum(1), i.cumsum(0), b.cumsum(1), k.cumsum(1), x.cumsum(0, dtype=torch.float64), x.cumprod(1), d.cumprod(0), *x.cummax(1),
        *i.cummin(0), x.logcumsumexp(1), d.logcumsumexp(0), x.diff(), torch.trapezoid(x), torch.cumulative_trapezoid(x, dim=1),
    ]  # fmt: skip


def ordering(t: Inputs) -> list[Any]:
    x, d, i, b = t.x, t.d, t.i, t.b
    rows = torch.tensor([[-1.0, 0.0, 1.0, 2.0]]).expand(3, 4).contiguous()
    long = torch.arange(50) * 0.1 - 2
    return [
        *x.sort(), *x.sort(0, descending=True), *torch.sort(i, stable=True), x.argsort(1), *b.sort(stable=True), torch.msort(x), *x.topk(2),
        *x.topk(2, largest=False), *x.kthvalue(2), *x.median(1), x.median(), x.nanmedian(), *torch.where(b, x, math.nan).nanmedian(1),
        *torch.where(b, d, math.nan).median(0), *i.mode(1), x.quantile(0.3), x.quantile(torch.tensor([0.1, 0.9]), 1), x.nanquantile(0.5, 1),
        torch.searchsorted(rows, x), torch.searchsorted(rows, x, side="right"), torch.searchsorted(long, x), torch.searchsorted(long, 0.5),
        torch.bucketize(x, rows[0]), torch.bucketize(x, long, right=True, out_int32=True), torch.searchsorted(x, x, sorter=x.argsort()),
    ]  # fmt: skip


def products(t: Inputs) -> list[Any]:
    x, y, p, i = t.x, t.y, t.p, t.i
    square, three = x @ y.t(), torch.stack((x, y))
    return [
        x @ y.t(), x.mm(y.t()), x.mv(y[0]), x[0].dot(y[0]), torch.vdot(x[0], y[0]), torch.inner(x, y), torch.outer(x[0], y[0]),
        torch.kron(x, y), torch.tensordot(x, y, 2), torch.einsum("ij,kj->ik", x, y), torch.bmm(three, three.mT),
        torch.addmm(square, x, y.t()),
        torch.baddbmm(three @ three.mT, three, three.mT, beta=0.5), torch.addbmm(square, three, three.mT), torch.addmv(x[:, 0], x, y[0]),
        torch.addr(x, x[:, 0], y[0], beta=0.5), torch.chain_matmul(x, y.t(), x), torch.linalg.matrix_power(square, 3),
        F.linear(x, y, p[:, 0]),
        torch.linalg.multi_dot([x, y.t(), x]), F.bilinear(x, y, torch.ones(2, 4, 4)), torch.linalg.cross(x[:, :3], y[:, :3]), i @ i.t(),
        torch.linalg.vecdot(x, y), torch.vander(x[0]), torch.cartesian_prod(x[0], y[0, :2]), *torch.meshgrid(x[0], y[0], indexing="ij"),
        torch.block_diag(x, y), torch.cross(x[:, 1:], y[:, 1:], dim=1), F.scaled_dot_product_attention(three, three, three),
    ]  # fmt: skip


def losses(t: Inputs) -> list[Any]:
    x, y, p, u, b = t.x, t.y, t.p, t.u, t.b
    target, signs = torch.tensor([1, 3, 0]), torch.tensor([1.0, -1.0, 1.0])
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5])
    return [
        F.mse_loss(x, y), F.mse_loss(x, y, reduction="none"), F.l1_loss(x, y, reduction="sum"), F.smooth_l1_loss(x, y, beta=0.5),
        F.huber_loss(x, y, delta=0.7), F.binary_cross_entropy(u, b.float()), F.binary_cross_entropy_with_logits(x, u, pos_weight=weights),
        F.nll_loss(x, target), F.nll_loss(x, target, weights, ignore_index=3), F.cross_entropy(x, target), F.kl_div(x, u),
        F.kl_div(x, y, log_target=True),
        F.cross_entropy(x, target, weights, label_smoothing=0.1), F.cross_entropy(x, target, ignore_index=1, reduction="none"),
        F.cross_entropy(x, F.softmax(y, 1)), F.poisson_nll_loss(x, p), F.hinge_embedding_loss(x, torch.sign(y)),
        F.soft_margin_loss(x, torch.sign(y)),
        F.margin_ranking_loss(x[:, 0], y[:, 0], signs), F.triplet_margin_loss(x, y, p), F.cosine_embedding_loss(x, y, signs),
        F.multi_margin_loss(x, target), F.multilabel_soft_margin_loss(x, b.float()),
        F.multilabel_margin_loss(x, torch.tensor([[1, -1, 0, 0]] * 3)),
        F.multilabel_margin_loss(x, torch.tensor([[1, 2, -1, 0]] * 3), reduction="none"),
        F.multilabel_margin_loss(x[0], torch.tensor([3, 0, -1, 0])),
        F.triplet_margin_with_distance_loss(x, y, p),
    ]  # fmt: skip


def making(t: Inputs) -> list[Any]:
    x = t.x
    return [
        torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 3), x.new_zeros(2), x.new_ones(2), x.new_full((2,), 5.0),
        torch.zeros(2) + x[0, 0],
        torch.ones(2) + x[0, 0], torch.full((2,), 4) + x[0, 0], torch.arange(4) + x, torch.arange(1, 9, 2) * x, torch.linspace(0, 1, 4) + x,
        torch.logspace(0, 1, 4) + x, torch.eye(4) + x[0], torch.eye(3, 4) * x, torch.tril_indices(3, 4) + 0 * x[0, 0].long(),
        torch.triu_indices(3, 3, 1) + 0 * x[0, 0].long(), torch.hann_window(4) * x, torch.hamming_window(4) * x,
        torch.bartlett_window(4) * x,
        torch.blackman_window(4) * x, torch.kaiser_window(4) * x, F.one_hot(t.k.long() % 5, 5), torch.empty_like(x).zero_(),
        torch.scalar_tensor(2.0) * x,
        x.clone().fill_(2.0), torch.fill(x, 3.0), torch.triu_indices(3, 4, -1) + 0 * x[0, 0].long(),
    ]  # fmt: skip


def shapes(t: Inputs) -> list[Any]:
    x, y, i = t.x, t.y, t.i
    three = torch.stack((x, y), 1)
    return [
        x.reshape(2, 6), x.view(4, 3), x.flatten(), x.t(), three.permute(2, 0, 1), three.transpose(0, 2), x.unsqueeze(1),
        x[:, None].squeeze(1),
        x.expand(2, 3, 4), x.repeat(2, 1), x.tile(1, 2), x.flip(0), x.fliplr(), x.flipud(), x.rot90(), x.roll(1, 0), x.roll((1, 2), (0, 1)),
        x.narrow(1, 1, 2), x[1:, ::2], x[:, -1], x.select(0, 1), *x.split(2, 1), *x.chunk(2, 1), *x.unbind(0), *torch.tensor_split(x, 3, 1),
        torch.cat((x, y)), torch.stack((x, y)), torch.hstack((x, y)), torch.vstack((x, y)), torch.dstack((x, y)),
        torch.column_stack((x, y)),
        x.tril(), x.triu(1), torch.diag(x[0]), x.diagonal(), torch.diag_embed(x), torch.diagflat(x[0]), x.movedim(0, 1),
        three.unflatten(2, (2, 2)),
        F.pad(x, (1, 2)), F.pad(x, (1, 1), value=3.0), F.pad(x[None], (1, 1), mode="reflect"), F.pad(x[None], (1, 2), mode="replicate"),
        F.pad(x[None], (1, 2), mode="circular"), x.index_select(1, torch.tensor([0, 2])), x.gather(1, i.abs() % 4), x.take(i.abs()),
        torch.take_along_dim(x, i.abs() % 4, 1), x[torch.tensor([0, 2])], x[torch.tensor([0, 1]), torch.tensor([2, 3])],
        x.repeat_interleave(2, 1),
        F.pixel_shuffle(torch.stack((x, y, x, y))[None], 2), F.pixel_unshuffle(x[None, None, :2], 2),
        F.channel_shuffle(three[..., None], 2),
        torch.atleast_3d(x), torch.broadcast_to(x, (2, 3, 4)), torch.ravel(x), x.swapaxes(0, 1), x.contiguous(), x.clone(), x.detach(),
        torch.select_scatter(x, y[0], 0, 1), torch.slice_scatter(x, y[:, :2], 1, 1, 3), torch.diagonal_scatter(x, y[:, 0]),
        x.sum_to_size(1, 4),
    ]  # fmt: skip


def normalisations(t: Inputs) -> list[Any]:
    x, y, p = t.x, t.y, t.p
    images = torch.stack((x, y, p, x))[None]
    return [
        F.layer_norm(x, (4,), y[0], p[0]), F.layer_norm(x, (3, 4)), F.rms_norm(x, (4,), p[0]), F.group_norm(images, 2),
        F.local_response_norm(images, 2),
        F.batch_norm(images, x[0], p[0], y[0], x[1]), F.instance_norm(images), torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
        torch.fake_quantize_per_channel_affine(x, p[:, 0], torch.zeros(3, dtype=torch.int32), 0, -128, 127),
    ]  # fmt: skip


def images(t: Inputs) -> list[Any]:
    x, y, p = t.x, t.y, t.p
    pictures = torch.stack((x, y)).repeat(1, 2, 2)[None]  # [1, 2, 6, 8]
    volume = pictures[:, :, :, None].expand(1, 2, 6, 4, 8)
    kernel, lines = p[:2, :2].reshape(1, 1, 2, 2).expand(3, 2, 2, 2), pictures[:, :, 0]
    return [
        F.conv2d(pictures, kernel), F.conv1d(lines, kernel[..., 0]), F.conv3d(volume, kernel[..., None]),
        F.conv_transpose2d(lines[..., None], kernel[:2]),
        F.max_pool2d(pictures, 2), F.max_pool1d(lines, 2), F.max_pool3d(volume, 2), F.avg_pool1d(lines, 2), F.avg_pool2d(pictures, 2),
        F.avg_pool3d(volume, 2), F.adaptive_avg_pool1d(lines, 3), F.adaptive_avg_pool2d(pictures, 2),
        F.adaptive_max_pool2d(pictures, (4, 3)),
        F.interpolate(pictures, scale_factor=2), F.interpolate(pictures, (5, 7), mode="bilinear"), F.interpolate(lines, 5, mode="linear"),
        F.interpolate(pictures, (5, 7), mode="bicubic"), F.interpolate(pictures, (3, 4), mode="area"),
        F.interpolate(volume, (3, 2, 4), mode="trilinear"),
        F.unfold(pictures, 2), F.fold(F.unfold(pictures, 2), (6, 8), 2),
        F.grid_sample(pictures, torch.tanh(x[None, :, :, None] * p[0, :2]), align_corners=False),
        F.embedding(t.i.abs(), y.repeat(4, 1)), F.embedding_bag(t.i.abs(), y.repeat(4, 1)),
    ]  # fmt: skip


def assignments(t: Inputs) -> list[Any]:
    x, y, b = t.x, t.y, t.b
    rows, places = torch.tensor([2, 0]), t.i.abs() % 4
    changed = x.clone()
    changed[rows] = y[:2]
    changed[0, 1:3] = 7.0
    return [
        x.scatter(1, places, y), x.scatter(1, places[:, :1], 2.0), x.scatter_add(1, places, y), x.scatter_reduce(1, places, y, "amax"),
        x.index_add(0, rows, y[:2]), x.index_copy(0, rows, y[:2]), x.index_fill(1, rows, 3.0), x.index_put((rows, rows), y[0, :2]), changed,
        x.index_put((rows, rows), y[0, :2], accumulate=True), x.masked_scatter(b, y), torch.histc(x, 5, -2, 2),
        x.index_reduce(0, rows, y[:2], "amin"),
    ]  # fmt: skip


FAMILIES: dict[str, Callable[[Inputs], list[Any]]] = {
    function.__name__: function
    for function in (
        arithmetic, bits, comparisons, transcendental, special, activations, reductions, scans, ordering, products, losses, making, shapes,
        normalisations, images, assignments,
    )
}  # fmt: skip


def program(name: str) -> Callable[..., tuple[Any, ...]]:
    """A family as a function that can be exported."""
    family = FAMILIES[name]
    return lambda *tensors: tuple(family(Inputs(*tensors)))
