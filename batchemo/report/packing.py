"""Packs the page's data: JSON and arrays of bytes, deflated, in base64. Browsers unpack it with built-in functions.

Base64 has no character that HTML or JavaScript interpret, so no file name can break out of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.report.timelines import Timeline, Track

TICKS_A_SECOND = 10_000
PROBABILITY_STEPS = 100
_LEVEL = 9


def pack(header: dict[str, Any], content: bytes = b"") -> str:
    """Packs the length of the JSON (uint32, little-endian), `header` as JSON, and `content`."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(len(text).to_bytes(4, "little") + text + content, _LEVEL)).decode()


def pack_timeline(timeline: Timeline, *, step_s: float) -> str:
    """Packs `timeline`, averaged over `step_s` seconds (0: every face).

    For each track with N faces and K labels, `content` holds:

    - the differences of the times, in ticks of 0.1 ms (uint32, N);
    - for each label, the differences of the probabilities in percent (uint8, N, modulo 256);
    - the thumbnail (JPEG).
    """
    header: dict[str, Any] = {"labels": len(timeline.labels), "step": step_s, "tracks": []}
    content = []
    for whole in timeline.tracks:
        track = whole.every(step_s)
        header["tracks"].append(
            {
                "id": track.track_id,
                "n": len(track.times_s),
                "faces": len(whole.times_s),
                "best": round(track.best_s, 4),
                "episodes": [[label, *(round(value, 3) for value in values)] for label, *values in track.episodes],
                "thumbnail": len(track.thumbnail),
            }
        )
        content += [_times(track), _probabilities(track), track.thumbnail]
    return pack(header, b"".join(content))


def _times(track: Track) -> bytes:
    ticks = np.rint(track.times_s * TICKS_A_SECOND).astype(np.int64)
    return np.diff(ticks, prepend=0).astype("<u4").tobytes()


def _probabilities(track: Track) -> bytes:
    percents: NDArray[np.uint8] = np.rint(track.probabilities.T * PROBABILITY_STEPS).astype(np.uint8)
    # Differences of neighbours are small, and deflate well.
    return np.diff(percents, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes()
