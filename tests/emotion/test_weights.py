"""Weights files: what is written is read back, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from batchemo.emotion.model import ExpressionNet, NetworkSpec, multiply_adds
from batchemo.emotion.weights import expected_sha256, half_precision, load_weights, save_weights, sha256_path
from batchemo.errors import WeightsError
from batchemo.records import EMOTIONS

SPEC = NetworkSpec(stem=8, widths=(8, 16), blocks=(1, 1))


@pytest.fixture
def network() -> ExpressionNet:
    torch.manual_seed(1)
    network = ExpressionNet(SPEC)
    network(torch.rand(8, 1, 48, 48))  # so that running means and variances are not those of a new network
    return network.eval()


@pytest.fixture
def path(tmp_path: Path, network: ExpressionNet) -> Path:
    save_weights(tmp_path / "net.safetensors", network, labels=EMOTIONS, temperature=1.25, figures={"accuracy": 0.7, "split": "PublicTest"})
    return tmp_path / "net.safetensors"


def test_what_is_written_is_read_back(path: Path, network: ExpressionNet) -> None:
    loaded = load_weights(path)
    assert (loaded.labels, loaded.temperature) == (EMOTIONS, 1.25)
    assert loaded.figures == {"accuracy": 0.7, "split": "PublicTest"}
    assert loaded.network.spec == SPEC
    assert not loaded.network.training
    crops = torch.randint(0, 256, (4, 1, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded.network(crops), half_precision(network)(crops))
        torch.testing.assert_close(loaded.network(crops), network(crops), atol=0.02, rtol=0.02)


def test_the_hash_is_that_of_the_file_and_sha256sum_can_check_it(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(path).sha256 == expected_sha256(path) == digest
    assert sha256_path(path).read_text() == f"{digest}  net.safetensors\n"


def test_a_flipped_byte_is_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.safetensors: damaged: its SHA-256"):
        load_weights(path)


@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_a_truncated_file_without_its_hash_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    sha256_path(path).unlink()
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(path)


def test_a_renamed_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    torch.save(ExpressionNet(SPEC).state_dict(), path)
    with pytest.raises(WeightsError, match="not a weights file"):
        load_weights(path)


def test_tensors_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(ExpressionNet(SPEC).state_dict(), path, {"format": "pt"})
    with pytest.raises(WeightsError, match="not weights of batchemo"):
        load_weights(path)


def test_tensors_that_do_not_fit_the_described_network_are_refused(tmp_path: Path, network: ExpressionNet) -> None:
    network.spec = NetworkSpec(stem=8, widths=(8, 32), blocks=(1, 1))
    save_weights(tmp_path / "net.safetensors", network, labels=EMOTIONS, temperature=1.0, figures={})
    with pytest.raises(WeightsError, match="damaged weights"):
        load_weights(tmp_path / "net.safetensors")


def test_labels_must_be_as_many_as_classes(tmp_path: Path, network: ExpressionNet) -> None:
    save_weights(tmp_path / "net.safetensors", network, labels=("happy", "sad"), temperature=1.0, figures={})
    with pytest.raises(WeightsError, match="2 labels for 7 classes"):
        load_weights(tmp_path / "net.safetensors")


def test_a_missing_file_says_which_option_gives_another(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"net\.safetensors: cannot read .* --weights FILE"):
        load_weights(tmp_path / "net.safetensors")


def test_a_spec_survives_json() -> None:
    assert NetworkSpec.from_json(SPEC.to_json()) == SPEC
    assert json.loads(SPEC.to_json())["widths"] == [8, 16]


def test_brightness_and_contrast_of_a_crop_do_not_matter(network: ExpressionNet) -> None:
    crop = torch.rand(1, 1, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(network(crop), network(crop * 0.5 + 0.2), atol=1e-3, rtol=1e-3)


def test_multiply_adds_of_a_network_counted_by_hand() -> None:
    stem = (1 * 8 + 8 * 8) * 9 * 48 * 48
    first = 2 * 8 * 8 * 9 * 24 * 24
    second = ((8 * 16 + 16 * 16) * 9 + 8 * 16) * 12 * 12
    assert multiply_adds(ExpressionNet(SPEC)) == stem + first + second + 16 * 7


def test_a_loaded_network_takes_crops_of_other_sizes(path: Path) -> None:
    loaded = load_weights(path).network
    with torch.inference_mode():
        assert loaded.features(torch.rand(3, 1, 48, 48)).shape == (3, 16)
        assert loaded(torch.rand(2, 1, 40, 40)).isfinite().all()


def test_files_of_older_versions_are_read_if_their_network_is_supported(tmp_path: Path, path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    old = json.loads(metadata["network"]) | {"architecture": "resnet", "squeeze": 0}
    save_file(load_file(path), tmp_path / "old.safetensors", metadata | {"network": json.dumps(old)})
    assert load_weights(tmp_path / "old.safetensors").network.spec == SPEC
    save_file(load_file(path), tmp_path / "new.safetensors", metadata | {"network": json.dumps(old | {"architecture": "transformer"})})
    with pytest.raises(WeightsError, match=r"unknown network \(.*'architecture'.*update batchemo"):
        load_weights(tmp_path / "new.safetensors")
