"""Videos in segments: the same frames, and the same tables whoever reads them, in one go or after a crash."""

from __future__ import annotations

import contextlib
import json
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.errors import MediaError
from batchemo.media import decode
from batchemo.media.decode import open_source, segments_of
from batchemo.options import RunOptions, Style, merge_options
from batchemo.pipeline import frames as frame_inference
from batchemo.pipeline import segments as parts
from batchemo.pipeline import video
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.segments import AnalyseTask, SegmentResult, SegmentTaskResult, load_segment, remove_segments, segment_path
from batchemo.records import EMOTIONS, Frame, MediaRow, Medium, MediumOutcome, Segment
from batchemo.render import annotated_copy as annotation
from batchemo.render.annotated_copy import annotate
from batchemo.results.schema import table_path, thumbnails_folder
from batchemo.run.heartbeat import IsWanted
from batchemo.run.local import InProcessEngine, ProcessEngine
from batchemo.run.run import RunCallbacks, run_media
from batchemo.run.tasks import AnalysisTask, Job
from batchemo.timing import Stopwatch
from batchemo.verify.audit import verify
from batchemo.yuv import Planes

SAMPLES = Path(__file__).parents[2] / "sample_media"
TABLES = ("faces", "frames", "tracks", "episodes")
FPS, FRAMES = 24, 96


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "SEGMENT_SECONDS", 1.0)


def make_film(path: Path, *, options: dict[str, str], codec: str = "libx264") -> Path:
    """One face that moves before a wall, a cut after two of the four seconds, and the time written into each frame."""
    face = cv2.cvtColor(cv2.resize(cv2.imread(str(SAMPLES / "eileen_collins.jpg")), (140, 140)), cv2.COLOR_BGR2RGB)
    walls = [cv2.GaussianBlur(np.random.default_rng(i).integers(60 * i, 120 + 60 * i, (192, 256, 3), np.uint8), (0, 0), 5) for i in (0, 1)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "12", **options})
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for index in range(FRAMES):
            scene = walls[index >= 2 * FPS].copy()
            scene[30 : 30 + 140, 10 + index : 150 + index] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Medium:
    path = make_film(tmp_path_factory.mktemp("film") / "film.mp4", options={"bf": "2"})
    return Medium(path, "film.mp4", "film.mp4", "video")


