"""Prints the results of commands in the terminal: of a run, its plan, an audit, and the checks of `doctor`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from batchemo.cli.doctor import DoctorCheck
from batchemo.errors import typed
from batchemo.media.discover import SkippedFile
from batchemo.media.unsupported import RAW
from batchemo.records import MediaRow
from batchemo.report.summary import summarise
from batchemo.results.unblurred_faces import FACES_LEFT
from batchemo.run.plan import count_kinds
from batchemo.run.run import RunResult
from batchemo.verify.audit import Verification

if TYPE_CHECKING:
    from batchemo.verify.redecode import UsedReader

MAX_LINES = 40
_MAX_NAMES = 5
_SMALLEST_FACE_PX = 20
"""Least that --min-face-px takes: MTCNN is not trained on smaller faces."""
_WIDE = 100_000
"""Width of tables that go to a file or a pipe, so that no cell is wrapped."""
_READERS: dict[UsedReader, str] = {"ffmpeg": "the ffmpeg command", "pyav": "PyAV", "pillow": "Pillow"}


def line_console(*, stderr: bool = False) -> Console:
    """Prints each line whole: not wrapped at the width of the terminal, and not highlighted."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table_console() -> Console:
    """Prints tables that fit the terminal, and whole ones to files and pipes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def print_run_result(result: RunResult, out: Path, *, reported: Collection[str], program: str, python: str, min_face_px: int) -> None:
    """Prints on stderr what a run found, what failed, and what to type next.

    `reported` names media whose failures were printed during the run; `program` and `python` call batchemo and its Python.
    """
    console = line_console(stderr=True)
    _print_lines(console, _changes(result))
    if not result.rows:
        console.print(escape("No pictures or videos were found: nothing that is JPEG, PNG, WebP, TIFF ... or a video that FFmpeg reads"))
        return
    _print_lines(console, [*_counts(result, out), *_partly_read(result), *_without_faces(result, min_face_px)])
    print_faces_left(result)
    _print_lines(console, _earlier_failures(result, reported))
    if len(result.failed) < len(result.rows):
        _print_lines(console, _next_steps(result, out, program=program, python=python))


def print_faces_left(result: RunResult) -> None:
    """Names on stderr the blurred copies, of this run or an earlier one, in which a face may still be seen, and when."""
    left = result.faces_left
    lines = [f"[red]not all blurred[/red] {describe_failure(row)}" for row in left[:MAX_LINES]]
    if len(left) > MAX_LINES:
        lines.append(f"[red]not all blurred[/red] {len(left) - MAX_LINES} more media; column `message` of media.parquet says when")
    _print_lines(line_console(stderr=True), lines)


def result_as_dict(result: RunResult) -> dict[str, Any]:
    """The result of a run for JSON."""
    lists = {name: list(getattr(result, name)) for name in ("analysed", "redrawn", "vanished", "pruned")}
    return {
        "run_id": result.run_id,
        "seconds": result.seconds,
        **lists,
        "faces_left": [row.media for row in result.faces_left],
        "passed_over": count_kinds(result.passed_over),
        "media": [row.as_dict() for row in result.rows],
    }


def print_verification(found: Verification) -> None:
    """Prints a line for each problem on stdout; what was checked, and what could not be, on stderr."""
    console, aside = line_console(), line_console(stderr=True)
    for problem in found.problems:
        name = f"{escape_markup(problem.media)}: " if problem.media else ""
        console.print(f"[red]{problem.kind}[/red] {name}{escape_markup(problem.message)}")
    if found.gone:
        aside.print(f"Media no longer there, so that only their tables were compared with each other: {_listed(found.gone)}")
    frames = f"{found.frames} frames" + (f", {found.frames_analysed} analysed," if found.frames_analysed != found.frames else "")
    checked = f"{frames} and {found.faces} faces of {found.media} media ({found.failed} failed, with a row that says why)"
    count = len(found.problems)
    verdict = f"{_counted(count, 'problem')} in {checked}." if count else f"All is accounted for: {checked}."
    decoded = [f"{found.decoded_by[reader]} by {name}" for reader, name in _READERS.items() if found.decoded_by.get(reader)]
    again = f" Media decoded again: {', '.join(decoded) or 'none'}." if found.reader else ""
    aside.print(verdict + again)


def print_checks(checks: Sequence[DoctorCheck]) -> None:
    """Prints a line for each check on stdout, and whether a run can work."""
    console = line_console()
    for check in checks:
        state = "[green]ok[/green]     " if check.ok else "[red]missing[/red]" if check.needed else "[yellow]absent[/yellow] "
        console.print(f"{state} {check.part:<17} {escape(check.detail)}")
    missing = [check.part for check in checks if check.needed and not check.ok]
    if missing:
        console.print(f"\n[red]A run cannot work without: {', '.join(missing)}.[/red] The lines above say how to get it.")
    else:
        console.print("\nAll that a run needs is here.")


def skipped_kinds_message(skipped: Sequence[SkippedFile]) -> str:
    """Kinds of pictures that were skipped, with counts, and a command that converts them; without control characters."""
    kinds = count_kinds(skipped)
    names = [f"{kind['count']} {_plural(kind['kind'], kind['count'])} ({kind['extension'] or 'no extension'})" for kind in kinds]
    return escape_control(f"Skipped: {', '.join(names)}; convert them to JPEG or PNG first, for example with: {kinds[0]['example']}")


def describe_failure(row: MediaRow) -> str:
    """The message of `row`, with the name of the medium, which most messages hold already; safe to print."""
    return escape_markup(row.message if row.media in row.message else f"{row.media}: {row.message}")


def escape_markup(text: str) -> str:
    """Text that holds names of files, safe to print: control characters as escapes, and nothing taken for markup."""
    return escape(escape_control(text))


def escape_control(text: str) -> str:
    """Text with characters that are not printable, such as line breaks and changes of direction, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _print_lines(console: Console, lines: Iterator[str] | Sequence[str]) -> None:
    for line in lines:
        console.print(line)


