"""Is every frame of every medium accounted for, and every file of a results folder whole? Needs no torch."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.atomic import find_temporaries
from batchemo.errors import LockedError, no_results
from batchemo.lock import holder, is_held
from batchemo.media.identity import identity_of, is_same_file
from batchemo.media.output_names import decode_output_name
from batchemo.records import MediaRow
from batchemo.results.catalog import ANNOTATED_SUFFIXES, CatalogEntry, outputs, read_catalog_entry, source_of
from batchemo.results.schema import PER_MEDIUM, table_path
from batchemo.verify.tables import FrameRows, Problem, TableError, check_tables, read_frame_rows

if TYPE_CHECKING:
    from batchemo.verify.second_reading import Reader


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what is off. Of the media's `frames`, those of cut-off ones included, `frames_analysed` were analysed. `gone`
    media have no file any more that their tables could be compared with. `reader` decoded all media again; None where nothing did."""

    media: int
    failed: int
    frames: int
    frames_analysed: int
    faces: int
    gone: tuple[str, ...]
    problems: tuple[Problem, ...]
    reader: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def verify(results: Path, *, deep: bool = False, reader: Reader = "pyav") -> Verification:
    """Looks at every file of `results`; `deep` reads and decodes all media again, by another way than their run did: `reader`.

    Holds the frames of one medium (22 bytes each) and a batch of rows. Raises UsageError where there are no results, LockedError
    where a run is writing them.
    """
    if not results.is_dir() or not any((results / name).exists() for name in ("media.parquet", "frames")):
        raise no_results(results)
    if is_held(results):
        raise LockedError(f"a run is writing to {results} ({holder(results)}); look again when it has ended")
    if deep:
        from batchemo.verify.second_reading import check_reader  # loads the decoders

        check_reader(reader)
    problems = list(_check_folder(results))
    rows = _media_rows(results, problems)
    seen = _Seen()
    for output in outputs(results, "frames", suffixes=(".parquet",)):
        entry = read_catalog_entry(results, output)
        if entry is None:
            seen.names.add(_name_of(output))
            file = f"frames/{output}.parquet"
            problems.append(Problem(_name_of(output), file, "damaged", f"{file} is cut off or damaged; run again"))
            continue
        seen.add(entry, source_gone=bool(entry.metadata.get("fingerprint")) and not source_of(entry.row).exists())
        try:
            problems += _check_medium(results, entry, deep=deep, reader=reader)
        except TableError as error:
            problems.append(error.problem)
        problems += _check_row(entry, rows)
    for name, row in rows.items():
        # A medium that killed its worker has failed without tables.
        if name not in seen.names and row["status"] != "failed":
            problems.append(Problem(name, "media.parquet", "missing", "media.parquet has a row of it, and it has no tables; run again"))
        seen.failed |= {name} if row["status"] == "failed" else set()
    media = len(seen.names | rows.keys())
    counts = (media, len(seen.failed), seen.frames, seen.frames_analysed, seen.faces)
    return Verification(*counts, tuple(seen.gone), tuple(problems), reader if deep else None)


@dataclasses.dataclass(slots=True)
class _Seen:
    """What has been looked at so far."""

    names: set[str] = dataclasses.field(default_factory=set)
    failed: set[str] = dataclasses.field(default_factory=set)
    gone: list[str] = dataclasses.field(default_factory=list)
    frames: int = 0
    frames_analysed: int = 0
    faces: int = 0

    def add(self, entry: CatalogEntry, *, source_gone: bool) -> None:
        row = entry.row
        self.names.add(row.media)
        self.failed |= {row.media} if row.status == "failed" else set()
        self.gone += [row.media] if source_gone else []
        self.frames += row.n_frames
        self.frames_analysed += row.n_frames_analysed
        self.faces += row.n_faces


def _name_of(output: str) -> str:
    try:
        return decode_output_name(output).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except ValueError:
        return output


