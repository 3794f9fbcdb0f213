"""Writes `report/`: the page and, for many or long media, their timelines in files of their own."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from filelock import FileLock

from batchemo import __version__
from batchemo.atomic import temporary_name, write_text
from batchemo.errors import no_results
from batchemo.palette import as_hex, colours
from batchemo.records import EMOTIONS
from batchemo.report.last_run import LastRun, read_last_run
from batchemo.report.packing import pack, pack_timeline
from batchemo.report.page import as_script, readable_name, render
from batchemo.report.timelines import Timeline, read_timeline
from batchemo.results.blur_state import read_blur_state
from batchemo.results.catalog import MediumResults, has_results, read_all_media
from batchemo.results.episodes import GAP_SECONDS, SMOOTH_SECONDS
from batchemo.results.paths import annotated_path, thumbnails_folder

MAX_MEDIA = 100
MAX_BYTES = 4_500_000
"""Limits of timelines in one page. Beyond either the page is split, so that it opens quickly and can be sent by mail."""

_TIMELINES = "timelines"

STEPS_S = (0.0, 0.1, 0.25, 0.5)
"""Seconds that timelines are averaged over to fit into one page, finest first; lines are smoothed over the last anyway."""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """The `page` to open, the number of its `media`, and whether their timelines are in files of their own (`split`)."""

    page: Path
    media: int
    split: bool

    def as_dict(self) -> dict[str, Any]:
        return {"page": str(self.page), "media": self.media, "split": self.split}


def write_site(results: Path, *, max_media: int = MAX_MEDIA, max_bytes: int = MAX_BYTES) -> Site:
    """Writes `report/index.html` below `results`. Raises UsageError where there are no results.

    A lock serializes runs that end at the same time, such as shards: the page of the last one has all media.
    """
    if not has_results(results):
        raise no_results(results)
    folder = results / "report"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if read_blur_state(results).faces:
            remove_thumbnails(results)
        media = read_all_media(results)
        inline = _pack_inline(results, media, max_bytes) if len(media) <= max_media else None
        if inline is not None:
            records = [_record(results, medium, _timeline(results, medium)) for medium in media]
            shutil.rmtree(folder / _TIMELINES, ignore_errors=True)
        else:
            records = list(_write_files(results, media))
        title = readable_name(results.resolve().name)
        last = read_last_run(results, done=[medium.row.media for medium in media if medium.row.status == "done"])
        index = pack(_index(title, media, records, last))
        write_text(folder / "index.html", render(title=title, index=index, timelines=inline or ()))
    return Site(folder / "index.html", len(media), inline is None)


def remove_thumbnails(results: Path) -> None:
    """Removes the thumbnails, and before them the page that contains them."""
    thumbnails = thumbnails_folder(results, "")
    if thumbnails.exists():
        remove_site(results)
        shutil.rmtree(thumbnails, ignore_errors=True)


def remove_site(results: Path) -> None:
    """Removes the page, until it is built again."""
    (results / "report" / "index.html").unlink(missing_ok=True)
    shutil.rmtree(results / "report" / _TIMELINES, ignore_errors=True)


def _pack_inline(results: Path, media: Sequence[MediumResults], max_bytes: int) -> list[str] | None:
    """The packed timelines of all media, averaged as little as the limit allows; None where even the coarsest exceed it."""
    for step_s in STEPS_S:
        packed: list[str] = []
        left = max_bytes
        for medium in media:
            packed.append(pack_timeline(_timeline(results, medium), step_s=step_s))
            left -= len(packed[-1])
            if left < 0:
                break
        else:
            return packed
    return None


def _write_files(results: Path, media: Sequence[MediumResults]) -> Iterator[dict[str, Any]]:
    """Writes each timeline to its file, and yields its record for the index. Removes files of other media."""
    folder = results / "report" / _TIMELINES
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for medium in media:
        timeline = _timeline(results, medium)
        path = folder / _file_name(medium)
        wanted.add(path)
        # Not synced: ten thousand syncs take minutes, and the page can be built again.
        temporary = temporary_name(path)
        temporary.write_text(as_script(pack_timeline(timeline, step_s=0)), encoding="ascii")
        temporary.replace(path)
        yield _record(results, medium, timeline) | {"file": f"{_TIMELINES}/{path.name}", "face": _face(results, medium, timeline)}
    for path in set(folder.iterdir()) - wanted:
        path.unlink(missing_ok=True)


def _file_name(medium: MediumResults) -> str:
    """A short and safe name."""
    return f"{hashlib.sha256(medium.row.media.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}.js"


def _face(results: Path, medium: MediumResults, timeline: Timeline) -> str:
    """Address of the thumbnail of the longest track that has one, so that the list need not load whole timelines."""
    seen = next((track for track in timeline.tracks if track.thumbnail), None)
    if seen is None:
        return ""
    place = thumbnails_folder(results, medium.output).relative_to(results / "report") / f"{seen.track_id}.jpg"
    return quote(os.fsencode(place))


def _timeline(results: Path, medium: MediumResults) -> Timeline:
    """The timeline of a medium; empty where its tables are missing or damaged."""
    try:
        return read_timeline(results, medium.output, medium.labels) if medium.labels else Timeline((), ())
    except (OSError, pa.ArrowException, KeyError):
        return Timeline((), ())


def _record(results: Path, medium: MediumResults, timeline: Timeline) -> dict[str, Any]:
    """The record of a medium in the index."""
    row, copy = medium.row, annotated_path(results, medium.output, medium.row.kind)
    return {
        "name": readable_name(row.media),
        "kind": row.kind,
        "status": row.status,
        "message": readable_name(row.message),
        "copy": f"../{quote(os.fsencode(copy.relative_to(results)))}" if medium.output and copy.is_file() else "",
        "seconds": round(max([row.duration_s, *(float(track.times_s[-1]) for track in timeline.tracks)]), 3),
        "starts": round(row.starts_s or 0.0, 6),
        "width": row.width,
        "height": row.height,
        "frames": row.n_frames_analysed,
        "faces": row.n_faces,
        "tracks": row.n_tracks,
        "run": row.run_id,
        "labels": medium.labels,
        "uncertain": float(medium.options.get("uncertain_below", 0.5)),
        "least": int(medium.options.get("min_face_px", 40)),
        "counts": timeline.counts().tolist(),
        "strip": timeline.strip(row.duration_s) if row.kind == "video" and timeline.tracks else [],
    }


def _index(title: str, media: Sequence[MediumResults], records: list[dict[str, Any]], last: LastRun | None) -> dict[str, Any]:
    labels = list(dict.fromkeys(label for medium in media for label in medium.labels)) or list(EMOTIONS)
    for record in records:
        # Indices into the labels of all media; left empty in the usual case that all have the same.
        record["labels"] = [] if list(record["labels"]) == labels else [labels.index(label) for label in record["labels"]]
    run = None
    if last:
        fields = dataclasses.asdict(last)
        texts = {name: readable_name(value) for name, value in fields.items() if isinstance(value, str)}
        run = fields | texts | {name: list(map(readable_name, value)) for name, value in fields.items() if isinstance(value, tuple)}
    return {
        "title": title,
        "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "labels": [readable_name(label) for label in labels],
        "colours": [as_hex(colour) for colour in colours(labels)],
        "smooth": SMOOTH_SECONDS,
        "gap": GAP_SECONDS,
        "run": run,
        "media": records,
    }
