"""Calibrates probabilities by temperature scaling, and measures the expected calibration error."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from batchemo.errors import DataError

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

BINS = 15
"""Bins of equal mass (Guo et al. 2017 use 15, of equal width)."""

_LARGEST_TEMPERATURE = 20.0
"""The search stays between this and its inverse: if all predictions are right there is no finite optimum."""


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The divisor of `logits` (N x classes) that maximises the likelihood of `labels` (N) (Guo et al. 2017).

    Fit it on pictures that the network was not trained on. Raises DataError for no pictures.
    """
    if not len(labels):
        raise DataError("no pictures to fit the temperature on")
    wide = logits.astype(np.float64)

    def negative_log_likelihood(log_temperature: float) -> float:
        log_probabilities = log_softmax(wide / math.exp(log_temperature), axis=1)
        return -float(log_probabilities[np.arange(len(labels)), labels].mean())

    bound = math.log(_LARGEST_TEMPERATURE)
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=(-bound, bound), method="bounded").x)


def calibrate(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """Probabilities, N x classes, of `logits` divided by `temperature`."""
    probabilities: NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probabilities


def cross_calibrate(logits: Floats, labels: Labels) -> NDArray[np.float64]:
    """Probabilities, N x classes. Each half of the pictures gets the temperature that was fitted on the other half.

    The halves are stratified by class. Raises DataError for fewer than two pictures.
    """
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    halves = by_class[::2], by_class[1::2]
    probabilities = np.empty(logits.shape, np.float64)
    for half, other in (halves, halves[::-1]):
        probabilities[half] = calibrate(logits[half], fit_temperature(logits[other], labels[other]))
    return probabilities


def expected_calibration_error(confidences: Floats, correct: NDArray[np.bool_], *, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over `bins` bins of equal mass; 0 is best."""
    order = np.argsort(confidences, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(confidences[part].mean() - correct[part].mean()) for part in parts) / max(1, len(order)))
