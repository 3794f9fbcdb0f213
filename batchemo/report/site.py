"""The files below `report/`: the page, and beside it the timelines of its media where they would be too much for one file."""

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
from batchemo.results.entries import MediumResults, has_results, read_medium_results
from batchemo.results.episodes import GAP_SECONDS, SMOOTH_SECONDS
from batchemo.results.schema import thumbnails_folder

MOST_MEDIA = 100
MOST_BYTES = 4_500_000
"""Of timelines in one page; beyond either it is split, so that it opens at once and can still be sent by mail."""

_TIMELINES = "timelines"

STEPS_S = (0.0, 0.1, 0.25, 0.5)
"""What timelines are averaged over to fit into one page, finest first; the last is what episodes are smoothed by anyway."""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """What was written: `page` to open, and whether the timelines of the `media` stand in files of their own."""

    page: Path
    media: int
    split: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"page": str(self.page), "media": self.media, "split": self.split}


def write_site(results: Path, *, most_media: int = MOST_MEDIA, most_bytes: int = MOST_BYTES) -> Site:
    """Writes `report/index.html` below `results`. Raises UsageError where there are no results.

    Several runs may end at once, each with a shard of the media: one writes after the other, so that the last one's page has them all.
    """
    if not has_results(results):
        raise no_results(results)
    folder = results / "report"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if read_blur_state(results).faces:
            remove_thumbnails(results)
        entries = read_medium_results(results)
        inside = _fitting(results, entries, most_bytes) if len(entries) <= most_media else None
        if inside is not None:
            records = [_record(entry, _timeline(results, entry)) for entry in entries]
            shutil.rmtree(folder / _TIMELINES, ignore_errors=True)
        else:
            records = list(_written(results, entries))
        title = readable_name(results.resolve().name)
        last = read_last_run(results, done=[entry.row.media for entry in entries if entry.row.status == "done"])
        index = pack(_index(title, entries, records, last))
        write_text(folder / "index.html", render(title=title, index=index, timelines=inside or ()))
    return Site(folder / "index.html", len(entries), inside is None)


def remove_thumbnails(results: Path) -> None:
    """Removes what shows faces, the page that holds them first."""
    thumbnails = thumbnails_folder(results, "")
    if thumbnails.exists():
        remove_site(results)
        shutil.rmtree(thumbnails, ignore_errors=True)


def remove_site(results: Path) -> None:
    """Removes the page, which shows media that are no longer meant to be there, until it is built again."""
    (results / "report" / "index.html").unlink(missing_ok=True)
    shutil.rmtree(results / "report" / _TIMELINES, ignore_errors=True)


def _fitting(results: Path, entries: Sequence[MediumResults], most_bytes: int) -> list[str] | None:
    """The packed timelines of all media, as fine as fits; None where even the coarsest do not."""
    for step_s in STEPS_S:
        packed: list[str] = []
        room = most_bytes
        for entry in entries:
            packed.append(pack_timeline(_timeline(results, entry), step_s=step_s))
            room -= len(packed[-1])
            if room < 0:
                break
        else:
            return packed
    return None


def _written(results: Path, entries: Sequence[MediumResults]) -> Iterator[dict[str, Any]]:
    """Writes each timeline to its file, and yields what the index says of it. Files of media that are no longer there go."""
    folder = results / "report" / _TIMELINES
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for entry in entries:
        timeline = _timeline(results, entry)
        path = folder / _file_name(entry)
        wanted.add(path)
        # Not synced: the page can be built again, and waiting for the disk ten thousand times takes minutes.
        temporary = temporary_name(path)
        temporary.write_text(as_script(pack_timeline(timeline, step_s=0)), encoding="ascii")
        temporary.replace(path)
        yield _record(entry, timeline) | {"file": f"{_TIMELINES}/{path.name}", "face": _face(results, entry, timeline)}
    for path in set(folder.iterdir()) - wanted:
        path.unlink(missing_ok=True)


def _file_name(entry: MediumResults) -> str:
    """Short and safe whatever the medium is called."""
    return f"{hashlib.sha256(entry.row.media.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}.js"


def _face(results: Path, entry: MediumResults, timeline: Timeline) -> str:
    """Where the page finds the thumbnail of the longest track that has one, so that its list need not read whole timelines."""
    seen = next((track for track in timeline.tracks if track.thumbnail), None)
    if seen is None:
        return ""
    place = thumbnails_folder(results, entry.output).relative_to(results / "report") / f"{seen.track_id}.jpg"
    return quote(os.fsencode(place))


def _timeline(results: Path, entry: MediumResults) -> Timeline:
    """Empty where the tables are not there or broken: the page shows the rest."""
    try:
        return read_timeline(results, entry.output, entry.labels) if entry.labels else Timeline((), ())
    except (OSError, pa.ArrowException, KeyError):
        return Timeline((), ())


def _record(entry: MediumResults, timeline: Timeline) -> dict[str, Any]:
    """What the index knows of a medium."""
    row = entry.row
    return {
        "name": readable_name(row.media),
        "kind": row.kind,
        "status": row.status,
        "message": readable_name(row.message),
        "copy": f"../{quote(os.fsencode(entry.annotated))}" if entry.annotated else "",
        "seconds": round(max([row.duration_s, *(float(track.times_s[-1]) for track in timeline.tracks)]), 3),
        "starts": round(row.starts_s or 0.0, 6),
        "width": row.width,
        "height": row.height,
        "frames": row.n_frames_analysed,
        "faces": row.n_faces,
        "tracks": row.n_tracks,
        "run": row.run_id,
        "labels": entry.labels,
        "uncertain": entry.uncertain_below,
        "least": entry.min_face_px,
        "counts": timeline.counts().tolist(),
        "strip": timeline.strip(row.duration_s) if row.kind == "video" and timeline.tracks else [],
    }


def _index(title: str, entries: Sequence[MediumResults], records: list[dict[str, Any]], last: LastRun | None) -> dict[str, Any]:
    labels = list(dict.fromkeys(label for entry in entries for label in entry.labels)) or list(EMOTIONS)
    for record in records:
        # The page's labels are those of all media together; most results have one set, and need not repeat it.
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
