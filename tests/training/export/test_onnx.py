"""ONNX files that read a crop as torch does, and say what their outputs mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from batchemo.emotion.classifier import Classifier
from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.emotion.weights import load_weights, save_weights
from tests.patterns import Done
from training.export import onnx as onnx_export

SPEC = NetworkSpec(stem=8, widths=(16, 16), blocks=(1, 1), drop_path=0.0, classes=3)
LABELS = ("bored", "cheerful", "über")


def weights(path: Path) -> Path:
    torch.manual_seed(0)
    network = ExpressionNet(SPEC)
    network(torch.rand(8, 1, 48, 48))  # so that the norms have statistics of their own
    with torch.no_grad():
        network.head.weight.mul_(0.1)  # logits of the size that a trained network has
    save_weights(path, network, labels=LABELS, temperature=0.7, figures={})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["uint8", "float32"])
def test_a_file_reads_crops_as_the_classifier_does(pixels: str, run: Callable[..., Done], tmp_path: Path) -> None:
    source, path = weights(tmp_path / "net.safetensors"), tmp_path / "net.onnx"
    code, printed, messages = run("export", source, "--to", path, "--input", pixels)
    assert (code, printed) == (0, f"{path}\n")
    assert "differ from torch's by" in messages
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.onnx", "net.safetensors", "net.safetensors.sha256"]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    loaded = load_weights(source)
    assert (json.loads(metadata["labels"]), metadata["weights_sha256"]) == (list(LABELS), loaded.sha256)
    crops = np.random.default_rng(0).integers(0, 256, (5, 48, 48), np.uint8)
    given = crops[:, None] if pixels == "uint8" else crops[:, None].astype(np.float32)
    with torch.inference_mode():
        logits = loaded.network(torch.from_numpy(crops)[:, None])
    expected = torch.softmax(logits.double() / loaded.temperature, dim=1).numpy()
    # The classifier may calculate in bfloat16.
    assert np.allclose(Classifier(loaded, device=torch.device("cpu")).classify(crops), expected, atol=0.02)
    for count in (5, 1):
        (probabilities,) = session.run(None, {"crops": given[:count]})
        assert np.allclose(probabilities, expected[:count], atol=1e-4)
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_a_file_that_reads_otherwise_is_not_written(run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weights(tmp_path / "net.safetensors")
    path = tmp_path / "net.onnx"
    path.write_text("an older file")
    monkeypatch.setattr(onnx_export, "_largest_difference", lambda *_: 2e-4)
    code, _, messages = run("export", source, "--to", path)
    assert code == 2
    assert "net.onnx is not written: its probabilities are up to 0.0002 off torch's" in messages
    assert path.read_text() == "an older file"
    assert not list(tmp_path.glob(".*"))


def test_what_is_missing_is_named_before_anything_is_done(
    run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_NEEDED", ("onnx", "no_such_package"))
    code, _, messages = run("export", "--to", tmp_path / "net.onnx")
    assert code == 2
    assert "exporting needs no_such_package; install what is missing with: pip install 'batchemo[export]'" in messages
