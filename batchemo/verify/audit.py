"""Audits a results folder: every frame accounted for, every file whole. Needs no torch."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.atomic import find_temporaries
from batchemo.errors import LockedError, no_results
from batchemo.lock import holder, is_held
from batchemo.media.file_identity import identity_of, is_same_file
from batchemo.media.output_names import decode_output_name
from batchemo.records import Medium
from batchemo.results.catalog import MediumResults, has_results, read_medium_results, source_of
from batchemo.results.paths import annotated_path, output_names, table_path
from batchemo.results.schema import PER_MEDIUM
from batchemo.verify.tables import FrameRows, Problem, TableError, check_tables, read_frame_rows

if TYPE_CHECKING:
    from batchemo.verify.redecode import Reader, UsedReader


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and the problems found.

    - `frames`: frames of all media, those of truncated ones too; `frames_analysed` of them were analysed.
    - `gone`: media whose files no longer exist, so that only their tables could be checked.
    - `reader`: what was asked to decode all media again; None where nothing was decoded.
    - `decoded_by`: how many media each reader decoded.
    """

    media: int
    failed: int
    frames: int
    frames_analysed: int
    faces: int
    gone: tuple[str, ...]
    problems: tuple[Problem, ...]
    reader: str | None = None
    decoded_by: Mapping[UsedReader, int] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def verify(results: Path, *, deep: bool = False, reader: Reader = "pyav") -> Verification:
    """Checks every file of `results`; `deep` decodes all media again, with `reader` where it can, and compares them with the tables.

    Holds the frames of one medium (22 bytes each) and a batch of rows in memory. Raises UsageError where there are no results,
    LockedError where a run is writing them.
    """
    if not has_results(results):
        raise no_results(results)
    if is_held(results):
        raise LockedError(f"a run is writing to {results} ({holder(results)}); verify again when it has ended")
    if deep:
        from batchemo.verify.redecode import check_reader  # loads the decoders

        check_reader(reader)
    problems = list(_check_folder(results))
    rows = _media_rows(results, problems)
    totals = _Totals()
    for output in output_names(results, "frames"):
        medium = read_medium_results(results, output)
        if medium is None:
            totals.names.add(_name_of(output))
            file = f"frames/{output}.parquet"
            problems.append(Problem(_name_of(output), file, "damaged", f"{file} is cut off or damaged; run again"))
            continue
        totals.add(medium)
        try:
            problems += _check_medium(results, medium, reader if deep else None, totals)
        except TableError as error:
            problems.append(error.problem)
        problems += _check_row(medium, rows)
    for name, row in rows.items():
        # A medium that killed its worker has failed without tables.
        if name not in totals.names and row["status"] != "failed":
            problems.append(Problem(name, "media.parquet", "missing", "media.parquet has its row, but it has no tables; run again"))
        totals.failed |= {name} if row["status"] == "failed" else set()
    return Verification(
        media=len(totals.names | rows.keys()),
        failed=len(totals.failed),
        frames=totals.frames,
        frames_analysed=totals.frames_analysed,
        faces=totals.faces,
        gone=tuple(totals.gone),
        problems=tuple(problems),
        reader=reader if deep else None,
        decoded_by=dict(totals.decoded_by),
    )


@dataclasses.dataclass(slots=True)
class _Totals:
    """What has been checked so far."""

    names: set[str] = dataclasses.field(default_factory=set)
    failed: set[str] = dataclasses.field(default_factory=set)
    gone: list[str] = dataclasses.field(default_factory=list)
    frames: int = 0
    frames_analysed: int = 0
    faces: int = 0
    decoded_by: Counter[UsedReader] = dataclasses.field(default_factory=Counter)

    def add(self, medium: MediumResults) -> None:
        row = medium.row
        self.names.add(row.media)
        self.failed |= {row.media} if row.status == "failed" else set()
        self.gone += [row.media] if medium.metadata.get("fingerprint") and not source_of(row).exists() else []
        self.frames += row.n_frames
        self.frames_analysed += row.n_frames_analysed
        self.faces += row.n_faces


def _name_of(output: str) -> str:
    try:
        return decode_output_name(output).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except ValueError:
        return output


