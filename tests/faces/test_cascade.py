"""The cascade against facenet-pytorch's own driver of the same networks, on the faces of `sample_media`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from batchemo.faces.cascade import Cascade, _FirstMaxima, _Integrals, _Mips, _suppress
from batchemo.faces.detector import DetectorKind, MtcnnDetector
from batchemo.faces.mtcnn import load_networks
from batchemo.records import Faces

SAMPLES = Path(__file__).parents[2] / "sample_media"
CPU = torch.device("cpu")
MIN_FACE_PX = 40


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def every(step: int, name: str) -> list[NDArray[np.uint8]]:
    with av.open(str(SAMPLES / name)) as container:
        return [frame.to_ndarray(format="rgb24") for index, frame in enumerate(container.decode(video=0)) if index % step == 0]


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    """Frames of one size: two people, one, none; sharp, shrunk to the smallest face, turned, dark."""
    clips = [*every(20, "two_people_and_a_cut.mp4"), *every(25, "pan_and_zoom.mp4")]
    height, width = clips[0].shape[:2]
    turned = cv2.warpAffine(clips[0], cv2.getRotationMatrix2D((width / 2, height / 2), 17, 1), (width, height))
    small = np.zeros_like(clips[0])
    small[: height // 2, : width // 2] = cv2.resize(clips[0], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return [*clips, turned, small, (clips[0] * 0.4).astype(np.uint8), np.zeros_like(clips[0])]


@pytest.fixture(scope="module")
def stock(frames: list[NDArray[np.uint8]]) -> list[Faces]:
    network = MTCNN(min_face_size=MIN_FACE_PX, keep_all=True, device=CPU)
    found = []
    for frame in frames:
        boxes, scores, points = network.detect(frame, landmarks=True)
        found.append(Faces.none() if boxes is None else Faces(*(np.asarray(each, np.float32) for each in (boxes, points, scores))))
    return found


def overlaps(first: Faces, second: Faces) -> NDArray[np.float64]:
    a, b = first.boxes.astype(float), second.boxes.astype(float)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / (sizes[0][:, None] + sizes[1][None] - shared))


def test_exact_is_what_facenet_pytorch_finds(frames: list[NDArray[np.uint8]], stock: list[Faces]) -> None:
    found = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="exact", device=CPU).detect(frames)
    assert sum(map(len, stock)) >= 20
    assert [len(faces) for faces in found] == [len(faces) for faces in stock]
    for ours, theirs in zip(found, stock, strict=True):
        order = overlaps(ours, theirs).argmax(axis=1) if len(ours) else []
        np.testing.assert_allclose(ours.boxes, theirs.boxes[order], atol=1e-3)
        np.testing.assert_allclose(ours.landmarks, theirs.landmarks[order], atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores[order], atol=1e-3)


@pytest.mark.parametrize("in_films", [False, True])
def test_fast_finds_the_same_faces_and_no_others(in_films: bool, frames: list[NDArray[np.uint8]], stock: list[Faces]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="fast", device=CPU)
    found = [detector.search(frame, None, thorough=False) for frame in frames] if in_films else detector.detect(frames)
    best = []
    for ours, theirs in zip(found, stock, strict=True):
        assert len(ours) == len(theirs)
        best.extend(overlaps(theirs, ours).max(axis=1, initial=0))
    assert min(best) > 0.6
    assert np.mean(best) >= 0.9


@pytest.mark.parametrize(("kind", "thorough", "expected"), [("fast", True, 9), ("fast", False, 5), ("exact", False, 9)])
def test_what_is_searched_again_soon_is_searched_at_fewer_scales(
    kind: DetectorKind, thorough: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []

    def scaled(pictures: _Mips | _Integrals, height: int, width: int) -> torch.Tensor:
        sizes.append((height, width))
        return real[type(pictures)](pictures, height, width)

    real: dict[type, Callable[..., torch.Tensor]] = {each: each.scaled for each in (_Mips, _Integrals)}
    for pictures in real:
        monkeypatch.setattr(pictures, "scaled", scaled)
    MtcnnDetector(min_face_px=40, kind=kind, device=CPU).search(np.zeros((720, 1280, 3), np.uint8), None, thorough=thorough)
    assert len(set(sizes)) == expected


@pytest.mark.parametrize("thorough", [True, False])
def test_a_search_is_of_the_whole_or_of_parts(thorough: bool, frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="fast", device=CPU)
    whole = detector.search(frames[0], None, thorough=thorough)
    assert len(whole)
    if thorough:
        np.testing.assert_array_equal(whole.boxes, detector.detect(frames[:1])[0].boxes)
    height, width = frames[0].shape[:2]
    (left, top, _, _), (_, _, right, bottom) = whole.boxes.min(axis=0) - 60, whole.boxes.max(axis=0) + 60
    area = max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom))
    parts = detector.search(frames[0], [area], thorough=thorough)
    assert len(parts) == len(whole)
    assert overlaps(parts, whole).max(axis=1).min() > 0.8
    assert len(detector.search(frames[0], [], thorough=thorough)) == 0


def test_exact_searches_as_it_detects(frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="exact", device=CPU)
    for thorough in (True, False):
        found = detector.search(frames[0], None, thorough=thorough)
        np.testing.assert_array_equal(found.boxes, detector.detect(frames[:1])[0].boxes)


@pytest.mark.parametrize("exact", [True, False])
def test_many_frames_at_once_are_as_one_by_one(exact: bool, frames: list[NDArray[np.uint8]]) -> None:
    cascade = Cascade(min_face_px=MIN_FACE_PX, exact=exact, device=CPU)
    together = cascade.find(frames[::4])
    for frame, faces in zip(frames[::4], together, strict=True):
        (alone,) = cascade.find([frame])
        np.testing.assert_allclose(faces.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(faces.landmarks, alone.landmarks, atol=1e-3)


def test_largest_faces_come_first_and_small_frames_have_none(frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, device=CPU)
    for faces in detector.detect(frames):
        sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
        assert (np.diff(sizes) <= 0).all()
    assert [len(faces) for faces in detector.detect([np.zeros((39, 500, 3), np.uint8)] * 2)] == [0, 0]
    assert detector.detect([]) == []


def test_fast_leaves_out_faces_whose_middle_is_not_in_the_picture() -> None:
    entering = every(1, "pan_and_zoom.mp4")[92:97]
    fast, exact = (MtcnnDetector(min_face_px=MIN_FACE_PX, kind=kind, device=CPU).detect(entering) for kind in ("fast", "exact"))
    middles = np.concatenate([(faces.boxes[:, 0] + faces.boxes[:, 2]) / 2 for faces in fast])
    assert len(middles) >= 2
    assert (middles >= 0).all()
    assert sum(map(len, exact)) >= len(middles)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(12, 90), st.integers(12, 90), st.integers(2, 40), st.integers(2, 40))
def test_integral_images_give_the_means_of_adaptive_pooling(height: int, width: int, rows: int, columns: int) -> None:
    frame = noise(height, width)
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    integrals = _Integrals.of([frame])
    assert torch.equal(integrals.scaled(rows, columns), functional.adaptive_avg_pool2d(pixels, (rows, columns)))
    area = [height // 5, height - height // 7, width // 6, width - width // 4]
    crop = functional.adaptive_avg_pool2d(pixels[:, :, area[0] : area[1], area[2] : area[3]], (24, 24))
    assert torch.equal(integrals.crops(torch.zeros(1, dtype=torch.int64), torch.tensor([area]), 24), crop)


def test_integral_images_made_on_a_device_are_those_of_the_cpu() -> None:
    frames = [noise(50, 70, seed) for seed in range(3)]
    ours, theirs = _Integrals.on(CPU, frames), _Integrals.of(frames)
    assert torch.equal(ours.scaled(20, 30), theirs.scaled(20, 30))


def test_integral_images_may_wrap_around() -> None:
    # 4,000 x 2,800 white pixels sum to more than an int32 holds.
    frame = np.full((2800, 4000, 3), 255, np.uint8)
    assert (_Integrals.of([frame]).scaled(9, 11) == 255).all()


@given(st.integers(40, 400), st.integers(40, 400), st.floats(0.02, 1))
def test_halved_pictures_give_the_size_that_is_asked_for(height: int, width: int, scale: float) -> None:
    pictures = _Mips([np.full((height, width, 3), 77, np.uint8)])
    scaled = pictures.scaled(max(1, int(height * scale)), max(1, int(width * scale)))
    assert scaled.shape == (1, 3, max(1, int(height * scale)), max(1, int(width * scale)))
    assert (scaled == 77).all()
    areas = torch.tensor([[0, height, 0, width], [height - 1, height, width - 1, width]])
    crops = pictures.crops(torch.zeros(2, dtype=torch.int64), areas, 24)
    assert crops.shape == (2, 3, 24, 24)
    assert (crops == 77).all()


@given(st.integers(12, 40), st.integers(12, 40), st.integers(0, 9))
def test_the_first_layers_together_give_what_they_give_one_after_the_other(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    conv, rectify = nn.Conv2d(3, 10, 3), nn.PReLU(10)
    rectify.weight.data = torch.linspace(-1.4, 1.4, 10)
    pixels = torch.randint(256, (2, 3, height, width)).float().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = functional.max_pool2d(rectify(conv((pixels - 127.5) / 128)), 2, 2, ceil_mode=True)
        together = _FirstMaxima(conv, rectify)
        torch.testing.assert_close(together(pixels), expected, rtol=0, atol=1e-5)
        with pytest.MonkeyPatch.context() as patch:  # as on a GPU, or in a torch without oneDNN
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            torch.testing.assert_close(together(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [40, 47, 94])  # 47 * (12 / 47) < 12
def test_a_picture_as_small_as_the_smallest_face_can_be_searched(side: int) -> None:
    assert len(MtcnnDetector(min_face_px=side, device=CPU).detect([np.zeros((side, side, 3), np.uint8)])[0]) == 0


def test_the_networks_are_those_of_facenet_pytorch() -> None:
    from facenet_pytorch.models.mtcnn import ONet, RNet

    torch.manual_seed(0)
    _, refine, output = load_networks()
    for ours, theirs, side in ((refine, RNet(), 24), (output, ONet(), 48)):
        crops = torch.randn(5, 3, side, side)
        with torch.inference_mode():
            for one, other in zip(ours(crops), theirs.eval()(crops), strict=True):
                torch.testing.assert_close(one, other)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [0, 1, 250, 1000])
def test_suppression_is_that_of_torchvision(count: int, overlap: float) -> None:
    from torchvision.ops import batched_nms

    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 60
    sizes = torch.rand(count, 2, generator=generator) * 40
    scores = (torch.rand(count, 1, generator=generator) * 20).round() / 20  # many are equal
    boxes = torch.cat((corners, corners + sizes, scores), dim=1)
    for owners in (torch.zeros(count, dtype=torch.int64), torch.randint(0, 3, (count,), generator=generator)):
        expected = batched_nms(boxes[:, :4], boxes[:, 4], owners, overlap)
        assert _suppress(boxes, owners, overlap).tolist() == expected.tolist()


def test_neither_torchvision_nor_the_compiler_of_torch_is_loaded() -> None:
    """They would take 2.6 seconds and 160 MB of each process."""
    unwanted = ("torchvision", "torch._dynamo", "facenet_pytorch")
    script = f"import sys, batchemo.pipeline.video\nprint(*[name for name in {unwanted} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
