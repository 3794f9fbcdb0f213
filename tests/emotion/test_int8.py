"""int8 inference agrees with float32, is independent of the batch, and is chosen if weights and processor allow it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from batchemo.emotion import int8
from batchemo.emotion.classifier import Classifier, choose_precision
from batchemo.emotion.int8 import CalibrationRanges, Int8Net, calibrate_ranges, int8_is_faster, quantization_points
from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.emotion.weights import Weights, load_weights, read_weights_file, save_weights, sha256_path
from batchemo.errors import WeightsError
from batchemo.records import EMOTIONS
from tests.patterns import Done
from training.data.fer2013 import read_splits
from training.evaluate import quantization
from training.evaluate.quantization import compare_int8, with_int8_ranges
from training.export.model_card import measure_for_card, render_card

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = NetworkSpec(stem=16, widths=(24, 32), blocks=(1, 2))

needs_avx2 = pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx2"), reason="this processor has no AVX2")


def crops(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 48, 48), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def smooth(count: int, seed: int = 0) -> torch.Tensor:
    """Crops that differ more than noise does."""
    coarse = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, size=48, mode="bilinear") * 255).to(torch.uint8)


@functools.lru_cache
def random_network(spec: NetworkSpec = SPEC) -> ExpressionNet:
    torch.manual_seed(3)
    network = ExpressionNet(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(smooth(32))  # so that the norms have statistics of their own
    return network.eval()


@needs_avx2
@pytest.mark.parametrize("blocks", [(1, 2), (2, 1)])
def test_logits_are_nearly_those_of_float32(blocks: tuple[int, int]) -> None:
    network = random_network(dataclasses.replace(SPEC, blocks=blocks))
    quantized = Int8Net(network, calibrate_ranges(network, smooth(64)))
    unseen = smooth(32, seed=1)
    with torch.inference_mode():
        expected, found = network(unseen), quantized(unseen)
    assert found.dtype == torch.float64
    spread = expected.std(dim=0).mean()
    assert spread > 0.05
    # The logits of an untrained network differ little between faces. Without one of the network's parts the error is above 2 spreads.
    assert (found - expected).abs().mean() < 0.12 * spread


@needs_avx2
@pytest.mark.parametrize("size", [1, 3, 32])
def test_logits_do_not_depend_on_the_batch(size: int) -> None:
    network = random_network()
    quantized = Int8Net(network, calibrate_ranges(network, smooth(64)))
    mixed = torch.cat([smooth(16, seed=2), crops(15), torch.full((1, 1, 48, 48), 128, dtype=torch.uint8)])
    with torch.inference_mode():
        whole, parts = quantized(mixed), torch.cat([quantized(part) for part in mixed.split(size)])
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_ranges_are_of_the_activations_between_convolutions() -> None:
    network = random_network()
    names = {"stem.2", "stem.5", "stages.0", "stages.0.norm1", "stages.0.shortcut", "stages.1", "stages.1.norm1", "stages.1.shortcut"}
    assert set(quantization_points(network)) == {*names, "stages.2", "stages.2.norm1"}
    pixels = smooth(64)
    ranges = calibrate_ranges(network, pixels)
    assert set(ranges) == set(quantization_points(network))
    with torch.inference_mode():
        after = network.maps(pixels)
    assert ranges["stages.2"] == pytest.approx((after.min().item(), after.max().item()), rel=1e-5)
    assert ranges["stages.0.shortcut"][0] < 0 < ranges["stages.0.shortcut"][1]
    assert calibrate_ranges(network, pixels) == ranges
    assert not any(module._forward_hooks for module in network.modules())


def test_the_processor_and_the_weights_choose_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    without = Weights(random_network(), EMOTIONS, 1.0, "", {})
    ranged = dataclasses.replace(without, ranges={"stem.2": (0.0, 1.0)})
    for avx2, bfloat16, expected in (
        (True, True, ("int8", "bfloat16")),
        (True, False, ("int8", "float32")),
        (False, True, ("bfloat16", "bfloat16")),
        (False, False, ("float32", "float32")),
    ):
        monkeypatch.setattr("batchemo.emotion.classifier.int8_is_faster", lambda avx2=avx2: avx2)
        monkeypatch.setattr("batchemo.emotion.classifier.has_bfloat16", lambda bfloat16=bfloat16: bfloat16)
        assert (choose_precision(ranged, CPU), choose_precision(without, CPU)) == expected
    assert choose_precision(ranged, CUDA) == "float16"


@needs_avx2
def test_the_classifier_runs_in_int8_if_weights_have_ranges(fitted: ExpressionNet, data: Path) -> None:
    splits = read_splits(data)
    weights = Weights(fitted, EMOTIONS, 1.0, "", {}, calibrate_ranges(fitted, splits["Training"].pixels))
    faces = splits["PublicTest"].pixels[:, 0].numpy()
    with torch.inference_mode():
        expected = torch.softmax(fitted(splits["PublicTest"].pixels).double(), dim=1).numpy()
        quantized = torch.softmax(Int8Net(fitted, weights.ranges or {})(splits["PublicTest"].pixels).double(), dim=1).numpy()
    found = Classifier(weights, device=CPU).classify(faces)
    np.testing.assert_allclose(found, quantized, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert np.abs(found - expected).max() > 1e-5


def test_a_file_keeps_its_ranges(tmp_path: Path) -> None:
    network, path = random_network(), tmp_path / "net.safetensors"
    ranges = calibrate_ranges(network, smooth(16))
    save_weights(path, network, labels=EMOTIONS, temperature=1.0, figures={}, ranges=ranges)
    assert load_weights(path).ranges == read_weights_file(path).ranges == ranges
    save_weights(path, network, labels=EMOTIONS, temperature=1.0, figures={})
    assert load_weights(path).ranges is None


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"stem.2": [0, 1]}', "the calibration ranges are of another network"), ("[1]", "damaged, or not a weights file")],
)
def test_ranges_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, random_network(), labels=EMOTIONS, temperature=1.0, figures={})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, "ranges": text})
    sha256_path(path).unlink()
    with pytest.raises(WeightsError, match=rf"net\.safetensors: .*{message}"):
        load_weights(path)


@needs_avx2
def test_weights_that_int8_would_change_too_much_get_no_ranges(
    fitted: ExpressionNet, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = read_splits(data)
    weights = Weights(fitted, EMOTIONS, 1.0, "", {})
    kept = with_int8_ranges(weights, splits["Training"], splits["PublicTest"])
    figures = compare_int8(kept, splits["PublicTest"], clean=None)
    assert figures is not None
    assert figures["agreement"] >= quantization.MIN_AGREEMENT
    assert 0 < figures["change_mean"] < figures["change_largest"] < 0.1
    assert abs(figures["accuracy"] - 1) < 0.5

    def too_small(network: ExpressionNet, pixels: torch.Tensor) -> CalibrationRanges:
        return {name: (low / 20, high / 20) for name, (low, high) in calibrate_ranges(network, pixels).items()}

    monkeypatch.setattr(quantization, "calibrate_ranges", too_small)
    assert with_int8_ranges(weights, splits["Training"], splits["PublicTest"]).ranges is None
    assert "so these weights run in bfloat16 or float32" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_fitting_measures_ranges_and_shipping_adds_those_that_lack(
    run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_AGREEMENT", 0.0)  # a network of one epoch knows nothing
    weights, package = tmp_path / "run" / "weights.safetensors", tmp_path / "package" / "fer2013.safetensors"
    monkeypatch.setattr("batchemo.emotion.weights.SHIPPED", package)
    assert run("fit", recipe_file, "--data", data, "--out", weights.parent, "--epochs", 1).code == 0
    made = load_weights(weights)
    assert made.ranges is not None

    save_weights(weights, made.network, labels=made.labels, temperature=made.temperature, figures=made.figures)
    assert load_weights(weights).ranges is None
    before = weights.read_bytes()
    assert run("ship", weights, "--data", data).code == 0
    shipped = load_weights(package)
    assert shipped.ranges == made.ranges
    assert weights.read_bytes() == before
    for name, tensor in made.network.state_dict().items():
        assert torch.equal(tensor, shipped.network.state_dict()[name])
    assert json.loads(package.with_suffix("").with_name("fer2013.figures.json").read_text())["weights_sha256"] == shipped.sha256


@needs_avx2
def test_the_card_says_what_int8_costs(fitted: ExpressionNet, data: Path, tmp_path: Path) -> None:
    path, splits = tmp_path / "net.safetensors", read_splits(data)
    ranges = calibrate_ranges(fitted, splits["Training"].pixels)
    plain = Weights(fitted, EMOTIONS, 1.0, "", {})
    with torch.inference_mode():
        right = fitted(splits["PublicTest"].pixels).argmax(1) == splits["PublicTest"].labels
    stated = {"accuracy": right.float().mean().item(), "n": len(right), "split": "PublicTest", "parameters": 1, "multiply_adds": 1}
    save_weights(path, plain.network, labels=EMOTIONS, temperature=1.0, figures=stated, ranges=ranges)
    figures = measure_for_card(load_weights(path), data, votes=None, device=CPU)
    text = " ".join(render_card(read_weights_file(path), figures).split())
    assert f"accuracy {100 * figures['int8']['accuracy']:.1f}, clean part" in text
    assert f"{100 * figures['int8']['agreement']:.2f} % stay the same" in text
    assert "eight bits" not in render_card(read_weights_file(path), figures | {"int8": None})


@needs_avx2
def test_int8_is_not_used_if_torch_lacks_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object) -> None:
        raise RuntimeError("expected at most 14 arguments")

    assert int8_is_faster()
    monkeypatch.setattr(Int8Net, "__call__", changed)
    assert not int8._has_operators()
