"""Measures the throughput of the analysis on this machine, stage by stage."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from batchemo.errors import MediaError, UsageError
from batchemo.media.decode import open_source
from batchemo.media.discover import find_media
from batchemo.options import RunOptions
from batchemo.records import Medium, MediumOutcome
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.plan import make_context
from batchemo.run.processes import InProcessEngine, ProcessEngine, usable_cores
from batchemo.run.tasks import AnalysisTask

_WIDTH, _HEIGHT, _FPS = 1280, 720, 30
FACE = Path(__file__).parent / "face.jpg"
"""A face of 240 px: Eileen Collins, by NASA, in the public domain."""

PICTURES = 200
PICTURE_WIDTH, PICTURE_HEIGHT = 1152, 864
"""A megapixel."""

_MEGABYTE = 2**20
_POLL_SECONDS, _BUSY_POLL_SECONDS = 0.05, 0.5
"""Between two measurements of memory; the second once all cores are busy, as finding the workers costs time of one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Throughput:
    """One line of the table; a picture counts as a frame.

    `frames_per_second` by the clock, without the start; `stages_ms`: CPU milliseconds per frame by stage; `peak_mb`: peak memory of a
    process.
    """

    what: str
    frames: int
    faces: int
    processes: int
    frames_per_second: float
    stages_ms: Mapping[str, float]
    peak_mb: int

    @property
    def limit(self) -> str:
        """The slowest stage."""
        return max(self.stages_ms, key=lambda stage: self.stages_ms[stage], default="")


