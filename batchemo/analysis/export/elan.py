"""ELAN's annotation files, by pympi-ling, an extra: a tier for each track, an annotation for each episode."""

from __future__ import annotations

import mimetypes
import os
import urllib.parse
from pathlib import Path
from typing import Any

from batchemo.analysis.export.spans import spans_of
from batchemo.atomic import replacing
from batchemo.errors import UsageError


def check_elan() -> None:
    """Raises UsageError where pympi-ling is missing."""
    try:
        import pympi  # noqa: F401, PLC0415 (an extra)
    except ImportError as error:
        raise UsageError('--to eaf needs pympi-ling, an extra; install it with: pip install "batchemo[eaf]"') from error


def write_elan(results: Path, output: str, row: dict[str, Any], path: Path) -> None:
    """The file links the video that was analysed, absolutely and relative to itself."""
    from pympi.Elan import Eaf  # noqa: PLC0415 (an extra)

    document = Eaf(author="batchemo")
    video = Path(row["path"])
    relative = urllib.parse.quote(Path(os.path.relpath(video, path.parent.resolve())).as_posix())
    kind = mimetypes.guess_type(video.name)[0] or "unknown"
    document.add_linked_file(video.as_uri(), relpath=relative, mimetype=kind)
    spans = list(spans_of(results, output, row))
    for track in sorted({span.track_id for span in spans}):
        document.add_tier(f"track {track}")
    for span in spans:
        document.add_annotation(f"track {span.track_id}", span.start_ms, span.end_ms, _for_xml(span.emotion))
    if spans:
        document.remove_tier("default")
    with replacing(path) as temporary:
        document.to_file(str(temporary))


def _for_xml(text: str) -> str:
    """Characters that XML 1.0 cannot hold, not even escaped, are replaced: labels of one's own weights may be anything."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
