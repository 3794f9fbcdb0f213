"""What is detected and classified is the same on every processor, within the bounds that ARCHITECTURE.md states.

`make processors` runs this module, and all tests that are marked `processor`, as several processors (see `checks/processors.py`).
Run as a program, `python -m tests.test_processors` writes the reference anew; do that only where ATEN_CPU_CAPABILITY=default.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batchemo.emotion.classifier import Classifier, Precision, choose_precision
from batchemo.emotion.weights import SHIPPED, load_weights
from batchemo.faces.align import align_faces
from batchemo.faces.detector import DetectorKind, MtcnnDetector
from batchemo.faces.reid import embed_faces
from batchemo.media.picture import read_picture
from tests.needs import need

ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
KINDS: tuple[DetectorKind, ...] = ("fast", "exact")


def picture(name: str) -> NDArray[np.uint8]:
    return read_picture(ROOT / "sample_media" / name)


def detected(name: str, kind: DetectorKind) -> dict[str, Any]:
    """Boxes, landmarks and embeddings of the faces of a sample picture, and their aligned crops."""
    pixels = picture(name)
    (faces,) = MtcnnDetector(kind=kind, device=CPU).detect([pixels])
    crops = align_faces(pixels, faces)
    embeddings = embed_faces(pixels, faces, crops)
    return {"boxes": faces.boxes, "landmarks": faces.landmarks, "embeddings": embeddings, "crops": crops.pixels}


def classified(crops: NDArray[np.uint8], precision: Precision) -> NDArray[np.float32]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchemo.emotion.classifier.choose_precision", lambda *_: precision)
        return Classifier(load_weights(SHIPPED), device=CPU).classify(crops)


def bounds() -> dict[str, float]:
    """The table of ARCHITECTURE.md: by how much each quantity may differ between processors."""
    section = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Processors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.e-]+) \|$", section, flags=re.MULTILINE)
    return {name: float(bound) for name, bound in rows}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_faces_are_where_they_are_on_every_processor(reference: dict[str, Any], kind: DetectorKind) -> None:
    for name, known in reference["pictures"].items():
        found = detected(name, kind)
        for what in ("boxes", "landmarks", "embeddings"):
            assert np.abs(found[what] - np.array(known[kind][what])).max() <= bounds()[what], (name, what)
        # A crop's corner that lies on the border of a pixel may fall to either side.
        assert np.abs(found["crops"].astype(int) - np.array(known[kind]["crops"], int)).max() <= bounds()["crops"], name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_probabilities_of_one_crop_are_bounded(reference: dict[str, Any], precision: Precision) -> None:
    """In each precision that a processor may choose, also where it has no instructions of its own for it."""
    if precision == "bfloat16":
        need("bfloat16")
    crops = np.array([known[kind]["crops"][0] for known in reference["pictures"].values() for kind in KINDS], np.uint8)
    expected = np.array([known[kind]["probabilities"][0] for known in reference["pictures"].values() for kind in KINDS])
    found = classified(crops, precision)
    assert np.abs(found - expected).max() <= bounds()[precision]
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_what_a_processor_chooses_is_in_the_table() -> None:
    assert choose_precision(load_weights(SHIPPED), CPU) in bounds()


def write_reference() -> None:
    """Faces and probabilities in float32, of this processor."""
    found: dict[str, Any] = {}
    for name in ("eileen_collins.jpg", "grace_hopper.jpg"):
        for kind in KINDS:
            values = detected(name, kind)
            values["probabilities"] = classified(values["crops"], "float32")
            found.setdefault(name, {})[kind] = {key: np.round(value, 6).tolist() for key, value in values.items()}
    REFERENCE.write_text(json.dumps({"torch": torch.__version__, "pictures": found}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_reference()
