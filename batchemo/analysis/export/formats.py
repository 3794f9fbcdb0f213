"""The export formats, and which files each writes where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from batchemo.analysis.export.csv import write_csv
from batchemo.analysis.export.elan import check_elan, write_elan
from batchemo.analysis.export.mot import write_mot
from batchemo.analysis.export.notebook import NOTEBOOK_NAME, write_notebook
from batchemo.analysis.export.webvtt import write_webvtt
from batchemo.errors import typed
from batchemo.results.catalog import MediumResults, read_catalog
from batchemo.results.load import open_table
from batchemo.results.schema import PER_MEDIUM, Table

Format = Literal["csv", "webvtt", "eaf", "mot", "notebook"]

_ADVICE = {
    "webvtt": "; mpv and VLC show them over the annotated video of the same name",
    "eaf": "; ELAN opens them, and the videos at the paths that were analysed",
}

_Writer = Callable[[Path, MediumResults, Path], None]

_PER_VIDEO: dict[str, tuple[str, _Writer]] = {"webvtt": (".vtt", write_webvtt), "eaf": (".eaf", write_elan), "mot": (".txt", write_mot)}


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
            return f"; open it with: jupyter lab {typed(self.files[0])}, after: pip install jupyterlab"
        return _ADVICE.get(self.to, "")

    def as_dict(self) -> dict[str, Any]:
        return {"out": str(self.out), "files": [str(file) for file in self.files]}


def export_results(results: Path, to: Format, *, out: Path | None = None) -> ExportedFiles:
    """Writes below `out`: by default `exports/<format>` in the results folder, or beside the annotated videos for captions.

    CSV has a file for each table, the notebook is one file, other formats have a file for each video.
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
        files = (folder / NOTEBOOK_NAME,)
        write_notebook(results, files[0])
    else:
        files = _write_videos(results, *_PER_VIDEO[to], folder)
    return ExportedFiles(to, folder, files)


def _write_tables(results: Path, folder: Path) -> tuple[Path, ...]:
    tables: tuple[Table, ...] = (*PER_MEDIUM, "media")
    files = []
    for table in tables:
        files.append(folder / f"{table}.csv")
        write_csv(results, table, files[-1])
    return tuple(files)


def _write_videos(results: Path, suffix: str, write: _Writer, folder: Path) -> tuple[Path, ...]:
    """A failed video has a file as well, of what could be read."""
    files = []
    for medium in read_catalog(results):
        if medium.row.kind == "video":
            files.append(folder / f"{medium.output}{suffix}")
            write(results, medium, files[-1])
    return tuple(files)
