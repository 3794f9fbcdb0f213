"""Videos in segments: the same frames and tables with any number of workers, in one go or after a crash."""

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
from av.container import InputContainer

import batchemo
from batchemo.atomic import replacing
from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.errors import MediaError
from batchemo.media import decode as opening
from batchemo.media.decode import open_source, split_into_segments
from batchemo.options import RunOptions, Style
from batchemo.pipeline import inference as frames_module
from batchemo.pipeline import segments as parts
from batchemo.pipeline import video as pipeline
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.segments import AnalyseTask, SegmentResult, SegmentTaskResult, load_segment, remove_segments, segment_path
from batchemo.records import EMOTIONS, Frame, MediaRow, Medium, Segment
from batchemo.render import annotated_copy as annotation
from batchemo.render.annotated_copy import annotate
from batchemo.results.paths import table_path, thumbnails_folder
from batchemo.results.schema import Table
from batchemo.run.heartbeat import IsWanted
from batchemo.run.processes import InProcessEngine, ProcessEngine
from batchemo.run.tasks import AnalysisTask, Job, Outcomes
from batchemo.timing import Stopwatch
from batchemo.verify.audit import verify
from batchemo.yuv import Planes
from tests.made_media import face, write_clip
from tests.running import run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
TABLES: tuple[Table, ...] = ("faces", "frames", "tracks", "episodes")
FPS, FRAMES = 24, 96


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SEGMENT_SECONDS", 1.0)


def make_video(path: Path, *, options: dict[str, str], codec: str = "libx264") -> Path:
    """One face that moves before a wall, a cut after two of the four seconds, and the time written into each frame."""
    noise = [np.random.default_rng(i).integers(60 * i, 120 + 60 * i, (192, 256, 3), np.uint8) for i in (0, 1)]
    walls = [np.asarray(cv2.GaussianBlur(each, (0, 0), 5), np.uint8) for each in noise]
    scenes = [walls[index >= 2 * FPS].copy() for index in range(FRAMES)]
    for index, scene in enumerate(scenes):
        scene[30 : 30 + 140, 10 + index : 150 + index] = face(140)
    return write_clip(path, scenes, codec=codec, rate=FPS, options={"g": "12", **options}).path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Medium:
    path = make_video(tmp_path_factory.mktemp("video") / "video.mp4", options={"bf": "2"})
    return Medium(path, "video.mp4", "video.mp4", "video")


def seen(frames: Iterator[Frame]) -> list[tuple[float, int | None]]:
    return [(frame.time_s, zlib.crc32(frame.pixels.data) if frame.is_decoded else None) for frame in frames]


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
    path = make_video(tmp_path / name, options=options, codec=codec)
    medium = Medium(path, name, name, "video")
    segments = split_into_segments(medium, decoder="pyav")
    assert len(segments) == 4
    assert sum(segment.frames for segment in segments) == FRAMES
    parts = [seen(open_source(medium, segment=segment).frames()) for segment in segments]
    assert [len(part) for part in parts] == [segment.frames for segment in segments]
    assert [frame for part in parts for frame in part] == seen(open_source(medium, decoder="pyav").frames())
    sampled = [frame for segment in segments for frame in seen(open_source(medium, segment=segment).frames(sample_fps=7))]
    assert sampled == seen(open_source(medium, decoder="pyav").frames(sample_fps=7))


def test_damage_in_a_segment_is_reported_in_its_place(video: Medium, tmp_path: Path) -> None:
    with av.open(str(video.path)) as container:
        hurt = [packet.pos for packet in container.demux(container.streams.video[0]) if packet.size and packet.pts is not None][40]
    assert hurt is not None
    content = bytearray(video.path.read_bytes())
    content[hurt : hurt + 60] = bytes(60)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(content)
    medium = Medium(path, "hurt.mp4", "hurt.mp4", "video")
    for segment in split_into_segments(medium, decoder="pyav"):
        frames = list(open_source(medium, segment=segment).frames())
        assert len(frames) == segment.frames
        times = sorted(frame.time_s for frame in frames)
        assert segment.start is None or times[0] > (segment.before_s or 0)