def _changes(result: RunResult) -> Iterator[str]:
    if result.pruned:
        yield f"Removed the results of {_listed(result.pruned)}: no longer there."
    if result.vanished:
        yield f"No longer there: {_listed(result.vanished)}. To remove their results: --prune"
    if result.passed_over:
        yield f"{escape(skipped_kinds_message(result.passed_over))}."


def _counts(result: RunResult, out: Path) -> Iterator[str]:
    total = summarise(out).total
    kept = len(result.rows) - len(result.analysed) - len(result.redrawn)
    counts = [f"{count} {what}" for count, what in ((len(result.redrawn), "drawn again"), (kept, "done before")) if count]
    before = f" ({', '.join(counts)})" if counts else ""
    media = "1 medium" if len(result.rows) == 1 else f"{len(result.rows)} media"
    failed = f", [red]{len(result.failed)} failed[/red]," if result.failed else ""
    yield f"[bold]{media}[/bold]{before}{failed} in {result.seconds:.0f} s."
    yield f"{escape_markup(str(out))} now holds {total.frames} frames, {total.faces} faces on {total.tracks} tracks."


def _partly_read(result: RunResult) -> Iterator[str]:
    """Media that are done, but not completely read or analysed."""
    partly = [row for row in result.rows if row.status == "done" and row.message and row.error != FACES_LEFT]
    for row in partly[:MAX_LINES]:
        yield f"[yellow]in part[/yellow] {escape_markup(row.media)}: {escape_markup(row.message)}"
    if len(partly) > MAX_LINES:
        yield f"[yellow]in part[/yellow] {len(partly) - MAX_LINES} more media; column `message` of media.parquet says what"


def _without_faces(result: RunResult, min_face_px: int) -> Iterator[str]:
    """Nothing where every medium has faces; the usual reasons where none has."""
    seen = [row for row in result.rows if row.n_frames_analysed]
    without = [row for row in seen if not row.n_faces]
    if not without:
        return
    names = "; ".join(escape_markup(row.media) for row in without[:_MAX_NAMES]) + ("; ..." if len(without) > _MAX_NAMES else "")
    yield f"No face was found in {len(without)} of {len(seen)} media: {names}"
    if len(without) < len(seen):
        return
    sizes = sorted({(row.width, row.height) for row in without if row.width})
    pictures = f" (these pictures are {sizes[0][0]} x {sizes[0][1]})" if len(sizes) == 1 else ""
    smaller = f"; smaller ones: --min-face-px {_SMALLEST_FACE_PX}" if min_face_px > _SMALLEST_FACE_PX else ""
    yield "Possible reasons:"
    yield f"  - faces below {min_face_px} px are not searched for{pictures}{smaller}"
    yield "  - the detector finds upright faces seen from the front: none from the side or from behind, upside down or lying"
    yield "  - masks, hands, deep shadow and motion blur hide faces; drawings and animals are not found"


def _earlier_failures(result: RunResult, reported: Collection[str]) -> Iterator[str]:
    earlier = [row for row in result.failed if row.media not in reported]
    for row in earlier[:MAX_LINES]:
        yield f"[red]failed before[/red] {describe_failure(row)}"
    if earlier:
        yield f"{len(earlier)} media failed in an earlier run; to retry them: --retry-failed"


def _next_steps(result: RunResult, out: Path, *, program: str, python: str) -> Iterator[str]:
    code = f"import batchemo; print(batchemo.load({json.dumps(str(out), ensure_ascii=False)}))"
    steps = [
        ("a table of all media", f"{program} summary {typed(out)}"),
        ("the timeline in pandas", f"{python} -c {shlex.quote(code)}"),
    ]
    if result.page is not None:
        steps.insert(0, ("a page to click through", result.page.resolve().as_uri()))
    if (out / "annotated").is_dir():
        steps.insert(-1, ("annotated copies", f"ls {typed(out / 'annotated')}"))
    width = max(len(meaning) for meaning, _ in steps)
    yield "\nLook at it next:"
    for meaning, command in steps:
        yield f"  {meaning:<{width}}  [cyan]{escape(command)}[/cyan]"


def _plural(kind: str, count: int) -> str:
    return f"{kind}s" if kind == RAW and count > 1 else kind


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {'medium' if len(names) == 1 else 'media'} ({', '.join(map(escape_markup, names[:_MAX_NAMES]))}{more})"
