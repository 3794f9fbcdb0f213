"""The packets that several edits of a film show, one edit after the other.

FFmpeg follows edit lists by itself, and well where there is one edit. After a second one that begins amid a group of pictures, it shows
frames of reordered H.264 up to two frames too early or too late, and loses most of HEVC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, cast

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from batchemo.media.headers import Edit
from batchemo.media.key_frames import decode_key_frame, packets_from


class _Span(NamedTuple):
    """An edit, in ticks: frames from `first` on and before `stop` are shown `later`."""

    first: int
    stop: int
    later: int


class EditedPackets:
    """The packets of `stream`, whose container must have been opened without its edits, at the times of `edits`.

    Those that are needed only to decode others are among them; `shows` says so of a packet or frame while its edit lasts. After each edit
    comes an empty packet, which asks the decoder for what it still holds. `missing` frames are announced but not in the file.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, edits: Sequence[Edit]) -> None:
        self._container = container
        self._stream = stream
        self._spans = list(_spans(edits, stream.time_base or Fraction(1)))
        self._span = _Span(0, 0, 0)
        self.lasts_s = float(sum(edit.lasts_s for edit in edits))
        self.missing = 0

    def shows(self, pts: int | None) -> bool:
        return pts is not None and self._span.first <= pts - self._span.later < self._span.stop

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        for span in self._spans:
            self._span = span
            last = span.first - 1
            for packet in self._from_key(span.first):
                if packet.pts is None or packet.dts is None:
                    continue
                last = packet.dts
                # Nothing is shown before it is decoded.
                if last >= span.stop:
                    break
                packet.pts += span.later
                packet.dts += span.later
                yield packet
            else:
                self.missing += sum(last < entry.timestamp < span.stop for entry in self._stream.index_entries)
            yield self._rest()

    def _rest(self) -> Packet[VideoStream]:
        packet = cast("Packet[VideoStream]", Packet())
        packet.stream = self._stream
        return packet

    def _from_key(self, first: int) -> Iterator[Packet[VideoStream]]:
        """Packets from the last key frame on that can be decoded alone and is not shown after tick `first`, or else from the start."""
        target, before = first, None
        while True:
            self._container.seek(target, stream=self._stream)
            packets = self._container.demux(self._stream)
            packet = next(packets)
            if packet.pts is None or packet.dts is None or packet.dts == before:
                break
            before, target = packet.dts, packet.dts - 1
            # What is shown before a key frame, but follows it in the file, needs the key frame before.
            if packet.pts <= first and decode_key_frame(self._container, self._stream, packet.pts, packet.dts) is not None:
                packets = packets_from(self._container, self._stream, packet.pts, packet.dts)
                packet = next(packets)
                break
        yield packet
        yield from packets


def _spans(edits: Sequence[Edit], base: Fraction) -> Iterator[_Span]:
    begun = 0
    for edit in edits:
        lasts = round(edit.lasts_s / base)
        if edit.start_s is not None:
            first = round(edit.start_s / base)
            yield _Span(first, first + lasts, begun - first)
        begun += lasts
