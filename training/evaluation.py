"""How well a network reads expressions, in figures: from its logits and the truth, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.calibration import Floats, Labels, calibrate, cross_calibrate, expected_calibration_error

THRESHOLDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Confidences at which the risk-coverage curve is read."""


def evaluate(
    logits: Floats, labels: Labels, *, temperature: float, clean: NDArray[np.bool_] | None, names: Sequence[str] = EMOTIONS
) -> dict[str, Any]:
    """Figures of `logits` (N x classes, called `names`) against `labels` (N), with probabilities at `temperature`.

    Keys: those of `scores`, then `ece_cross_fitted` (the calibration error with the temperature fitted on the other half
    of these very pictures), `per_class`, `confusion` (rows: truth), `coverage`, and `clean`: the scores of the pictures
    that `clean` (N) marks as unseen in training, None where it marks none.
    Raises DataError for fewer than two pictures.
    """
    if len(labels) < 2:
        raise DataError(f"{len(labels)} pictures are too few to evaluate on")
    probabilities = calibrate(logits, temperature)
    crossed = cross_calibrate(logits, labels)
    predicted = probabilities.argmax(axis=1)
    return {
        **scores(probabilities, labels),
        "ece_cross_fitted": expected_calibration_error(crossed.max(axis=1), crossed.argmax(axis=1) == labels),
        "per_class": _per_class(predicted, labels, names),
        "confusion": confusion_matrix(labels, predicted, labels=range(len(names))).tolist(),
        "coverage": [_covered(probabilities, labels, threshold) for threshold in THRESHOLDS],
        "clean": scores(probabilities[clean], labels[clean]) if clean is not None and clean.any() else None,
    }


def scores(probabilities: NDArray[np.float64], labels: Labels) -> dict[str, Any]:
    """One number each: accuracy with its 95 % interval (Wilson), averages over the classes present, calibration."""
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    interval = binomtest(int(correct.sum()), len(labels)).proportion_ci(0.95, method="wilson")
    distances = probabilities - np.eye(probabilities.shape[1])[labels]
    return {
        "n": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "balanced_accuracy": float(np.mean([correct[labels == label].mean() for label in np.unique(labels)])),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "ece": expected_calibration_error(probabilities.max(axis=1), correct),
        "nll": float(log_loss(labels, probabilities, labels=range(probabilities.shape[1]))),
        "brier": float((distances**2).sum(axis=1).mean()),
    }


def _per_class(predicted: Labels, labels: Labels, names: Sequence[str]) -> dict[str, dict[str, float]]:
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    }


def _covered(probabilities: NDArray[np.float64], labels: Labels, threshold: float) -> dict[str, float | None]:
    """Share of pictures at least as confident as `threshold`, and how many of those are read right: None of none."""
    kept = probabilities.max(axis=1) >= threshold
    accuracy = float((probabilities.argmax(axis=1) == labels)[kept].mean()) if kept.any() else None
    return {"threshold": threshold, "coverage": float(kept.mean()), "accuracy": accuracy}
