"""Gaussian process regression for a few dozen points (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006)."""

from __future__ import annotations

import numpy as np

_LENGTHS = (0.25, 0.5, 1.0)
_NOISE = 0.03
"""Standard deviation of the noise of log times: measurements repeat within a few per cent."""


_SLOPE = 0.7
"""Standard deviation of the slope along the trend."""


class GaussianProcess:
    """A function with an unknown mean, an unknown slope along ``trend`` and squared-exponential covariance besides.

    It is seen at ``points`` [n, d], where the trend is ``trend`` [n], as ``values`` [n]. Of a few length scales the most likely
    one is taken. ``prior_deviation`` is that of the function about mean and trend.
    """

    def __init__(self, points: np.ndarray, trend: np.ndarray, values: np.ndarray, prior_deviation: float) -> None:
        self._points, self._trend = points, trend
        # The common offset is far more uncertain than the shape: it is taken from the values.
        self._mean, self._centre = float(np.mean(values)), float(np.mean(trend))
        self._deviation = max(prior_deviation, float(np.std(values)) / 2)
        best = -np.inf
        for length in _LENGTHS:
            covariance = self._covariance(points, trend, points, trend, length) + _NOISE**2 * np.eye(len(points))
            factor = np.linalg.cholesky(covariance)
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, values - self._mean))
            likelihood = -0.5 * float((values - self._mean) @ weights) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self._length, self._factor, self._weights = likelihood, length, factor, weights

    def _covariance(
        self, left: np.ndarray, left_trend: np.ndarray, right: np.ndarray, right_trend: np.ndarray, length: float
    ) -> np.ndarray:
        square = ((left[:, None, :] - right[None, :, :]) ** 2).sum(-1)
        linear = np.outer(left_trend - self._centre, right_trend - self._centre)
        return np.asarray(self._deviation**2 * np.exp(-0.5 * square / length**2) + _SLOPE**2 * linear)

    def predict(self, points: np.ndarray, trend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at ``points`` [m, d] with ``trend`` [m]."""
        cross = self._covariance(points, trend, self._points, self._trend, self._length)
        mean = self._mean + cross @ self._weights
        solved = np.linalg.solve(self._factor, cross.T)
        variance = self._deviation**2 + (_SLOPE * (trend - self._centre)) ** 2 - (solved**2).sum(0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))