def _check_folder(results: Path) -> Iterator[Problem]:
    """Files that are no part of any medium, or of a part of one only."""
    for path in find_temporaries(results):
        file = path.relative_to(results).as_posix()
        yield Problem("", file, "temporary", f"{file} was left by a run that was killed; the next run removes it")
    done = set(outputs(results, "frames", suffixes=(".parquet",)))
    for place, suffixes in (*((table, (".parquet",)) for table in PER_MEDIUM), ("annotated", ANNOTATED_SUFFIXES)):
        for output in sorted(set(outputs(results, place, suffixes=suffixes)) - done):
            file = f"{place}/{output}{'' if place == 'annotated' else '.parquet'}"
            yield Problem("", file, "orphan", f"{file} belongs to no analysis that has ended; run again, or remove it")


def _media_rows(results: Path, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    try:
        rows = pq.ParquetFile(table_path(results, "media")).read().to_pylist()
    except (OSError, pa.ArrowException):
        problems.append(Problem("", "media.parquet", "missing", "media.parquet is missing or damaged; run again to have it made anew"))
        return {}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["media"] in found:
            problems.append(Problem(row["media"], "media.parquet", "repeated", "media.parquet has the medium twice; run again"))
        found[row["media"]] = row
    return found


def _check_row(entry: CatalogEntry, rows: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    """The medium's row in its own tables against that in `media.parquet`."""
    row = rows.get(entry.row.media)
    if row is None and rows:
        yield Problem(entry.row.media, "media.parquet", "missing", "media.parquet lacks its row, which frames/ has; run again")
    elif row is not None:
        differing = [name for name, value in entry.row.as_dict().items() if row.get(name) != value]
        if differing:
            message = f"media.parquet and frames/ differ in {', '.join(differing)}; run again"
            yield Problem(entry.row.media, "media.parquet", "row", message)


def _check_medium(results: Path, entry: CatalogEntry, *, deep: bool, reader: Reader) -> Iterator[Problem]:
    from batchemo.verify import media as sources  # loads the decoders

    row, known, source = entry.row, entry.metadata.get("fingerprint", {}), source_of(entry.row)
    sample_fps = entry.metadata.get("options", {}).get("sample_fps")
    frames = read_frame_rows(results, entry)
    there = bool(known) and source.exists()
    same = there and (identity_of(source)["sha256"] == known["sha256"] if deep else is_same_file(source, known))
    count = sources.count_frames(source) if same and row.kind == "video" else None
    yield from check_tables(results, entry, frames, repeats=count is not None and count.has_duplicate_times)
    if there and not same:
        yield Problem(row.media, row.path, "changed", f"{row.path} has changed since it was analysed; run again")
    found: list[sources.MediaProblems] = []
    if same and row.kind == "video":
        found.append(sources.check_count(count, row, frames, sample_fps=sample_fps))
    if same and deep:
        found.append(sources.check_again(source, row, frames, sample_fps=sample_fps, reader=reader, count=count))
    for kind, message in itertools.chain(*found):
        yield Problem(row.media, row.path, kind, f"{row.path} {message}")
    for kind, message in _check_copy(results, entry, frames):
        file = f"annotated/{entry.output}{_suffix(row)}"
        yield Problem(row.media, file, kind, f"{file} {message}")


def _check_copy(results: Path, entry: CatalogEntry, frames: FrameRows) -> Iterator[tuple[str, str]]:
    from batchemo.verify import media as sources

    path = results / "annotated" / f"{entry.output}{_suffix(entry.row)}"
    if path.is_file():
        yield from sources.check_annotated(path, entry.row, frames, sample_fps=entry.metadata.get("options", {}).get("sample_fps"))
    # Who has removed the whole folder has meant to.
    elif entry.row.status == "done" and len(frames.indices) and (results / "annotated").is_dir() and _was_annotated(results, entry):
        yield "missing", "is not there; run again"


def _suffix(row: MediaRow) -> str:
    return ".jpg" if row.kind == "image" else ".mp4"


def _was_annotated(results: Path, entry: CatalogEntry) -> bool:
    """Whether the run that analysed a medium was to draw it."""
    try:
        facts = json.loads((results / "runs" / entry.row.run_id / "run.json").read_text(encoding="utf-8"))
        return bool(facts["options"]["annotate"])
    except (OSError, ValueError, KeyError):
        return False
