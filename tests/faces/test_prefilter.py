"""The pre-filter rejects no face, and most of the work; its training teaches it what the proposal network sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import batchemo.faces.cascade
from batchemo.errors import BatchemoError
from batchemo.faces.cascade import Cascade
from batchemo.faces.mtcnn import load_networks
from batchemo.faces.prefilter import (
    BLOCK_CELLS,
    BLOCK_FEATURES,
    CELL_FEATURES,
    Prefilter,
    PrefilterNet,
    extract_patches,
    load_prefilter,
    pad_to_blocks,
)
from batchemo.faces.pyramid import MipPyramid
from tests.faces.photographs import photograph, tensor
from training.prefilter.fitting import proposal_features

SAMPLES = Path(__file__).parents[2] / "sample_media"
CPU = torch.device("cpu")


@pytest.fixture
def cascade() -> Cascade:
    return Cascade(min_face_px=40, exact=False, device=CPU)


def first(pixels: np.ndarray) -> torch.Tensor:
    """Features of a picture (RGB) after the first maxima of the proposal network."""
    return proposal_features(load_networks()[0], tensor(pixels)).contiguous(memory_format=torch.channels_last)


def prefilter_with(bias: float) -> Prefilter:
    """A pre-filter that passes everything, or nothing."""
    network = PrefilterNet()
    torch.nn.init.constant_(network.conv3.get_parameter("bias"), bias)
    return Prefilter(network)


@given(st.integers(5, 60), st.integers(5, 60))
def test_padding_completes_blocks_and_adds_hardly_more(rows: int, columns: int) -> None:
    features = torch.rand(2, 10, rows, columns)
    whole = pad_to_blocks(features)
    assert torch.equal(whole[:, :, :rows, :columns], features)
    assert torch.equal(whole[:, :, -1, -1], features[:, :, -1, -1]), "the last ones, again"
    for side, padded in zip((rows, columns), whole.shape[2:], strict=True):
        assert side <= padded <= side + 1
        assert (padded - CELL_FEATURES + 1) % BLOCK_CELLS == 0
    assert whole.is_contiguous(memory_format=torch.channels_last)


@given(st.integers(6, 30), st.integers(6, 30))
def test_patches_are_the_receptive_fields_of_blocks(rows: int, columns: int) -> None:
    features = torch.rand(2, 3, rows, columns).contiguous(memory_format=torch.channels_last)
    steps = ((side - BLOCK_FEATURES) // BLOCK_CELLS + 1 for side in (rows, columns))
    blocks = torch.cartesian_prod(torch.arange(2), *(torch.arange(count) for count in steps))
    for patch, (picture, row, column) in zip(extract_patches(features, blocks), blocks.tolist(), strict=True):
        top, left = row * BLOCK_CELLS, column * BLOCK_CELLS
        assert torch.equal(patch, features[picture, :, top : top + BLOCK_FEATURES, left : left + BLOCK_FEATURES])


def test_the_optimized_prefilter_passes_the_blocks_that_its_network_does() -> None:
    network = load_prefilter()
    features = first(photograph()[:202, :302])
    with torch.inference_mode():
        scores = network(features)
        blocks, share = Prefilter(network).select_blocks(features)
    sure = scores.abs() > 1e-3
    passed = torch.zeros_like(scores, dtype=torch.bool)
    passed[tuple(blocks.T)] = True
    assert torch.equal(passed[sure], (scores > 0)[sure])
    assert share == len(blocks) / scores.numel()
    assert 0 < share < 0.3


@pytest.mark.parametrize("width", [320, 323])
@pytest.mark.parametrize("most", [1.0, 0.25])
def test_all_cells_are_found_if_all_blocks_pass(width: int, most: float, cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchemo.faces.cascade, "_MAX_PASSED_SHARE", most)
    picture = photograph(width=width)
    sizes = [(int(picture.shape[0] * scale), int(width * scale)) for scale in (0.5, 0.33, 0.07)]
    with torch.inference_mode():
        pyramid = MipPyramid([picture, picture])
        expected, ours = cascade._scan(pyramid, sizes), cascade._scan_prefiltered(prefilter_with(1e6), pyramid, sizes)

    def cells(found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> dict[tuple[int, ...], torch.Tensor]:
        features, places, levels = found
        return {(level, *place): each for level, place, each in zip(levels.tolist(), places.tolist(), features, strict=True)}

    expected_cells, our_cells = cells(expected), cells(ours)
    both = expected_cells.keys() & our_cells.keys()
    assert len(both) > 20
    for key in both:
        torch.testing.assert_close(our_cells[key], expected_cells[key], rtol=1e-4, atol=1e-4)
    weight, bias = cascade._log_odds
    for key, features in (expected_cells | our_cells).items():
        assert key in both or float(features @ weight + bias) == pytest.approx(np.log(4), abs=1e-3), "at the threshold"


def test_a_dense_scan_follows_if_many_blocks_pass(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cascade.detect([photograph()])
    cascade._prefilter = prefilter_with(1e6)
    monkeypatch.setattr(batchemo.faces.cascade, "extract_patches", None)
    (found,) = cascade.detect([photograph()])
    assert len(found) == len(expected[0]) == 1
    assert found.iou(expected[0]).item() > 0.9


def test_no_face_is_found_if_no_block_passes(cascade: Cascade) -> None:
    cascade._prefilter = prefilter_with(-1e6)
    assert len(cascade.detect([photograph()])[0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("blocks_at_once", [1, 1024])
def test_no_face_of_the_samples_is_lost_and_most_blocks_are_rejected(
    blocks_at_once: int, cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all sizes, lights and turns that a face may come in."""
    monkeypatch.setattr(batchemo.faces.cascade, "_BLOCK_BATCH", blocks_at_once)
    shares = []

    class Watched(Prefilter):
        def select_blocks(self, features: torch.Tensor) -> tuple[torch.Tensor, float]:
            blocks, share = super().select_blocks(features)
            shares.append((len(blocks), len(blocks) / share if share else 0))
            return blocks, share

    cascade._prefilter = Watched(load_prefilter())
    plain = Cascade(min_face_px=40, exact=False, device=CPU)
    plain._prefilter = None
    faces = 0
    for name in ("grace_hopper", "eileen_collins"):
        for width in (120, 200, 320, 450, 640)[:: 2 if blocks_at_once == 1 else 1]:
            picture = photograph(name, width=width)
            height = picture.shape[0]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), 15, 1)
            dark, grey = (picture * 0.3).astype(np.uint8), cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            # Faces that the right and the lower edge cut off, too.
            for each in (
                picture,
                dark,
                np.asarray(grey, np.uint8),
                np.asarray(cv2.warpAffine(picture, turn, (width, height)), np.uint8),
                picture[:, : width // 2],
            ):
                (expected,), (found,) = plain.detect([each]), cascade.detect([each])
                assert len(found) == len(expected)
                faces += len(found)
                assert not len(found) or found.iou(expected).max(axis=1).min() > 0.8
    assert faces >= 20
    passed, blocks = map(sum, zip(*shares, strict=True))
    assert 0 < passed / blocks < 0.1


def test_the_exact_detector_needs_no_prefilter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchemo.faces.cascade, "load_prefilter", None)
    Cascade(min_face_px=40, exact=True, device=CPU)


def test_a_prefilter_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path / "damaged.safetensors"):
        if "damaged" in path.name:
            path.write_bytes(b"{}")
        with pytest.raises(BatchemoError, match=f"{path.name}.*reinstall batchemo"):
            load_prefilter(path)
