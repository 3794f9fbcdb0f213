"""Measures int8 quantization: calibration ranges, and how far int8 predictions are from float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.emotion.int8 import Int8Net, calibrate_ranges, int8_is_faster
from batchemo.emotion.weights import Weights
from batchemo.options import RunOptions
from training.console import say
from training.data.fer2013 import FaceSet
from training.evaluate.calibration import calibrate
from training.evaluate.classification import summary_scores
from training.inference import predict

MIN_AGREEMENT = 0.995
"""Share of the confident predictions that int8 must not change."""

_BATCH = 64


def with_int8_ranges(weights: Weights, training: FaceSet, held_back: FaceSet) -> Weights:
    """`weights` with calibration ranges measured on `training`, or without any if int8 would change too many confident predictions.

    That is tested on `held_back`, and only if this processor supports int8 inference.
    """
    measured = dataclasses.replace(weights, ranges=calibrate_ranges(weights.network, training.pixels))
    figures = compare_int8(measured, held_back, clean=None)
    if figures is not None and figures["agreement"] < MIN_AGREEMENT:
        say(
            f"int8 would change {1 - figures['agreement']:.1%} of the {figures['n_confident']} confident predictions, "
            "so these weights run in bfloat16 or float32, which take longer"
        )
        return dataclasses.replace(weights, ranges=None)
    return measured


def compare_int8(weights: Weights, faces: FaceSet, *, clean: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    """`accuracy`, `accuracy_clean` and `ece` of int8 inference, and its distance from float32 on the CPU.

    `agreement` is the share of equal emotions among the `n_confident` pictures, which float32 does not call uncertain (or among all
    pictures). `change_mean` and `change_largest` are of the largest change of a probability of each picture.
    None if the weights have no ranges, or if the processor does not support int8 inference.
    """
    if weights.ranges is None or not int8_is_faster():
        return None
    labels, cpu = faces.labels.numpy(), torch.device("cpu")
    network = Int8Net(weights.network.to(cpu), weights.ranges)
    with torch.inference_mode():
        logits = torch.cat([network(crops) for crops in faces.pixels.split(_BATCH)])  # type: ignore[no-untyped-call]
    found = calibrate(logits.numpy(), weights.temperature)
    expected = calibrate(predict(weights.network, faces.pixels, cpu).numpy(), weights.temperature)
    confident = expected.max(axis=1) >= RunOptions().uncertain_below
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    changes = np.abs(found - expected).max(axis=1)
    reached = summary_scores(found, labels)
    return {
        "accuracy": reached["accuracy"],
        "accuracy_clean": None if clean is None else summary_scores(found[clean], labels[clean])["accuracy"],
        "ece": reached["ece"],
        "n_confident": int(confident.sum()),
        "agreement": float(same[confident].mean() if confident.any() else same.mean()),
        "change_mean": float(changes.mean()),
        "change_largest": float(changes.max()),
    }
