"""ELAN annotation files (EAF), by pympi-ling, an extra: a tier for each track, an annotation for each episode."""

from __future__ import annotations

import mimetypes
import os
import urllib.parse
from pathlib import Path

from batchemo.analysis.export.spans import read_spans
from batchemo.atomic import replacing
from batchemo.errors import UsageError
from batchemo.results.catalog import MediumResults


def check_elan() -> None:
    """Raises UsageError where pympi-ling is missing."""
    try:
        import pympi  # noqa: F401, PLC0415 (an extra)
    except ImportError as error:
        raise UsageError('--to eaf needs pympi-ling, an extra; install it with: pip install "batchemo[eaf]"') from error


def write_elan(results: Path, medium: MediumResults, path: Path) -> None:
    """Writes an EAF file that links the analysed video, by its absolute path and relative to the file."""
    from pympi.Elan import Eaf  # noqa: PLC0415 (an extra)

    document = Eaf(author="batchemo")
    video = Path(medium.row.path)
    relative = urllib.parse.quote(Path(os.path.relpath(video, path.parent.resolve())).as_posix())
    kind = mimetypes.guess_type(video.name)[0] or "unknown"
    document.add_linked_file(video.as_uri(), relpath=relative, mimetype=kind)
    spans = list(read_spans(results, medium))
    for track in sorted({span.track_id for span in spans}):
        document.add_tier(f"track {track}")
    for span in spans:
        document.add_annotation(f"track {span.track_id}", span.start_ms, span.end_ms, _for_xml(span.emotion))
    if spans:
        document.remove_tier("default")
    with replacing(path) as temporary:
        document.to_file(str(temporary))


def _for_xml(text: str) -> str:
    """Replaces characters that XML 1.0 cannot hold, not even escaped: labels of custom weights may be anything."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