def measure(given: Path | None, *, seconds: float, min_face_px: int, workers: int | None = None) -> Iterator[Throughput]:
    """Speeds of decoding alone, of tables, and of tables with annotated copies.

    The media are those of `given`, a file or a folder, or generated: clips of `seconds` with one and with five faces, 1280 x 720, and
    pictures of a megapixel. Analysed in `workers` processes, or in one and then in one per core. Media that cannot be decoded are left
    out, with a warning. Raises UsageError where there are no others.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, path in [("", given)] if given is not None else list(_generated(Path(folder), seconds)):
            media = find_media([path], out=Path(folder) / "results")
            if not media:
                raise UsageError(f"{path} holds no pictures or videos; give a folder that does, or none for generated media")
            prefix = f"{name}, " if name else ""
            speed, media = _decoding(media, f"{prefix}decoding alone")
            if not media:
                raise UsageError(f"nothing of {path} can be decoded; give a video, a folder, or none for generated media")
            yield speed
            for processes in sorted({1, usable_cores()} if workers is None else {workers}):
                for annotate in (False, True):
                    what = f"{prefix}{'annotated copies' if annotate else 'tables'}"
                    options = RunOptions(annotate=annotate, min_face_px=min_face_px)
                    yield _analysis(media, what, options, processes)


def fixed_seconds() -> dict[str, float]:
    """Seconds that a run takes before its first frame: to print the help, and to load the networks, each in a process of its own."""
    commands = {
        "help": [sys.executable, "-m", "batchemo", "--help"],
        "start": [sys.executable, "-c", _START],
    }
    taken = {}
    for name, command in commands.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        taken[name] = time.perf_counter() - began
    return taken


_START = """
from batchemo.options import RunOptions
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.inference import models_of
from pathlib import Path
import numpy as np
models_of(RunContext(Path(), RunOptions(), "", (), "")).detector.detect([np.zeros((720, 1280, 3), np.uint8)])
"""


def make_clip(path: Path, *, faces: int, seconds: float) -> Path:
    """Writes a clip of `faces` (at most five) faces of 240 px that move before blurred noise, 1280 x 720, 30 frames a second."""
    face = np.asarray(Image.open(FACE).convert("RGB"), np.uint8)
    wall = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8), (0, 0), 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for index in range(round(seconds * _FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_scene(np.asarray(wall), face, faces, index), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def make_pictures(folder: Path, count: int) -> Path:
    """Writes `count` JPEG pictures of a megapixel into a new `folder`: a face of 240 px somewhere on noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    face = np.asarray(Image.open(FACE).convert("RGB"), np.uint8)
    height, width = face.shape[:2]
    for number in range(count):
        noise = random.integers(0, 255, (PICTURE_HEIGHT // 8, PICTURE_WIDTH // 8, 3), np.uint8)
        scene = np.asarray(cv2.resize(noise, (PICTURE_WIDTH, PICTURE_HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
        top, left = random.integers(0, (PICTURE_HEIGHT - height, PICTURE_WIDTH - width))
        scene[top : top + height, left : left + width] = face
        Image.fromarray(scene).save(folder / f"{number:04}.jpg", quality=90)
    return folder


def _generated(folder: Path, seconds: float) -> Iterator[tuple[str, Path]]:
    for count, name in ((1, "one face"), (5, "five faces")):
        yield name, make_clip(folder / f"{count}.mp4", faces=count, seconds=seconds)
    yield "pictures", make_pictures(folder / "pictures", PICTURES)


def _scene(wall: NDArray[np.uint8], face: NDArray[np.uint8], faces: int, index: int) -> NDArray[np.uint8]:
    scene = wall.copy()
    height, width = face.shape[:2]
    for person in range(faces):
        left = round(10 + 252 * person + 6 * np.sin(index / 9 + person))
        top = round(200 + 60 * np.sin(index / 14 + 2 * person))
        scene[top : top + height, left : left + width] = face if person % 2 == 0 else face[:, ::-1]
    return scene


def _decoding(media: Sequence[Medium], what: str) -> tuple[Throughput, list[Medium]]:
    """The speed, and the media that can be decoded."""
    began, cpu = time.perf_counter(), time.thread_time()
    frames, good = 0, []
    for medium in media:
        try:
            frames += sum(frame.is_decoded for frame in open_source(medium, decoder="pyav").frames())
        except MediaError as error:
            logging.getLogger("batchemo").warning("left out: %s", error)
        else:
            good.append(medium)
    taken, used = time.perf_counter() - began, time.thread_time() - cpu
    memory_mb = psutil.Process().memory_info().rss // _MEGABYTE
    return Throughput(what, frames, 0, 1, frames / taken, {"decode": used / max(1, frames) * 1000}, memory_mb), good


def _analysis(media: Sequence[Medium], what: str, options: RunOptions, processes: int) -> Throughput:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        heartbeats = results / "heartbeats"
        heartbeats.mkdir()
        task = AnalysisTask(make_context(results, options), heartbeats)
        engine = InProcessEngine() if processes == 1 else ProcessEngine(processes, timeout_s=options.timeout_s, max_memory_mb=None)
        with _Monitor(heartbeats, here=processes == 1) as monitor:
            outcomes = [monitor.timed(outcome) for outcome in engine.run(task, media)]
    return _speed(outcomes, what, processes, monitor)


def _speed(outcomes: Sequence[MediumOutcome], what: str, processes: int, monitor: _Monitor) -> Throughput:
    for outcome in outcomes:
        if outcome.row.status == "failed":
            raise UsageError(outcome.row.message)
    frames, faces = (sum(getattr(outcome.row, name) for outcome in outcomes) for name in ("n_frames_analysed", "n_faces"))
    count = max(1, frames)
    spent: Counter[str] = Counter()
    for outcome in outcomes:
        spent.update(outcome.seconds)
    stages = {stage: seconds / count * 1000 for stage, seconds in spent.items() if stage != "start"}
    return Throughput(what, frames, faces, processes, count / monitor.seconds, stages, monitor.peak_mb)


class _Monitor:
    """Measures a running analysis: `seconds` from its first frame to its last outcome, without the start and end of workers, and
    `peak_mb` of one process that analyses: this one, if it works `here`."""

    def __init__(self, heartbeats: Path, *, here: bool) -> None:
        self._heartbeats = heartbeats
        self._here = here
        self._begun = False
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.seconds = 0.0
        self.peak_mb = 0

    def __enter__(self) -> _Monitor:
        self._thread.start()
        return self

    def timed(self, outcome: MediumOutcome) -> MediumOutcome:
        self.seconds = time.perf_counter() - self._began
        return outcome

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        me = psutil.Process()
        ended = False
        while not ended:
            ended = self._stop.wait(_BUSY_POLL_SECONDS if self._begun and not self._here else _POLL_SECONDS)
            if not self._begun and any(beat.beats for beat in read_heartbeats(self._heartbeats)):
                self._begun, self._began = True, time.perf_counter()
            for process in [me] if self._here else me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.peak_mb = max(self.peak_mb, process.memory_info().rss // _MEGABYTE)
