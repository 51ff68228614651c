"""Fourier transforms against eager PyTorch: lengths with and without factors, real and complex, axes, norms, windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import check_both_precisions, rand
from torch import Tensor

import mlc

fft = torch.fft


def parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z.resolve_conj())


TRANSFORMS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "complex": (lambda x: (parts(fft.fft(x)), parts(fft.ifft(x, dim=0)), parts(fft.ifft(fft.fft(x) * 2j, norm="ortho"))), (6, 9)),
    "lengths": (
        lambda x: (parts(fft.fft(x, n=5, norm="ortho")), parts(fft.rfft(x, n=20, norm="forward")), fft.irfft(x + 0j, n=7)),
        (3, 12),
    ),
    "real": (
        lambda x: (parts(fft.rfft(x)), parts(fft.rfft(x, dim=0)), fft.irfft(fft.rfft(x)), parts(fft.ihfft(x)), fft.hfft(x + 0j)),
        (5, 8),
    ),
    "odd lengths": (lambda x: (fft.irfft(fft.rfft(x), n=7), fft.irfft(x * (1 + 1j), n=9, dim=0)), (5, 7)),
    "several axes": (lambda x: (parts(fft.fft2(x)), parts(fft.rfft2(x, norm="ortho")), fft.irfft2(fft.rfft2(x), s=x.shape[1:])), (2, 6, 5)),
    "all axes": (lambda x: (parts(fft.fftn(x)), fft.irfftn(fft.rfftn(x), s=x.shape), fft.fft(fft.fft(x, dim=-1), dim=-2).real), (3, 4, 6)),
    "factors": (lambda x: (parts(fft.fft(x + 1j)), fft.irfft(fft.rfft(x))), (2, 780)),
    "a prime": (lambda x: (parts(fft.rfft(x)), fft.irfft(fft.rfft(x), n=389)), (2, 389)),
    "shifts": (lambda x: (fft.fftshift(x), fft.ifftshift(x, dim=1), parts(fft.fftshift(fft.fft(x)))), (3, 5)),
    "windows": (lambda x: windowed(x), (2, 64)),
}


def windowed(x: Tensor) -> list[Tensor]:
    window = torch.hann_window(16, dtype=x.dtype)
    spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
    two_sided = torch.stft(x, 12, center=False, onesided=False, return_complex=True)
    return [parts(spectrum), two_sided.abs(), torch.istft(spectrum, 16, 4, window=window)]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    function, shape = TRANSFORMS[name]
    check_both_precisions(function, [rand(*shape)])


def test_a_compiled_transform_is_as_accurate_as_eager() -> None:
    x = rand(4, 1000)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        z = fft.rfft(x)
        return parts(z), fft.irfft(z * z.abs())

    results, eager, exact = mlc.compile(function, example_inputs=(x,), strict=True)(x), function(x), function(x.double())
    for result, single, truth in zip(results, eager, exact, strict=True):
        bound = max(1e-5, 10 * float((single - truth).norm() / truth.norm()))
        assert float((result - truth).norm() / truth.norm()) < bound
