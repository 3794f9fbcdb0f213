"""A results folder made without analysing anything: media with names that are meant to break pages, and known emotions."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.media.discover import find_media
from batchemo.records import EMOTIONS, Faces, FrameResult, MediaRow, Medium
from batchemo.results.load import table_files
from batchemo.results.paths import annotated_path, table_path, thumbnails_folder
from batchemo.results.schema import MEDIA, METADATA_KEY, PER_MEDIUM, ROW_KEY, SCHEMA_VERSION, Table, write_table
from batchemo.results.writer import TimelineWriter

SAMPLES = Path(__file__).parents[1] / "sample_media"
CLIP = SAMPLES / "two_people_and_a_cut.mp4"
PICTURE = SAMPLES / "grace_hopper.jpg"

HOSTILE = (
    '<img src=x onerror="document.title=1">.mp4',
    "</script><script>document.title=2</script>.jpg",
    "quotes ' \" ` ${document.title=3}.mp4",
    "line\nbreak.mp4",
    "turned \u202egpj.mp4",
    "50% #1?&t=9.mp4",
)
FRAMES, RATE = 180, 30


def probabilities(emotion: str, confidence: float) -> list[float]:
    return [confidence if label == emotion else (1 - confidence) / 6 for label in EMOTIONS]


def write_medium(
    results: Path, medium: Medium, people: Sequence[Sequence[tuple[str, float]]], *, run_id: str, frames: int, times: Sequence[float] = ()
) -> MediaRow:
    """`people` show their emotions, each with a confidence, for equally long parts of the medium; all in view throughout,
    sharper the more confident.

    `times` of the frames, in seconds; otherwise they come at `RATE`.
    """
    row = MediaRow(
        media=medium.name,
        path=str(medium.path),
        kind=medium.kind,
        status="done",
        width=640,
        height=360,
        duration_s=frames / RATE,
        n_frames=frames,
        n_frames_analysed=frames,
        n_faces=frames * len(people),
        n_tracks=len(people),
        run_id=run_id,
    )
    metadata = {"schema_version": SCHEMA_VERSION, "labels": list(EMOTIONS), "options": {"uncertain_below": 0.5}}
    count = len(people)
    with TimelineWriter(results, medium, labels=EMOTIONS, metadata=metadata, uncertain_below=0.5) as timeline:
        for index in range(frames):
            shown = [probabilities(*parts[index * len(parts) // frames]) for parts in people]
            sharpness = np.array([max(each) for each in shown], np.float32)
            boxes = np.array([(100 + 200 * i, 80, 200 + 200 * i, 200) for i in range(count)], np.float32).reshape(-1, 4)
            faces = Faces(boxes, np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))
            values = np.array(shown, np.float32).reshape(-1, len(EMOTIONS))
            time_s = times[index] if times else index / RATE
            result = FrameResult(
                index, time_s, faces, np.full(count, 48, np.float32), sharpness, values, embeddings=None, cut=False, fingerprint=0
            )
            timeline.write(result, np.arange(1, count + 1, dtype=np.int32), index=index)
        timeline.finish(row)
    return row


ADDED_SINCE: dict[int, Mapping[Table, Sequence[str]]] = {1: {"media": ("starts_s",), "frames": ("fingerprint",)}}
"""Columns that later versions of the tables have, by version."""


def turn_into_version(results: Path, version: int, *, without: Mapping[Table, Sequence[str]] | None = None) -> None:
    """Makes results as an older version has written them; or with tables that lack the columns `without`."""
    lacking = ADDED_SINCE[version] if without is None else without
    for table in (*PER_MEDIUM, "media"):
        for path in table_files(results, table):
            content = pq.ParquetFile(path).read()
            metadata = dict(content.schema.metadata or {})
            if METADATA_KEY in metadata:
                metadata[METADATA_KEY] = json.dumps(json.loads(metadata[METADATA_KEY]) | {"schema_version": version}).encode()
            if ROW_KEY in metadata:
                row = json.loads(metadata[ROW_KEY])
                metadata[ROW_KEY] = json.dumps({name: row[name] for name in row if name not in lacking.get("media", ())}).encode()
            write_table(content.drop_columns(list(lacking.get(table, ()))).replace_schema_metadata(metadata), path)


def write_media(results: Path, rows: Sequence[MediaRow]) -> None:
    path = table_path(results, "media")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist([row.as_dict() for row in rows], schema=MEDIA), path)


def write_manifest(results: Path, run_id: str, *, failures: Sequence[str] = (), analysed: int = 0, **more: object) -> None:
    """`run_id` begins with the time, as in `20260101T020000Z-a`; `more` are facts of run.json."""
    folder = results / "runs" / run_id
    folder.mkdir(parents=True)
    media = {"analysed": analysed, "done_before": 0}
    failed = [{"media": name, "error": "empty", "message": ""} for name in failures]
    started = datetime.datetime.strptime(run_id[:16], "%Y%m%dT%H%M%S%z").isoformat(timespec="milliseconds")
    manifest = {"run_id": run_id, "started": started, "how": "done", "media": media, "failures": failed, **more}
    (folder / "run.json").write_text(json.dumps(manifest))


def hostile_results(folder: Path) -> Path:
    """All of `HOSTILE` (happy, then sad; one person uncertain), a video of angry faces, one without any, and one that failed."""
    media, results = folder / "media", folder / "results & <b>more"
    media.mkdir(parents=True)
    for name in (*HOSTILE, "angry.mp4", "nobody.mp4"):
        (media / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PICTURE if name.endswith(".jpg") else CLIP, media / name)
    rows = []
    for medium in find_media([media], out=results):
        people: list[list[tuple[str, float]]] = [[("happy", 0.9), ("sad", 0.8)], [("fear", 0.4)]]
        if medium.name == "angry.mp4":
            people = [[("angry", 0.9)]]
        elif medium.name == "nobody.mp4":
            people = []
        frames = FRAMES if medium.kind == "video" else 1
        run_id = "20260102T020000Z-b" if medium.name == "angry.mp4" else "20260101T020000Z-a"
        rows.append(write_medium(results, medium, people, run_id=run_id, frames=frames))
        copy = annotated_path(results, medium.output, medium.kind)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(medium.path, copy)
        thumbnails = thumbnails_folder(results, medium.output)
        thumbnails.mkdir(parents=True)
        if people:
            shutil.copyfile(PICTURE, thumbnails / "1.jpg")
    message = "/media/<b>empty</b>.mp4 is empty (0 bytes); copy it again from its source"
    rows.append(MediaRow(media="<b>empty</b>.mp4", path="", kind="video", status="failed", error="empty", message=message, run_id="b"))
    write_media(results, rows)
    drift = {"runs": 9, "findings": [{"text": "share of <i>angry</i> faces: 90%, usually 10% (5% to 15% in 9 runs)"}], "note": ""}
    write_manifest(results, "20260101T020000Z-a", failures=["angry.mp4"], analysed=8, job="nightly")
    write_manifest(results, "20260101T120000Z-x", failures=["nobody.mp4"], analysed=1)
    write_manifest(
        results, "20260102T020000Z-b", failures=["<b>empty</b>.mp4"], analysed=1, job="nightly", drift=drift, vanished=["g<o>ne.mp4"]
    )
    return results
