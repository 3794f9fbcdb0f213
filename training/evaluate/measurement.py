"""Measures a weights file on one split of FER2013, in all ways at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.emotion.weights import Weights
from training.data.fer2013 import FaceSet, clean_part
from training.data.votes import majority_emotion
from training.evaluate.classification import classification_figures, evaluate_against_votes
from training.evaluate.degradation import DEGRADATIONS, degrade
from training.inference import predict


def measure_weights(
    weights: Weights,
    splits: Mapping[str, FaceSet],
    *,
    split: str,
    device: torch.device,
    tta: bool = False,
    degraded: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The keys of `classification_figures`, what was measured (`split`, `tta`, `temperature`, `weights_sha256`), and:

    `ferplus`, if the votes are known: the keys of `evaluate_against_votes`, and the same of the clean part as `clean`;
    `degraded`, if asked for: `meaning`, `accuracy` and `accuracy_clean` of each degradation, and their means as `mean`.
    `report` is called with the meaning of each degradation.
    """
    faces = splits[split]
    clean = clean_part(faces, splits["Training"]).numpy() if "Training" in splits and split != "Training" else None
    if clean is not None and not clean.any():
        clean = None
    network = weights.network.to(device)

    def infer(pixels: torch.Tensor) -> NDArray[np.float32]:
        return predict(network, pixels, device, flips=tta).numpy()

    labels = faces.labels.numpy()
    logits = infer(faces.pixels)
    figures = classification_figures(logits, labels, temperature=weights.temperature, clean=clean)
    figures |= {"split": split, "tta": tta, "temperature": weights.temperature, "weights_sha256": weights.sha256}
    if faces.votes is not None:
        majority, predicted = majority_emotion(faces.votes).numpy(), logits.argmax(axis=1)
        figures["ferplus"] = evaluate_against_votes(predicted, majority)
        if figures["ferplus"] is not None and clean is not None:
            figures["ferplus"]["clean"] = evaluate_against_votes(predicted[clean], majority[clean])
    if degraded:
        figures["degraded"] = _measure_degraded(faces, infer, clean, report)
    return figures


def _measure_degraded(
    faces: FaceSet,
    infer: Callable[[torch.Tensor], NDArray[np.float32]],
    clean: NDArray[np.bool_] | None,
    report: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, degradation in DEGRADATIONS.items():
        report(degradation.meaning)
        right = infer(degrade(faces.pixels, degradation)).argmax(axis=1) == faces.labels.numpy()
        found[name] = {
            "meaning": degradation.meaning,
            "accuracy": float(right.mean()),
            "accuracy_clean": None if clean is None else float(right[clean].mean()),
        }
    means = {
        key: None if clean is None and key != "accuracy" else float(np.mean([part[key] for part in found.values()]))
        for key in ("accuracy", "accuracy_clean")
    }
    return {**found, "mean": {"meaning": "mean of these", **means}}
