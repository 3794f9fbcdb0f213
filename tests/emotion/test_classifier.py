"""Probabilities: one row per crop, in order, summing to 1, for any batch size and however little memory there is."""

from __future__ import annotations

import functools
import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batchemo.devices import choose_device
from batchemo.emotion.classifier import Classifier
from batchemo.emotion.weights import SHIPPED, Weights, load_weights
from batchemo.errors import DeviceError

CPU = torch.device("cpu")
CROPS = np.random.default_rng(7).integers(0, 255, (11, 48, 48), np.uint8)

needs_weights = pytest.mark.skipif(not SHIPPED.exists(), reason="the shipped weights are not in this checkout")


@functools.lru_cache
def weights() -> Weights:
    return load_weights()


@functools.lru_cache
def expected() -> NDArray[np.float32]:
    return Classifier(weights(), device=CPU).classify(CROPS)


@needs_weights
def test_rows_are_probabilities() -> None:
    found = expected()
    assert found.dtype == np.float32
    assert found.shape == (len(CROPS), len(weights().labels))
    np.testing.assert_allclose(found.astype(np.float64).sum(axis=1), 1, atol=1e-6)
    assert (found >= 0).all()


@needs_weights
def test_nothing_in_nothing_out() -> None:
    found = Classifier(weights(), device=CPU).classify(np.empty((0, 48, 48), np.uint8))
    assert found.shape == (0, len(weights().labels))
    assert found.dtype == np.float32


@needs_weights
@pytest.mark.parametrize("size", [1, 4, 11])
def test_the_batch_size_changes_nothing(size: int) -> None:
    np.testing.assert_allclose(Classifier(weights(), device=CPU, batch_size=size).classify(CROPS), expected(), atol=1e-5)


@needs_weights
def test_order_is_kept() -> None:
    np.testing.assert_allclose(Classifier(weights(), device=CPU, batch_size=4).classify(CROPS[::-1]), expected()[::-1], atol=1e-5)
    assert np.abs(expected()[0] - expected()[1]).max() > 1e-4


@needs_weights
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_batches_that_do_not_fit_are_halved_and_stay_so(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier(weights(), device=CPU, batch_size=16)
    sizes: list[int] = []
    classify_batch = classifier._classify_batch

    def short_of_memory(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(crops))
        if len(crops) > 3:
            raise error("too little")
        return classify_batch(crops)

    monkeypatch.setattr(classifier, "_classify_batch", short_of_memory)
    with caplog.at_level(logging.WARNING, "batchemo"):
        found = classifier.classify(CROPS)
    np.testing.assert_allclose(found, expected(), atol=1e-5)
    assert sizes[:3] == [11, 5, 2]
    assert sum(sizes[2:]) == len(CROPS)
    assert "2 crops a batch" in caplog.text
    sizes.clear()
    classifier.classify(CROPS[:4])
    assert sizes == [2, 2]


@needs_weights
def test_one_crop_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(weights(), device=CPU, batch_size=2)

    def never(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise torch.OutOfMemoryError("none at all")

    monkeypatch.setattr(classifier, "_classify_batch", never)
    with pytest.raises(torch.OutOfMemoryError):
        classifier.classify(CROPS)


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(DeviceError, match="--device auto, cpu, cuda or cuda:N"):
        choose_device("tpu")
    with pytest.raises(DeviceError, match="batchemo doctor"):
        choose_device("cuda:99")
