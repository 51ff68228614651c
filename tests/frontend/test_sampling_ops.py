"""Sampling at positions that are data, where maxima are, and bytes read as other numbers: against eager PyTorch, imported and compiled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from eager import check, check_both_precisions, ints, rand
from torch import Tensor

import mlc

LINE, IMAGE, VOLUME = rand(2, 3, 11), rand(2, 3, 9, 8), rand(1, 2, 6, 7, 5)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sampling(mode: str, padding: str) -> None:
    def function(x: Tensor, grid: Tensor, volume: Tensor, points: Tensor) -> list[Tensor]:
        results = [F.grid_sample(x, grid, mode, padding, corners) for corners in (False, True)]
        if mode != "bicubic":
            results += [F.grid_sample(volume, points, mode, padding, corners) for corners in (False, True)]
        return results

    # Beyond the borders as well, and past a second reflection; in float64 no position lies just between two pixels.
    grid, points = rand(2, 4, 5, 2) * 1.5, rand(1, 4, 5, 2, 3) * 1.5
    check(function, [x.double() for x in (IMAGE, grid, VOLUME, points)])
    if mode == "bilinear":
        check(function, [IMAGE, grid, VOLUME, points])


def test_affine_grids() -> None:
    check_both_precisions(
        lambda t, u, x: (
            F.affine_grid(u, (2, 3, 4, 5, 6), True),
            F.grid_sample(x, F.affine_grid(t, (2, 3, 4, 5), False), align_corners=False),
        ),
        [rand(2, 2, 3), rand(2, 3, 4), IMAGE],
    )


def test_indices_of_maxima() -> None:
    # Rounded, so that there are equal maxima: the first one counts.
    line, image, volume = (torch.round(x * 2) for x in (LINE, IMAGE, VOLUME))
    check(
        lambda a, b, c: (
            F.max_pool1d(a, 3, 2, 1, return_indices=True),
            F.max_pool2d(b, (3, 2), 2, 1, return_indices=True),
            F.max_pool2d(b[0], 2, 2, 0, 2, ceil_mode=True, return_indices=True),
            F.max_pool3d(c, 3, 2, 1, return_indices=True),
            F.adaptive_max_pool1d(a, 4, True),
            F.adaptive_max_pool2d(b, (5, 7), True),
            F.adaptive_max_pool3d(c, (4, 3, 2), True),
        ),
        [line, image, volume],
    )


def test_fractional_pooling_with_given_samples() -> None:
    samples, more = (
        torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)),
        torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(1)),
    )
    check(
        lambda b, s, c, t: (
            F.fractional_max_pool2d(b, 2, output_size=(4, 5), _random_samples=s, return_indices=True),
            F.fractional_max_pool2d(b[0], (3, 2), output_size=(1, 5), _random_samples=s[:1], return_indices=True),
            F.fractional_max_pool3d(c, 2, output_size=(4, 5, 3), _random_samples=t, return_indices=True),
        ),
        [IMAGE, samples, VOLUME, more],
    )


def test_pooling_is_undone_by_its_indices() -> None:
    def function(a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        return [
            F.max_unpool1d(*F.max_pool1d(a, 2, 2, return_indices=True), 2, 2, output_size=[11]),
            F.max_unpool2d(*F.max_pool2d(b, 2, 2, return_indices=True), 2, 2, output_size=[9, 8]),
            F.max_unpool3d(*F.max_pool3d(c, 2, 2, return_indices=True), 2, 2, output_size=[6, 7, 5]),
        ]

    check(function, [LINE, IMAGE, VOLUME])


def test_bytes_read_as_other_numbers() -> None:
    def function(x: Tensor, n: Tensor, h: Tensor) -> list[Tensor]:
        same = [x.view(torch.int32), x.view(torch.int32).view(torch.float32), x.double().view(torch.int64), h.view(torch.int16)]
        narrower = [x.view(torch.int16), x.view(torch.uint8), n.view(torch.uint8), x.double().view(torch.float32)]
        wider = [n.view(torch.float32), n.view(torch.int64), h.view(torch.int32), n.view(torch.float16).float().nan_to_num()]
        return [*same, *narrower, *wider, x.view(torch.int32) & 0x7FFFFFFF]

    args = (rand(4, 6), ints(4, 8, dtype=torch.int16), rand(4, 8).bfloat16())
    check(function, args)


def test_compiled() -> None:
    def function(x: Tensor, grid: Tensor) -> list[Tensor]:
        values, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
        sampled = F.grid_sample(values, grid, align_corners=False)
        return [sampled, places, F.adaptive_max_pool2d(x, (5, 3), True)[1], sampled.view(torch.int32) & 1, x.bfloat16().view(torch.int16)]

    args = (IMAGE, rand(2, 4, 5, 2))
    fast = mlc.compile(function, example_inputs=args, strict=True)(*args)
    expected = function(*args)
    torch.testing.assert_close(fast[0], expected[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(fast[1], expected[1]) and torch.equal(fast[2], expected[2])
    assert torch.equal(fast[3], fast[0].view(torch.int32) & 1)
    assert torch.equal(fast[4], args[0].bfloat16().view(torch.int16))
