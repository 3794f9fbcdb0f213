"""The sample media are what their truth says, and `make.py` still makes them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).parent.parent / "sample_media"
PICTURES = ("eileen_collins.jpg", "grace_hopper.jpg")
CLIPS = ("pan_and_zoom.mp4", "rotated.mp4", "two_people_and_a_cut.mp4", "variable_rate.mp4")
FASTEST_STEP_S, SLOWEST_STEP_S = 0.015, 0.070


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, SAMPLES / "make.py", "--out", folder], check=True)
    return folder


def truth(name: str, folder: Path = SAMPLES) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8"))
    return loaded


def container_times(path: Path) -> list[Fraction]:
    """Seconds of every packet, in the order of display."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        return sorted(packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None)


def times_in_truth(name: str) -> list[float]:
    return [frame["time_s"] for frame in truth(name)["frames"]]


def upright_frame(path: Path, index: int) -> np.ndarray:
    with av.open(str(path)) as container:
        frame = next(frame for number, frame in enumerate(container.decode(video=0)) if number == index)
        return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def test_media_and_truths_are_complete_and_small() -> None:
    media = {path.name for path in SAMPLES.iterdir() if path.suffix in {".jpg", ".mp4"}}
    assert media == {*PICTURES, *CLIPS}
    assert {truth(name)["media"] for name in media} == media
    assert sum(path.stat().st_size for path in SAMPLES.iterdir() if path.is_file()) < 3_000_000


def test_make_writes_the_committed_truth(made: Path) -> None:
    committed = {path.name: path.read_bytes() for path in SAMPLES.glob("*.json")}
    assert {path.name: path.read_bytes() for path in made.glob("*.json")} == committed


@pytest.mark.parametrize("name", CLIPS)
def test_made_clips_have_the_frames_and_times_of_the_committed(made: Path, name: str) -> None:
    assert container_times(made / name) == container_times(SAMPLES / name)


@pytest.mark.parametrize("name", CLIPS)
def test_container_times_are_those_of_the_truth(name: str) -> None:
    known, times = truth(name), container_times(SAMPLES / name)
    assert len(times) == known["n_frames"] == len(known["frames"])
    assert [frame["index"] for frame in known["frames"]] == list(range(len(times)))
    assert [float(time - times[0]) for time in times] == pytest.approx(times_in_truth(name), rel=0, abs=1e-6)
    base = Fraction(*known["time_base"])
    first = known["frames"][0]["pts"]
    assert [float((frame["pts"] - first) * base) for frame in known["frames"]] == pytest.approx(times_in_truth(name), rel=0, abs=1e-6)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_have_the_size_and_the_face_of_their_truth(name: str) -> None:
    known = truth(name)
    with Image.open(SAMPLES / name) as picture:
        assert picture.size == (known["width"], known["height"])
    (frame,) = known["frames"]
    assert [face["person"] for face in frame["faces"]] == [Path(name).stem]


@pytest.mark.parametrize("name", CLIPS)
def test_faces_are_large_enough_and_mostly_in_plain_sight(name: str) -> None:
    faces = [face for frame in truth(name)["frames"] for face in frame["faces"]]
    assert min(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (face["box"] for face in faces)) >= 40
    assert all(0 < face["visible"] <= 1 for face in faces)
    assert sum(0.3 <= face["visible"] < 0.7 for face in faces) <= 6


def test_only_the_pan_has_sound() -> None:
    for name in CLIPS:
        with av.open(str(SAMPLES / name)) as container:
            assert bool(container.streams.audio) == truth(name)["sound"] == (name == "pan_and_zoom.mp4")


def test_the_sound_is_heard_as_long_as_the_picture_is_seen() -> None:
    with av.open(str(SAMPLES / "pan_and_zoom.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert len(samples) / rate == pytest.approx(times_in_truth("pan_and_zoom.mp4")[-1], abs=0.1)
    assert 0.01 < float(np.sqrt(np.mean(samples**2))) < 0.5


def test_a_short_gap_to_bridge_and_a_long_one_not_to() -> None:
    short, long = (gap["seconds"] for gap in truth("pan_and_zoom.mp4")["gaps"])
    assert short < 0.4
    assert 0.8 < long < 1.3


def test_the_cut_swaps_the_people_and_is_seen_in_the_pixels() -> None:
    known = truth("two_people_and_a_cut.mp4")
    (cut,) = known["cuts"]
    before, after = ({face["person"]: face["box"][0] for face in known["frames"][index]["faces"]} for index in (cut - 1, cut))
    assert before["eileen_collins"] > before["grace_hopper"]
    assert after["eileen_collins"] < after["grace_hopper"]
    path = SAMPLES / known["media"]
    pictures = [upright_frame(path, index).astype(int) for index in (cut - 2, cut - 1, cut)]
    within, across = (float(np.abs(a - b).mean()) for a, b in itertools.pairwise(pictures))
    assert across > 10 * within


def test_the_passing_hides_one_of_the_two() -> None:
    known = truth("two_people_and_a_cut.mp4")
    assert [gap["person"] for gap in known["gaps"]] == ["eileen_collins"]
    assert min(len(frame["faces"]) for frame in known["frames"]) == 1
    assert max(len(frame["faces"]) for frame in known["frames"]) == 2


def test_the_variable_rate_varies() -> None:
    steps = np.diff(times_in_truth("variable_rate.mp4"))
    assert steps.min() >= FASTEST_STEP_S
    assert steps.max() <= SLOWEST_STEP_S
    assert steps.max() > 3 * steps.min()
    assert len(np.unique(steps.round(6))) > 50


@pytest.mark.needs("decord")
def test_the_rotated_clip_is_stored_sideways_and_stands_upright_for_every_decoder() -> None:
    import decord

    path, known = SAMPLES / "rotated.mp4", truth("rotated.mp4")
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
    assert (stored.width, stored.height) == (known["height"], known["width"])
    assert stored.rotation % 360 in {90, 270}
    upright = upright_frame(path, 0)
    assert upright.shape == (known["height"], known["width"], 3)
    by_decord = decord.VideoReader(str(path))[0].asnumpy()
    assert float(np.abs(upright.astype(int) - by_decord).mean()) < 3


def test_the_face_of_the_rotated_clip_is_where_its_truth_says() -> None:
    """Her teeth are brighter than the black collar below her chin, only if she is upright."""
    known = truth("rotated.mp4")
    x1, y1, x2, y2 = known["frames"][0]["faces"][0]["box"]
    picture = upright_frame(SAMPLES / "rotated.mp4", 0)
    middle = slice(round(x1 + 0.4 * (x2 - x1)), round(x1 + 0.6 * (x2 - x1)))
    face = picture[round(y1) : round(y2), middle].mean()
    collar = picture[round(y2 + 0.2 * (y2 - y1)) : round(y2 + 0.4 * (y2 - y1)), middle].mean()
    assert face > 3 * collar
