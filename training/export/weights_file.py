"""Reads, writes and copies weights files together with their hash."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from batchemo.atomic import replacing, write_text
from batchemo.emotion.weights import SHIPPED, Weights, load_weights, save_weights, sha256_path
from batchemo.errors import WeightsError
from batchemo.records import EMOTIONS

WEIGHTS = "weights.safetensors"


def load_emotion_weights(weights: Path | None) -> Weights:
    """The weights at that path, or the shipped ones. Raises WeightsError if their labels are not FER2013's."""
    path = SHIPPED if weights is None else weights
    loaded = load_weights(path)
    if loaded.labels != EMOTIONS:
        raise WeightsError(f"{path} has the labels {', '.join(loaded.labels)}, where FER2013 has {', '.join(EMOTIONS)}; give other weights")
    return loaded


def write_weights(path: Path, weights: Weights) -> None:
    """Writes `path` atomically, and its hash."""
    metadata: dict[str, Any] = {
        "labels": weights.labels,
        "temperature": weights.temperature,
        "figures": weights.figures,
        "ranges": weights.ranges,
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / path.name
        copy_weights(source, path, save_weights(source, weights.network, **metadata))


def copy_weights(source: Path, target: Path, sha256: str) -> None:
    """Copies a weights file and writes its hash. After a stop in between, `load_weights` refuses the file."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    write_text(sha256_path(target), f"{sha256}  {target.name}\n")
