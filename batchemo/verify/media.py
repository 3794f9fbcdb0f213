"""Compares the tables of a medium with its file and with its annotated copy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError
from batchemo.media.container import PacketCount
from batchemo.media.decode import open_sequential_source
from batchemo.media.fingerprint import hamming_distances
from batchemo.media.source import Sampler
from batchemo.records import MediaRow, Medium
from batchemo.verify.redecode import UsedReader, redecode
from batchemo.verify.tables import FrameRows

_SAME_S = 1e-6
"""Times closer than this are equal; containers count in steps of at least 11 us."""

_TICK_S = 0.002
"""Tolerance for the times of the annotated copy: container clocks round to a millisecond at worst."""

_LENGTH_S, _LONGEST_S = 0.15, 10.1
"""How much shorter and longer than its source the annotated copy may be. A damaged file may announce a long last frame, or have lost
frames after it; up to ten seconds of that are accepted."""

_MOST_BITS = 6
"""Bits by which fingerprints of the same frame may differ between two decoders and scalers."""

_PARTIAL = ("truncated",)
"""Errors of failed media whose tables hold the frames that could be read."""

MediaProblems = Iterator[tuple[str, str]]


def count_frames(path: Path) -> PacketCount | None:
    """The frames that the packets of a video, or the headers of an animation, announce; None where the file cannot be read."""
    try:
        return open_sequential_source(path).count()
    except MediaError:
        return None


def check_container(count: PacketCount | None, row: MediaRow, frames: FrameRows, *, sample_fps: float | None) -> MediaProblems:
    """Compares the frames in the tables of a video with the packets in its file."""
    if not has_frames(row):
        return
    if count is None:
        yield "container", "cannot be opened as a video now, though it could be when it was analysed"
        return
    if count.total != row.n_frames:
        yield "container", f"has {count.total} frames, its row says {row.n_frames}"
    if count.untimed:
        return
    times = count.times_s
    # Time 0 is the first frame that could be decoded; frames lost before it have negative times.
    before = int((frames.lost_s < 0).sum())
    expected = times - (times[before] if before < len(times) else 0)
    if sample_fps is not None:
        expected = _sampled(expected, frames.lost_s, sample_fps)
    found = np.sort(np.concatenate([frames.times_s, frames.lost_s]))
    yield from _compare(expected, found, "the file")


def has_frames(row: MediaRow) -> bool:
    """Whether the tables hold the frames of a medium, or those that could be read."""
    return row.status != "failed" or row.error in _PARTIAL


def check_decoded(medium: Medium, row: MediaRow, frames: FrameRows, *, sample_fps: float | None, reader: UsedReader) -> MediaProblems:
    """Decodes the medium again with `reader`, and compares times, numbers, size and fingerprints with the tables."""
    try:
        again = redecode(medium, reader=reader, sample_fps=sample_fps)
    except MediaError as error:
        yield "decoding", f"cannot be decoded again: {error}"
        return
    yield from _compare(again.times_s, frames.times_s, "decoding again")
    if again.lost_s is not None:
        yield from _compare(again.lost_s, np.sort(frames.lost_s), "decoding again", what="undecodable frames")
    if again.indices.tolist() != frames.indices.tolist():
        yield "decoding", "has frames of other numbers when it is decoded again"
    if again.size != (row.width, row.height):
        yield "decoding", f"is {again.size[0]} x {again.size[1]} pixels, its row says {row.width} x {row.height}"
    if len(again.fingerprints) == len(frames.fingerprints):
        yield from _compare_pictures(again.fingerprints, frames)


def _compare_pictures(fingerprints: NDArray[np.int64], frames: FrameRows) -> MediaProblems:
    different = hamming_distances(fingerprints, frames.fingerprints)
    wrong = np.flatnonzero(different > _MOST_BITS)
    if len(wrong):
        at = wrong[0]
        where = f"frame {frames.indices[at]} at {frames.times_s[at]:.3f} s"
        yield (
            "picture",
            f"shows another picture than the tables are about in {len(wrong)} frames, first {where} ({different[at]} of 64 bits)",
        )


def check_annotated(path: Path, row: MediaRow, frames: FrameRows, *, sample_fps: float | None) -> MediaProblems:
    """Compares the annotated copy of a medium with its tables: the same frames at the same times, and the length of the source."""
    if row.kind == "image":
        content = path.read_bytes()
        if not (content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")):
            yield "annotated", "is no whole JPEG"
        return
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            base = stream.time_base or Fraction(0)
            shown = sorted(
                (packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.size and packet.pts is not None
            )
    except (av.FFmpegError, IndexError) as error:
        yield "annotated", f"cannot be opened ({error})"
        return
    if len(shown) != len(frames.times_s):
        yield "annotated", f"has {len(shown)} frames, the tables have {len(frames.times_s)}"
        return
    if not shown:
        return
    # Rows of schema 1 lack `starts_s`.
    starts_s = float(shown[0][0] * base) - frames.times_s[0] if row.starts_s is None else row.starts_s
    times = np.array([float(pts * base) for pts, _ in shown])
    wrong = np.abs(times - starts_s - frames.times_s) > _TICK_S
    if wrong.any():
        at = int(wrong.argmax())
        there = f"{starts_s + frames.times_s[at]:.3f} s"
        yield "annotated", f"shows frame {frames.indices[at]} at {times[at]:.3f} s of its clock, by the tables it is shown at {there}"
    end_s = times[-1] + float(shown[-1][1] * base) - starts_s
    # The last frame is shown until the source ends, or for a while where the end is far away or unknown.
    far = row.duration_s - frames.times_s[-1] > _LONGEST_S
    long_enough = far or end_s >= row.duration_s - _LENGTH_S
    if row.status == "done" and sample_fps is None and not (long_enough and end_s <= row.duration_s + _LONGEST_S):
        yield "annotated", f"lasts {end_s:.2f} s, its source {row.duration_s:.2f} s"


def _sampled(times: NDArray[np.float64], lost_s: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    sampler = Sampler(fps)
    lost = np.isin(np.round(times / _SAME_S), np.round(lost_s / _SAME_S))
    return times[[gone or sampler.accepts(float(time)) for time, gone in zip(times, lost, strict=True)]]


def _compare(expected: NDArray[np.float64], found: NDArray[np.float64], source: str, *, what: str = "frames") -> MediaProblems:
    """Compares two sorted arrays of times, and names the first difference."""
    if len(expected) == len(found) and (np.abs(expected - found) <= _SAME_S).all():
        return
    pairs = itertools.zip_longest(expected.tolist(), found.tolist())
    here, there = next((e, t) for e, t in pairs if e is None or t is None or abs(e - t) > _SAME_S)
    if there is None or (here is not None and here < there):
        difference = f"{source} has one at {here:.6f} s that the tables lack"
    else:
        difference = f"the tables have one at {there:.6f} s that {source} lacks"
    yield "container", f"has {len(found)} {what} in the tables, {len(expected)} by {source}: {difference}"
