"""Data of the page as short text: JSON and arrays of bytes, deflated, in base64. A browser unpacks it with what it has built in.

Base64 holds no character that HTML or scripts read, so no name of a file can break out of it.
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
    """`header` as JSON behind its length (uint32, little-endian), then `content`."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(len(text).to_bytes(4, "little") + text + content, _LEVEL)).decode()


def pack_timeline(timeline: Timeline, *, step_s: float) -> str:
    """`timeline` averaged over `step_s` seconds (0: every face), its probabilities in percent.

    Of each track with N faces and K labels `content` holds: times in ticks of .1 ms as differences, uint32 N; K times the
    differences of the probabilities in percent, uint8 N (modulo 256); the thumbnail.
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
    # Neighbours differ little, and what differs little deflates well.
    return np.diff(percents, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes()