def _check_folder(results: Path) -> Iterator[Problem]:
    """Files of no medium, and files of media without a table `frames`."""
    for path in find_temporaries(results):
        file = path.relative_to(results).as_posix()
        yield Problem("", file, "temporary", f"{file} was left by a run that was killed; the next run removes it")
    done = set(output_names(results, "frames"))
    for place in (*PER_MEDIUM, "annotated"):
        for output in sorted(set(output_names(results, place)) - done):
            file = f"{place}/{output}{'' if place == 'annotated' else '.parquet'}"
            yield Problem("", file, "orphan", f"{file} belongs to no finished analysis; run again, or remove it")


def _media_rows(results: Path, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    try:
        rows = pq.ParquetFile(table_path(results, "media")).read().to_pylist()
    except (OSError, pa.ArrowException):
        problems.append(Problem("", "media.parquet", "missing", "media.parquet is missing or damaged; run again to rebuild it"))
        return {}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["media"] in found:
            problems.append(Problem(row["media"], "media.parquet", "repeated", "media.parquet has the medium twice; run again"))
        found[row["media"]] = row
    return found


def _check_row(medium: MediumResults, rows: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    """Compares the medium's row in its own tables with that in `media.parquet`."""
    row = rows.get(medium.row.media)
    if row is None and rows:
        yield Problem(medium.row.media, "media.parquet", "missing", "media.parquet lacks its row, which frames/ has; run again")
    elif row is not None:
        differing = [name for name, value in medium.row.as_dict().items() if row.get(name) != value]
        if differing:
            message = f"media.parquet and frames/ differ in {', '.join(differing)}; run again"
            yield Problem(medium.row.media, "media.parquet", "row", message)


def _check_medium(results: Path, medium: MediumResults, reader: Reader | None, totals: _Totals) -> Iterator[Problem]:
    from batchemo.verify import media as sources  # loads the decoders

    row, known, source = medium.row, medium.metadata.get("fingerprint", {}), source_of(medium.row)
    sample_fps = medium.options.get("sample_fps")
    frames = read_frame_rows(results, medium)
    there = bool(known) and source.exists()
    same = there and (identity_of(source)["sha256"] == known["sha256"] if reader else is_same_file(source, known))
    count = sources.count_frames(source) if same and row.kind == "video" else None
    yield from check_tables(results, medium, frames, repeats=count is not None and count.has_duplicate_times)
    if there and not same:
        yield Problem(row.media, row.path, "changed", f"{row.path} has changed since it was analysed; run again")
    found: list[sources.MediaProblems] = []
    if same and row.kind == "video":
        found.append(sources.check_container(count, row, frames, sample_fps=sample_fps))
    if same and reader and sources.has_frames(row):
        from batchemo.verify.redecode import choose_reader

        original = Medium(source, row.media, row.media, row.kind)
        used = choose_reader(original, reader, has_clock=count is None or count.has_exact_times)
        totals.decoded_by[used] += 1
        found.append(sources.check_decoded(original, row, frames, sample_fps=sample_fps, reader=used))
    for kind, message in itertools.chain(*found):
        yield Problem(row.media, row.path, kind, f"{row.path} {message}")
    for kind, message in _check_copy(results, medium, frames):
        file = annotated_path(results, medium.output, row.kind).relative_to(results).as_posix()
        yield Problem(row.media, file, kind, f"{file} {message}")


def _check_copy(results: Path, medium: MediumResults, frames: FrameRows) -> Iterator[tuple[str, str]]:
    from batchemo.verify import media as sources

    path = annotated_path(results, medium.output, medium.row.kind)
    if path.is_file():
        yield from sources.check_annotated(path, medium.row, frames, sample_fps=medium.options.get("sample_fps"))
    # A folder that was removed as a whole was removed on purpose.
    elif medium.row.status == "done" and len(frames.indices) and (results / "annotated").is_dir() and _was_annotated(results, medium):
        yield "missing", "is not there; run again"


def _was_annotated(results: Path, medium: MediumResults) -> bool:
    """Whether the run that analysed the medium was asked for an annotated copy."""
    try:
        facts = json.loads((results / "runs" / medium.row.run_id / "run.json").read_text(encoding="utf-8"))
        return bool(facts["options"]["annotate"])
    except (OSError, ValueError, KeyError):
        return False