def test_no_segment_begins_with_a_key_frame_that_is_damaged(video: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer frames could be decoded from such a key frame than without segments."""
    with av.open(str(video.path)) as container:
        hurt = [packet for packet in container.demux(container.streams.video[0]) if packet.size][24]
    assert hurt.pos is not None
    content = bytearray(video.path.read_bytes())
    content[hurt.pos + 20 : hurt.pos + hurt.size] = bytes(hurt.size - 20)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(content)
    medium = Medium(path, "hurt.mp4", "hurt.mp4", "video")
    in_parts = [frame for part in split_into_segments(medium, decoder="pyav") for frame in seen(open_source(medium, segment=part).frames())]
    assert in_parts == seen(open_source(medium, decoder="pyav").frames())
    with monkeypatch.context() as patch:
        patch.setattr(opening, "SEGMENT_SECONDS", 1.0)
        run_here(path, out=tmp_path / "out", decoder="pyav", annotate=False, report=False)
    assert verify(tmp_path / "out", deep=True).problems == ()


def test_containers_without_reliable_seeking_are_one_segment(tmp_path: Path) -> None:
    path = make_video(tmp_path / "old.avi", options={}, codec="mpeg4")
    (segment,) = split_into_segments(Medium(path, "old.avi", "old.avi", "video"), decoder="pyav")
    assert segment.is_whole


# From segments to tables


class InShortSegments(AnalysisTask):
    """Patches the segment length in worker processes, too."""

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> Outcomes | SegmentTaskResult:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opening, "SEGMENT_SECONDS", 1.0)
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
def uninterrupted(video: Medium, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "SEGMENT_SECONDS", 1.0)
        row = analysed(out, video, InProcessEngine())
    assert (row.status, row.n_frames, row.n_frames_analysed, row.n_tracks) == ("done", FRAMES, FRAMES, 1)
    return out


def times_of(container: InputContainer) -> list[float]:
    found = []
    for frame in container.decode(video=0):
        assert frame.time is not None
        found.append(frame.time)
    return found


def test_several_workers_make_the_tables_that_one_process_makes(video: Medium, uninterrupted: Path, tmp_path: Path) -> None:
    row = analysed(tmp_path, video, ProcessEngine(2, timeout_s=300, max_memory_mb=None))
    assert (row.status, row.n_frames_analysed, row.decoder, row.width, row.height) == ("done", FRAMES, "pyav", 256, 192)
    assert_same(tmp_path, uninterrupted)
    assert not (tmp_path / ".parts").exists()
    assert sorted(path.name for path in thumbnails_folder(tmp_path, video.output).iterdir()) == ["1.jpg"]
    with av.open(str(tmp_path / "annotated" / "video.mp4.mp4")) as joined, av.open(str(video.path)) as source:
        shown, times = times_of(joined), times_of(source)
    assert shown == pytest.approx(np.array(times) - times[0], abs=1e-6)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("engine", [InProcessEngine(), ProcessEngine(2, timeout_s=300, max_memory_mb=None)], ids=["one", "two"])
def test_a_video_that_starts_later_than_its_audio(tmp_path: Path, engine: InProcessEngine | ProcessEngine) -> None:
    path = tmp_path / "late.mp4"
    sound = ["-f", "lavfi", "-i", "sine=440:duration=6"]
    pictures = ["-itsoffset", "2", "-f", "lavfi", "-i", f"testsrc=size=64x48:rate={FPS}:duration=3"]
    codecs = ["-c:v", "libx264", "-g", str(FPS), "-vsync", "passthrough", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-v", "error", *sound, *pictures, *codecs, path], check=True, timeout=60)
    medium = Medium(path, "late.mp4", "late.mp4", "video")
    assert len(split_into_segments(medium, decoder="pyav")) == 3
    row = analysed(tmp_path / "out", medium, engine)
    assert (row.status, row.n_frames_analysed) == ("done", 3 * FPS)
    assert row.starts_s == pytest.approx(2, abs=0.001)
    for file in (path, tmp_path / "out" / "annotated" / "late.mp4.mp4"):
        command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=start_time", "-of", "csv=p=0", str(file)]
        assert float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout) == pytest.approx(2, abs=0.001)


def tracks_of(out: Path) -> list[list[int]]:
    """First and last frame of each track."""
    found: list[list[int]] = batchemo.load(out).groupby("track_id")["frame_index"].agg(["min", "max"]).to_numpy().tolist()
    return found


@pytest.mark.parametrize("style", [Style(), Style(timeline=True)])
def test_several_workers_draw_what_one_process_draws(
    video: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: Style
) -> None:
    drawn: list[tuple[float, int]] = []

    class Recorder(contextlib.nullcontext["Recorder"]):
        def write(self, planes: Planes, time_s: float) -> None:
            drawn.append((time_s, zlib.crc32(planes.as_i420().data)))

    def draw(segment: Segment | None, index_offset: int) -> None:
        annotate(
            video,
            tmp_path / "copy.mp4",
            table_path(uninterrupted, "faces", video.output),
            labels=EMOTIONS,
            decoder="pyav",
            sample_fps=None,
            style=style,
            uncertain_below=0.5,
            on_frame=lambda: None,
            watch=Stopwatch(),
            segment=segment,
            index_offset=index_offset,
        )

    def recorder(*_: object, **__: object) -> Recorder:
        found = Recorder()
        found.enter_result = found
        return found

    monkeypatch.setattr(annotation, "_open_writer", recorder)
    draw(None, 0)
    whole, drawn[:] = list(drawn), []
    offset = 0
    for segment in split_into_segments(video, decoder="pyav"):
        draw(segment, offset)
        offset += segment.frames
    assert len(whole) == FRAMES
    assert drawn == whole


def test_a_face_is_one_track_across_segments_and_the_cut(uninterrupted: Path) -> None:
    assert tracks_of(uninterrupted) == [[0, FRAMES - 1]]


def test_without_embeddings_a_track_ends_at_the_cut_only(video: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SEGMENT_SECONDS", 1.0)
    monkeypatch.setattr(frames_module, "embed_faces", None)
    assert analysed(tmp_path, video, InProcessEngine(), appearance=False, annotate=False).n_tracks == 2
    assert tracks_of(tmp_path) == [[0, 2 * FPS - 1], [2 * FPS, FRAMES - 1]]


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Stops the analysis after that many segments; the result counts those read from then on."""
    read = pipeline.SegmentInference.read_all
    count = 0

    def dying(inference: pipeline.SegmentInference) -> SegmentResult:
        nonlocal count
        count += 1
        if count == parts + 1:
            raise KeyboardInterrupt
        return read(inference)

    monkeypatch.setattr(pipeline.SegmentInference, "read_all", dying)
    return lambda: count - parts - 1


@pytest.mark.parametrize("parts", [1, 3])
def test_a_killed_run_resumes_after_the_last_complete_segment(
    video: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    read_after = stop_after(parts, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, video, InProcessEngine())
    assert not (tmp_path / "frames" / "video.mp4.parquet").exists()
    assert analysed(tmp_path, video, InProcessEngine()).status == "done"
    assert read_after() == 4 - parts
    assert_same(tmp_path, uninterrupted)


def test_segments_of_other_options_are_not_used(video: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_after = stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, video, InProcessEngine())
    assert analysed(tmp_path, video, InProcessEngine(), min_face_px=60).status == "done"
    assert read_after() == 4


def test_a_damaged_segment_file_is_made_again(video: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, video, InProcessEngine())
    path = segment_path(tmp_path, video, split_into_segments(video, decoder="pyav")[0])
    path.write_bytes(path.read_bytes()[:-100])
    assert analysed(tmp_path, video, InProcessEngine()).status == "done"
    assert_same(tmp_path, uninterrupted)


def test_a_segment_file_is_written_while_others_remove_empty_folders(
    video: Medium, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed: list[Path] = []

    @contextlib.contextmanager
    def disturbing(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            if not disturbed:
                disturbed.append(path)
                remove_segments(tmp_path, video)
            yield temporary

    monkeypatch.setattr(parts, "replacing", disturbing)
    assert analysed(tmp_path, video, InProcessEngine()).status == "done"
    assert disturbed
    assert_same(tmp_path, uninterrupted)


def test_a_defect_in_a_task_fails_its_video(video: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [ValueError("so"), MemoryError()]

    def failing(*_: object) -> object:
        raise errors.pop(0)

    monkeypatch.setattr(pipeline, "_analyse_segment", failing)
    task, job = analysis(tmp_path), Job(video, AnalyseTask(split_into_segments(video, decoder="pyav")[0], {}))
    for kind in ("defect", "memory"):
        with pytest.raises(MediaError) as caught:
            task(job)
        assert caught.value.kind == kind


def test_no_template_of_a_face_is_stored(video: Medium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        analysed(tmp_path, video, InProcessEngine())
    segment = split_into_segments(video, decoder="pyav")[0]
    path = segment_path(tmp_path, video, segment)
    with np.load(path) as stored:
        origin = json.loads(stored["facts"].tobytes())["origin"]
    part = load_segment(path, segment, origin=origin)
    assert part is not None
    assert all(each.embeddings is None for each in part)
