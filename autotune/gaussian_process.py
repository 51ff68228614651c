"""Gaussian process regression for a few dozen points (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006)."""

from __future__ import annotations

import numpy as np

_LENGTHS = (0.25, 0.5, 1.0)
_NOISE = 0.03
"""Standard deviation of the noise of log times: measurements repeat within a few per cent."""


class GaussianProcess:
    """A function with an unknown constant mean and squared-exponential covariance, seen at ``points`` [n, d] as ``values`` [n].

    Of a few length scales the most likely one is taken. ``prior_deviation`` is that of the function about its mean.
    """

    def __init__(self, points: np.ndarray, values: np.ndarray, prior_deviation: float) -> None:
        self._points = points
        # The common offset is far more uncertain than the shape: it enters as a constant of large variance.
        self._mean = float(np.mean(values))
        self._deviation = max(prior_deviation, float(np.std(values)))
        best = -np.inf
        for length in _LENGTHS:
            covariance = self._covariance(points, points, length) + _NOISE**2 * np.eye(len(points))
            factor = np.linalg.cholesky(covariance)
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, values - self._mean))
            likelihood = -0.5 * float((values - self._mean) @ weights) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self._length, self._factor, self._weights = likelihood, length, factor, weights

    def _covariance(self, left: np.ndarray, right: np.ndarray, length: float) -> np.ndarray:
        square = ((left[:, None, :] - right[None, :, :]) ** 2).sum(-1)
        return np.asarray(self._deviation**2 * np.exp(-0.5 * square / length**2))

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at ``points`` [m, d]."""
        cross = self._covariance(points, self._points, self._length)
        mean = self._mean + cross @ self._weights
        solved = np.linalg.solve(self._factor, cross.T)
        variance = self._deviation**2 - (solved**2).sum(0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))
