"""How quick the analysis is on this machine, stage by stage, and what limits it."""

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
from batchemo.run.local import InProcessEngine, ProcessEngine, usable_cores
from batchemo.run.plan import make_context
from batchemo.run.tasks import AnalysisTask

WIDTH, HEIGHT, FPS = 1280, 720, 30
FACE = Path(__file__).parent / "face.jpg"
"""A face of 240 px: Eileen Collins, by NASA, in the public domain."""

PICTURES = 200
PICTURE_WIDTH, PICTURE_HEIGHT = 1152, 864
"""A megapixel."""

_MEGABYTE = 2**20
_LOOK_SECONDS, _LOOK_AROUND_SECONDS = 0.05, 0.5
"""Between looks; the second once all cores are at work, as to find the workers among the processes of the machine takes 3 ms of one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Throughput:
    """One line of the table, a picture being a frame: `frames_per_second` by the clock, without the start; processor milliseconds a frame
    by stage; the most memory that a process took."""

    what: str
    frames: int
    faces: int
    processes: int
    frames_per_second: float
    stages_ms: Mapping[str, float]
    peak_mb: int

    @property
    def limit(self) -> str:
        """The stage that takes most."""
        return max(self.stages_ms, key=lambda stage: self.stages_ms[stage], default="")


def measure(given: Path | None, *, seconds: float, min_face_px: int, workers: int | None = None) -> Iterator[Throughput]:
    """Speeds for a file or a folder, or for clips of `seconds` of 1280 x 720 with one and with five faces and for pictures of a megapixel:
    decoding alone, tables, and annotated copies, in as many processes as `workers` says, or in one and in one a core. What cannot be
    decoded is left out, and named. Raises UsageError where `given` holds nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in [("", given)] if given is not None else list(_made(Path(folder), seconds)):
            media = find_media([path], out=Path(folder) / "results")
            if not media:
                raise UsageError(f"{path} holds no pictures or videos; give one that does, or nothing for made ones")
            prefix = f"{name}, " if name else ""
            speed, media = _decoding(media, f"{prefix}decoding alone")
            if not media:
                raise UsageError(f"nothing of {path} can be decoded; give a video, a folder, or nothing for made ones")
            yield speed
            for processes in sorted({1, usable_cores()} if workers is None else {workers}):
                for annotate in (False, True):
                    what = f"{prefix}{'annotated copies' if annotate else 'tables'}"
                    options = RunOptions(annotate=annotate, min_face_px=min_face_px)
                    yield _analysis(media, what, options, processes)


def fixed_seconds() -> dict[str, float]:
    """What a run costs before its first frame: seconds to the help text, and to loaded networks, each in a process of its own."""
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
from batchemo.pipeline.frames import models_of
from pathlib import Path
import numpy as np
models_of(RunContext(Path(), RunOptions(), "", (), "")).detector.detect([np.zeros((720, 1280, 3), np.uint8)])
"""


def make_clip(path: Path, *, faces: int, seconds: float) -> Path:
    """Writes `faces` faces of 240 px (at most five) that move a little before a wall of noise, 1280 x 720, 30 frames a second."""
    face = np.asarray(Image.open(FACE).convert("RGB"), np.uint8)
    wall = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(round(seconds * FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_scene(np.asarray(wall), face, faces, index), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def make_pictures(folder: Path, count: int) -> Path:
    """Writes `count` JPEG pictures of a megapixel into a new `folder`: a face of 240 px somewhere before walls of noise."""
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


def _made(folder: Path, seconds: float) -> Iterator[tuple[str, Path]]:
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
        engine = InProcessEngine() if processes == 1 else ProcessEngine(processes, timeout_s=options.timeout, max_memory_mb=None)
        with _Watcher(heartbeats, here=processes == 1) as watcher:
            outcomes = [watcher.timed(outcome) for outcome in engine.run(task, media)]
    return _speed(outcomes, what, processes, watcher)


def _speed(outcomes: Sequence[MediumOutcome], what: str, processes: int, watcher: _Watcher) -> Throughput:
    for outcome in outcomes:
        if outcome.row.status == "failed":
            raise UsageError(outcome.row.message)
    frames, faces = (sum(getattr(outcome.row, name) for outcome in outcomes) for name in ("n_frames_analysed", "n_faces"))
    count = max(1, frames)
    spent: Counter[str] = Counter()
    for outcome in outcomes:
        spent.update(outcome.seconds)
    stages = {stage: seconds / count * 1000 for stage, seconds in spent.items() if stage != "start"}
    return Throughput(what, frames, faces, processes, count / watcher.seconds, stages, watcher.most_mb)


class _Watcher:
    """Watches an analysis from beside: `seconds` from its first frame to its last outcome, which leaves out the start of the first
    worker and the end of all, and the most memory of one process that analyses: this one, if it is done `here`."""

    def __init__(self, pulses: Path, *, here: bool) -> None:
        self._pulses = pulses
        self._here = here
        self._begun = False
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seconds = 0.0
        self.most_mb = 0

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def timed(self, outcome: MediumOutcome) -> MediumOutcome:
        self.seconds = time.perf_counter() - self._began
        return outcome

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        me = psutil.Process()
        ended = False
        while not ended:
            ended = self._stop.wait(_LOOK_AROUND_SECONDS if self._begun and not self._here else _LOOK_SECONDS)
            if not self._begun and any(beat.beats for beat in read_heartbeats(self._pulses)):
                self._begun, self._began = True, time.perf_counter()
            for process in [me] if self._here else me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.most_mb = max(self.most_mb, process.memory_info().rss // _MEGABYTE)
