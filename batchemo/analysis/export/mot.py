"""Text of the MOT Challenge, as trackers and their measures read it: a line for each face.

`frame,id,left,top,width,height,confidence,-1,-1,-1`; frames, ids and pixels count from 1 (Milan et al. 2016, *MOT16*).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchemo.atomic import replacing
from batchemo.results.load import load
from batchemo.results.schema import table_path

_COLUMNS = ["frame_index", "track_id", "box_x1", "box_y1", "box_x2", "box_y2", "detection_score"]


def write_mot(results: Path, output: str, row: dict[str, Any], path: Path) -> None:  # noqa: ARG001 (as the other formats)
    """Analysed frames only; with `--sample-fps` the frames between are missing."""
    faces = load(table_path(results, "faces", output), columns=_COLUMNS).sort_values(["frame_index", "track_id"])
    lines = [
        f"{frame + 1},{track},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"
        for frame, track, x1, y1, x2, y2, score in faces.itertuples(index=False)
    ]
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.writelines(lines)