def seen(frames: Iterator[Frame]) -> list[tuple[float, int | None]]:
    return [(frame.time_s, zlib.crc32(frame.pixels) if frame.is_decoded else None) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("closed.mp4", "libx264", {"bf": "3"}),
        ("open.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("open.mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("vp9.webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
        ("mpeg4.mov", "mpeg4", {"bf": "2"}),
    ],
)
def test_segments_hold_the_frames_of_the_whole(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path = make_film(tmp_path / name, options=options, codec=codec)
    medium = Medium(path, name, name, "video")
    segments = segments_of(medium, decoder="pyav")
    assert len(segments) == 4
    assert sum(segment.frames for segment in segments) == FRAMES
    parts = [seen(open_source(medium, segment=segment).frames()) for segment in segments]
    assert [len(part) for part in parts] == [segment.frames for segment in segments]
    assert [frame for part in parts for frame in part] == seen(open_source(medium, decoder="pyav").frames())
    sampled = [frame for segment in segments for frame in seen(open_source(medium, segment=segment).frames(sample_fps=7))]
    assert sampled == seen(open_source(medium, decoder="pyav").frames(sample_fps=7))


def test_damage_in_a_segment_is_told_in_its_place(film: Medium, tmp_path: Path) -> None:
    with av.open(str(film.path)) as container:
        hurt = [packet.pos for packet in container.demux(container.streams.video[0]) if packet.size and packet.pts is not None][40]
    content = bytearray(film.path.read_bytes())
    content[hurt : hurt + 60] = bytes(60)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(content)
    medium = Medium(path, "hurt.mp4", "hurt.mp4", "video")
    for segment in segments_of(medium, decoder="pyav"):
        frames = list(open_source(medium, segment=segment).frames())
        assert len(frames) == segment.frames
        times = sorted(frame.time_s for frame in frames)
        assert segment.start is None or times[0] > (segment.before_s or 0)


def test_no_segment_begins_with_a_key_frame_that_is_damaged(film: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer frames could be decoded from there on than at one go."""
    with av.open(str(film.path)) as container:
        hurt = [packet for packet in container.demux(container.streams.video[0]) if packet.size][24]
    content = bytearray(film.path.read_bytes())
    content[hurt.pos + 20 : hurt.pos + hurt.size] = bytes(hurt.size - 20)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(content)
    medium = Medium(path, "hurt.mp4", "hurt.mp4", "video")
    in_parts = [frame for part in segments_of(medium, decoder="pyav") for frame in seen(open_source(medium, segment=part).frames())]
    assert in_parts == seen(open_source(medium, decoder="pyav").frames())
    with monkeypatch.context() as patch:
        patch.setattr(decode, "SEGMENT_SECONDS", 1.0)
        options = merge_options({"workers": 1, "decoder": "pyav", "annotate": False, "report": False}, environment={})
        run_media([path], tmp_path / "out", options, RunCallbacks(lambda _plan, _heartbeats: None, lambda _row: None))
    assert verify(tmp_path / "out", deep=True).problems == ()


def test_containers_that_cannot_be_jumped_into_are_one_segment(tmp_path: Path) -> None:
    path = make_film(tmp_path / "old.avi", options={}, codec="mpeg4")
    (segment,) = segments_of(Medium(path, "old.avi", "old.avi", "video"), decoder="pyav")
    assert segment.is_whole


# From segments to tables


class InShortSegments(AnalysisTask):
    """Also in workers, which know nothing of what was changed here."""

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> MediumOutcome | SegmentTaskResult:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "SEGMENT_SECONDS", 1.0)
            return AnalysisTask.__call__(self, job, wanted=wanted)


def analysis(out: Path, **options: object) -> AnalysisTask:
    heartbeats = out / "heartbeats"
    heartbeats.mkdir(parents=True, exist_ok=True)
    weights = read_weights_file(SHIPPED)
    context = RunContext(out, RunOptions.model_validate({"decoder": "pyav", **options}), "test", weights.labels, weights.sha256)
    return InShortSegments(context, heartbeats)


def analysed(out: Path, medium: Medium, engine: InProcessEngine | ProcessEngine, **options: object) -> MediaRow:
    (outcome,) = engine.run(analysis(out, **options), [medium])
    return outcome.row


def tables(out: Path) -> list[pd.DataFrame]:
    return [batchemo.load(out, table=table) for table in TABLES]


def assert_same(one: Path, other: Path) -> None:
    for first, second in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.fixture(scope="module")
def uninterrupted(film: Medium, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "SEGMENT_SECONDS", 1.0)
        row = analysed(out, film, InProcessEngine())
    assert (row.status, row.n_frames, row.n_frames_analysed, row.n_tracks) == ("done", FRAMES, FRAMES, 1)
    return out


def test_several_workers_make_the_tables_that_one_process_makes(film: Medium, uninterrupted: Path, tmp_path: Path) -> None:
    row = analysed(tmp_path, film, ProcessEngine(2, timeout_s=300, max_memory_mb=None))
    assert (row.status, row.n_frames_analysed, row.decoder, row.width, row.height) == ("done", FRAMES, "pyav", 256, 192)
    assert_same(tmp_path, uninterrupted)
    assert not (tmp_path / ".parts").exists()
    assert sorted(path.name for path in thumbnails_folder(tmp_path, film.output).iterdir()) == ["1.jpg"]
    with av.open(str(tmp_path / "annotated" / "film.mp4.mp4")) as joined, av.open(str(film.path)) as source:
        shown = [float(frame.pts * frame.time_base) for frame in joined.decode(video=0)]
        times = [float(frame.pts * frame.time_base) for frame in source.decode(video=0)]
    assert shown == pytest.approx(np.array(times) - times[0], abs=1e-6)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("engine", [InProcessEngine(), ProcessEngine(2, timeout_s=300, max_memory_mb=None)], ids=["one", "two"])
def test_a_film_that_begins_later_than_its_sound(tmp_path: Path, engine: InProcessEngine | ProcessEngine) -> None:
    path = tmp_path / "late.mp4"
    sound = ["-f", "lavfi", "-i", "sine=440:duration=6"]
    pictures = ["-itsoffset", "2", "-f", "lavfi", "-i", f"testsrc=size=64x48:rate={FPS}:duration=3"]
    codecs = ["-c:v", "libx264", "-g", str(FPS), "-vsync", "passthrough", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-v", "error", *sound, *pictures, *codecs, path], check=True, timeout=60)
    medium = Medium(path, "late.mp4", "late.mp4", "video")
    assert len(segments_of(medium, decoder="pyav")) == 3
    row = analysed(tmp_path / "out", medium, engine)
    assert (row.status, row.n_frames_analysed, row.starts_s) == ("done", 3 * FPS, pytest.approx(2, abs=0.001))
    for file in (path, tmp_path / "out" / "annotated" / "late.mp4.mp4"):
        command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=start_time", "-of", "csv=p=0", file]
        assert float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout) == pytest.approx(2, abs=0.001)


def tracks_of(out: Path) -> list[list[int]]:
    """First and last frame of each."""
    found: list[list[int]] = batchemo.load(out).groupby("track_id")["frame_index"].agg(["min", "max"]).to_numpy().tolist()
    return found


@pytest.mark.parametrize("style", [Style(), Style(timeline=True)])
def test_several_workers_draw_what_one_process_draws(
    film: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: Style
) -> None:
    drawn: list[tuple[float, int]] = []

    class Recorder(contextlib.nullcontext["Recorder"]):
        def write(self, planes: Planes, time_s: float) -> None:
            drawn.append((time_s, zlib.crc32(planes.packed())))

    def draw(segment: Segment | None, index_offset: int) -> None:
        annotate(
            film,
            tmp_path / "copy.mp4",
            table_path(uninterrupted, "faces", film.output),
            labels=EMOTIONS,
            decoder="pyav",
            sample_fps=None,
            style=style,
            uncertain_below=0.5,
            beat=lambda: None,
            watch=Stopwatch(),
            segment=segment,
            index_offset=index_offset,
        )

    def recorder(*_: object, **__: object) -> Recorder:
        found = Recorder()
        found.enter_result = found
        return found

    monkeypatch.setattr(annotation, "_writer", recorder)
    draw(None, 0)
    whole, drawn[:] = list(drawn), []
    offset = 0
    for segment in segments_of(film, decoder="pyav"):
        draw(segment, offset)
        offset += segment.frames
    assert len(whole) == FRAMES
    assert drawn == whole


def test_a_face_is_one_track_across_seams_and_the_cut(uninterrupted: Path) -> None:
    assert tracks_of(uninterrupted) == [[0, FRAMES - 1]]


def test_without_looks_a_track_ends_at_the_cut_and_at_no_seam(film: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "SEGMENT_SECONDS", 1.0)
    monkeypatch.setattr(frame_inference, "embed_faces", None)
    assert analysed(tmp_path, film, InProcessEngine(), appearance=False, annotate=False).n_tracks == 2
    assert tracks_of(tmp_path) == [[0, 2 * FPS - 1], [2 * FPS, FRAMES - 1]]


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Lets the analysis die after so many segments; gives how many are read from then on."""
    read = video.SegmentInference.read_all
    count = 0

    def dying(inference: video.SegmentInference) -> SegmentResult:
        nonlocal count
        count += 1
        if count == parts + 1:
            raise KeyboardInterrupt
        return read(inference)

    monkeypatch.setattr(video.SegmentInference, "read_all", dying)
    return lambda: count - parts - 1


@pytest.mark.parametrize("parts", [1, 3])
def test_a_film_that_dies_goes_on_from_its_last_whole_segment(
    film: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    read_after = stop_after(parts, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, film, InProcessEngine())
    assert not (tmp_path / "frames" / "film.mp4.parquet").exists()
    assert analysed(tmp_path, film, InProcessEngine()).status == "done"
    assert read_after() == 4 - parts
    assert_same(tmp_path, uninterrupted)


def test_parts_made_of_something_else_are_not_used(film: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_after = stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, film, InProcessEngine())
    assert analysed(tmp_path, film, InProcessEngine(), min_face_px=60).status == "done"
    assert read_after() == 4


def test_a_part_that_is_damaged_is_read_again(film: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, film, InProcessEngine())
    path = segment_path(tmp_path, film, segments_of(film, decoder="pyav")[0])
    path.write_bytes(path.read_bytes()[:-100])
    assert analysed(tmp_path, film, InProcessEngine()).status == "done"
    assert_same(tmp_path, uninterrupted)


def test_a_part_is_written_while_others_remove_folders_that_are_empty(
    film: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing, disturbed = parts.replacing, []

    @contextlib.contextmanager
    def disturbing(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            if not disturbed:
                disturbed.append(path)
                remove_segments(tmp_path, film)
            yield temporary

    monkeypatch.setattr(parts, "replacing", disturbing)
    assert analysed(tmp_path, film, InProcessEngine()).status == "done"
    assert disturbed
    assert_same(tmp_path, uninterrupted)


def test_a_defect_in_a_step_costs_its_film(film: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [ValueError("so"), MemoryError()]

    def failing(*_: object) -> object:
        raise errors.pop(0)

    monkeypatch.setattr(video, "_analyse_segment", failing)
    task, job = analysis(tmp_path), Job(film, AnalyseTask(segments_of(film, decoder="pyav")[0], {}))
    for kind in ("defect", "memory"):
        with pytest.raises(MediaError) as told:
            task(job)
        assert told.value.kind == kind


def test_no_template_of_a_face_is_stored(film: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, film, InProcessEngine())
    segment = segments_of(film, decoder="pyav")[0]
    path = segment_path(tmp_path, film, segment)
    with np.load(path) as stored:
        origin = json.loads(stored["facts"].tobytes())["origin"]
    part = load_segment(path, segment, origin=origin)
    assert part is not None
    assert all(each.looks is None for each in part)
