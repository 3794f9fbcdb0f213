"""What integers of eight bits cost: how far their readings are from those in float32, and whether weights should have them at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.emotion.int8 import Int8Net, calibrate_ranges, int8_is_faster
from batchemo.emotion.weights import Weights
from batchemo.options import RunOptions
from training.calibration import calibrate
from training.console import say
from training.dataset import FaceSet
from training.evaluation import scores
from training.fitting import predict

LEAST_AGREEMENT = 0.995
"""Share of the confident readings that must stay as they are."""

_BATCH = 64


def with_ranges(weights: Weights, training: FaceSet, held_back: FaceSet) -> Weights:
    """The same with ranges, measured on `training`; without, where with them more than a few of the pictures in `held_back` of which
    float32 is confident would be read otherwise. Only a processor that calculates so can tell: others leave it untested.
    """
    measured = dataclasses.replace(weights, ranges=calibrate_ranges(weights.network, training.pixels))
    figures = compare(measured, held_back, clean=None)
    if figures is not None and figures["agreement"] < LEAST_AGREEMENT:
        say(
            f"in integers of eight bits {1 - figures['agreement']:.1%} of the {figures['n_confident']} pictures of which the network is "
            "confident would be read otherwise, so these weights run in bfloat16 or float32, which take longer"
        )
        return dataclasses.replace(weights, ranges=None)
    return measured


def compare(weights: Weights, faces: FaceSet, *, clean: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    """`accuracy`, `accuracy_clean` and `ece` with integers of eight bits, and how far they are from float32 on the CPU:

    `agreement` is the share of the `n_confident` pictures (of all where there are none), those that float32 would not call uncertain,
    whose emotion is the same; `change_mean` and `change_largest` are of the probability that moves most of each picture.
    None where the weights have no ranges, or the processor does not calculate so.
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
    reached = scores(found, labels)
    return {
        "accuracy": reached["accuracy"],
        "accuracy_clean": None if clean is None else scores(found[clean], labels[clean])["accuracy"],
        "ece": reached["ece"],
        "n_confident": int(confident.sum()),
        "agreement": float(same[confident].mean() if confident.any() else same.mean()),
        "change_mean": float(changes.mean()),
        "change_largest": float(changes.max()),
    }
