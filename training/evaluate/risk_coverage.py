"""The risk-coverage curve, and the confidence below which a prediction is uncertain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from training.evaluate.calibration import Floats

POINTS = 50
"""Points of the curve, at equal steps of coverage."""

_EVEN_CHANCE = 0.5
_RESAMPLES = 200


def risk_coverage(confidences: Floats, correct: NDArray[np.bool_]) -> dict[str, Any]:
    """The risk-coverage curve of N predictions, most confident first (El-Yaniv & Wiener 2010).

    Keys: `curve`, a list of points with `coverage` (fraction kept), `risk` (fraction of these that is wrong) and `threshold` (their lowest
    confidence); `aurc`, the mean risk over all coverages (0 is best). Predictions of equal confidence stay together.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences = confidences[order]
    last_of_its_confidence = np.append(sorted_confidences[1:] != sorted_confidences[:-1], True)
    kept = np.arange(1, len(order) + 1)
    risks = np.cumsum(~correct[order]) / kept
    (ends,) = np.nonzero(last_of_its_confidence)
    chosen = np.unique(ends[np.searchsorted(ends, np.linspace(len(order) / POINTS, len(order), POINTS).round().astype(int) - 1)])
    curve = [{"coverage": float(kept[i] / len(order)), "risk": float(risks[i]), "threshold": float(sorted_confidences[i])} for i in chosen]
    return {"curve": curve, "aurc": float(risks.mean())}


def uncertain_below(confidences: Floats, correct: NDArray[np.bool_]) -> float:
    """The confidence below which a prediction is more likely wrong than right.

    This is Chow's rule (1970) if a mistake costs twice as much as an abstention. The probability of being right is fitted by isotonic
    regression on the confidence.
    """
    levels, level, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    shares = np.bincount(level, weights=correct) / counts
    likely_right = isotonic_regression(shares, weights=counts).x
    first = int(np.searchsorted(likely_right, _EVEN_CHANCE))
    return 0.0 if first == 0 else 1.0 if first == len(levels) else float(levels[first])


def uncertain_interval(confidences: Floats, correct: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of `uncertain_below`."""
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(correct), len(correct)) for _ in range(_RESAMPLES))
    low, high = np.percentile([uncertain_below(confidences[chosen], correct[chosen]) for chosen in drawn], [2.5, 97.5])
    return float(low), float(high)
