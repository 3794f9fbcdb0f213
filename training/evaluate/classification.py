"""Computes classification metrics from logits and labels, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from batchemo.errors import DataError
from batchemo.options import RunOptions
from batchemo.records import EMOTIONS
from training.evaluate.calibration import Floats, Labels, calibrate, cross_calibrate, expected_calibration_error
from training.evaluate.risk_coverage import risk_coverage, uncertain_below, uncertain_interval

THRESHOLDS = tuple(sorted({0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, RunOptions().uncertain_below}))
"""Confidence thresholds of the coverage table. batchemo's default of `--uncertain-below` is among them."""

_RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)


def classification_figures(
    logits: Floats, labels: Labels, *, temperature: float, clean: NDArray[np.bool_] | None, names: Sequence[str] = EMOTIONS
) -> dict[str, Any]:
    """Metrics of `logits` (N x classes, with `names`) against `labels` (N). Probabilities use `temperature`.

    Keys: those of `summary_scores`; `ece_cross_fitted` (each half of the pictures with the temperature of the other half); `per_class`;
    `confusion` (rows are labels); `coverage`; `risk_coverage`; `clean`, the scores of the pictures that the mask `clean` (N) marks as
    unseen in training, or None; `uncertain`, the confidence below which a prediction is more likely wrong than right, with its interval
    and coverage, measured on the clean pictures if there are any.
    Raises DataError for fewer than two pictures.
    """
    if len(labels) < 2:
        raise DataError(f"{len(labels)} pictures are too few to evaluate on")
    probabilities = calibrate(logits, temperature)
    crossed = cross_calibrate(logits, labels)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=range(len(names)))
    unseen = clean if clean is not None and clean.any() else None
    return {
        **summary_scores(probabilities, labels),
        **_intervals_of_f1(confusion),
        "ece_cross_fitted": expected_calibration_error(crossed.max(axis=1), crossed.argmax(axis=1) == labels),
        "per_class": _per_class(predicted, labels, names, confusion),
        "confusion": confusion.tolist(),
        "coverage": [_covered(probabilities, labels, threshold) for threshold in THRESHOLDS],
        "risk_coverage": risk_coverage(probabilities.max(axis=1), predicted == labels),
        "uncertain": _uncertain(probabilities, labels) if unseen is None else _uncertain(probabilities[unseen], labels[unseen]),
        "clean": None if unseen is None else summary_scores(probabilities[unseen], labels[unseen]),
    }


def evaluate_against_votes(predicted: Labels, majority: Labels) -> dict[str, Any] | None:
    """Metrics of `predicted` (N, indices into `EMOTIONS`) against FER+'s `majority` (N, of `majority_emotion`).

    Pictures without a majority are left out. `accuracy` counts pictures of contempt, which is no class of the network, as wrong, so that it
    compares with published figures of eight classes; `accuracy_seven` and `per_class_recall` leave them out. None if no picture has a
    majority.
    """
    agreed = majority >= 0
    if not agreed.any():
        return None
    predicted, majority = predicted[agreed], majority[agreed]
    right, seven = predicted == majority, majority < len(EMOTIONS)
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        "n": len(right),
        "n_contempt": int((~seven).sum()),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_seven": float(right[seven].mean()) if seven.any() else None,
        "per_class_recall": {emotion: float(right[majority == i].mean()) for i, emotion in enumerate(EMOTIONS) if (majority == i).any()},
    }


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927); 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def summary_scores(probabilities: NDArray[np.float64], labels: Labels) -> dict[str, Any]:
    """Accuracy with its 95 % interval (Wilson), averages over the classes present, and calibration: one number each."""
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    low, high = wilson_interval(int(correct.sum()), len(labels))
    distances = probabilities - np.eye(probabilities.shape[1])[labels]
    return {
        "n": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(np.mean([correct[labels == label].mean() for label in np.unique(labels)])),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "ece": expected_calibration_error(probabilities.max(axis=1), correct),
        "nll": float(log_loss(labels, probabilities, labels=range(probabilities.shape[1]))),
        "brier": float((distances**2).sum(axis=1).mean()),
    }


def _per_class(predicted: Labels, labels: Labels, names: Sequence[str], confusion: NDArray[np.integer]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of each label; 95 % intervals as `<key>_interval`."""
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    bounds = np.percentile(_resampled_f1(confusion), _PERCENTILES, axis=0).T
    figures: dict[str, dict[str, Any]] = {}
    for index, (name, precision, recall, f1, support) in enumerate(zip(names, *columns, strict=True)):
        figures[name] = {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        hits = int(confusion[index, index])
        figures[name]["precision_interval"] = wilson_interval(hits, int(confusion[:, index].sum()))
        figures[name]["recall_interval"] = wilson_interval(hits, int(support))
        figures[name]["f1_interval"] = tuple(bounds[index].tolist())
    return figures


def _intervals_of_f1(confusion: NDArray[np.integer]) -> dict[str, float]:
    present = confusion.sum(axis=1) + confusion.sum(axis=0) > 0
    low, high = np.percentile(_resampled_f1(confusion)[:, present].mean(axis=1), _PERCENTILES)
    return {"macro_f1_low": float(low), "macro_f1_high": float(high)}


def _resampled_f1(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """F1 of each class in bootstrap resamples (resamples x classes), drawn from the confusion matrix."""
    drawn = np.random.default_rng(0).multinomial(confusion.sum(), confusion.ravel() / confusion.sum(), size=_RESAMPLES)
    matrices = drawn.reshape(-1, *confusion.shape)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    f1: NDArray[np.float64] = 2 * hits / np.maximum(1, matrices.sum(axis=1) + matrices.sum(axis=2))
    return f1


def _uncertain(probabilities: NDArray[np.float64], labels: Labels) -> dict[str, Any]:
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    low, high = uncertain_interval(confidences, correct)
    return {**_covered(probabilities, labels, uncertain_below(confidences, correct)), "threshold_low": low, "threshold_high": high}


def _covered(probabilities: NDArray[np.float64], labels: Labels, threshold: float) -> dict[str, float | None]:
    """Coverage and accuracy of the predictions with at least that confidence; accuracy is None if there are none."""
    kept = probabilities.max(axis=1) >= threshold
    accuracy = float((probabilities.argmax(axis=1) == labels)[kept].mean()) if kept.any() else None
    return {"threshold": threshold, "coverage": float(kept.mean()), "accuracy": accuracy}
