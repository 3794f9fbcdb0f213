"""Results in formats that other programs open: which files there are to write, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from batchemo.analysis.export.captions import write_captions
from batchemo.analysis.export.csv import write_csv
from batchemo.analysis.export.elan import check_elan, write_elan
from batchemo.analysis.export.mot import write_mot
from batchemo.analysis.export.notebook import NAME, write_notebook
from batchemo.errors import typed
from batchemo.results.load import analysed_media, open_table
from batchemo.results.schema import PER_MEDIUM, Table

Format = Literal["csv", "webvtt", "eaf", "mot", "notebook"]

_ADVICE = {
    "webvtt": "; mpv and VLC show them over the annotated video of the same name",
    "eaf": "; ELAN opens them, and the videos where these were when they were analysed",
}

_Writer = Callable[[Path, str, dict[str, Any], Path], None]

_OF_VIDEOS: dict[str, tuple[str, _Writer]] = {"webvtt": (".vtt", write_captions), "eaf": (".eaf", write_elan), "mot": (".txt", write_mot)}


@dataclasses.dataclass(frozen=True, slots=True)
class ExportedFiles:
    """The folder that was written to, and the files in it."""

    to: Format
    out: Path
    files: tuple[Path, ...]

    @property
    def advice(self) -> str:
        """How to open the files, as the end of a sentence."""
        if self.to == "notebook":
            return f"; open it with: jupyter lab {typed(self.files[0])}, to be had with: pip install jupyterlab"
        return _ADVICE.get(self.to, "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"out": str(self.out), "files": [str(file) for file in self.files]}


def export_results(results: Path, to: Format, *, out: Path | None = None) -> ExportedFiles:
    """Writes below `out`, by default `exports/<format>` in the results folder; captions stand beside the annotated videos if there are any.

    CSV has a file for each table, the notebook is one file, the others have one for each video.
    Raises UsageError where there are no results, or an extra is missing.
    """
    if to == "eaf":
        check_elan()
    open_table(results, table="frames")
    annotated = results / "annotated"
    folder = out or (annotated if to == "webvtt" and annotated.is_dir() else results / "exports" / to)
    if to == "csv":
        files = _write_tables(results, folder)
    elif to == "notebook":
        files = (folder / NAME,)
        write_notebook(results, files[0])
    else:
        files = _write_videos(results, *_OF_VIDEOS[to], folder)
    return ExportedFiles(to, folder, files)


def _write_tables(results: Path, folder: Path) -> tuple[Path, ...]:
    tables: tuple[Table, ...] = (*PER_MEDIUM, "media")
    files = []
    for table in tables:
        files.append(folder / f"{table}.csv")
        write_csv(results, table, files[-1])
    return tuple(files)


def _write_videos(results: Path, suffix: str, write: _Writer, folder: Path) -> tuple[Path, ...]:
    """A failed video has a file as well: of what could be read."""
    files = []
    for output, row in analysed_media(results):
        if row["kind"] == "video":
            files.append(folder / f"{output}{suffix}")
            write(results, output, row, files[-1])
    return tuple(files)
