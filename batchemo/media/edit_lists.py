"""Applies edit lists with several edits to packets.

FFmpeg handles a single edit well. After a second edit that starts within a group of pictures, it presents reordered H.264 frames up to two
frames too early or too late, and loses most frames of HEVC.
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


class _EditTicks(NamedTuple):
    """An edit in ticks of the stream's time base: frames from PTS `first` until before `stop` are presented `offset` ticks later."""

    first: int
    stop: int
    offset: int


class EditedPackets:
    """The packets of `stream` with the timestamps that `edits` give them. The container must have been opened without its edit list.

    Packets that are only needed as references are included: `is_presented` distinguishes them while their edit lasts. After each edit comes
    an empty packet, which flushes the decoder. `missing` counts frames of the edits that are not in the file.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, edits: Sequence[Edit]) -> None:
        self._container = container
        self._stream = stream
        self._edits = list(_in_ticks(edits, stream.time_base or Fraction(1)))
        self._edit = _EditTicks(0, 0, 0)
        self.duration_s = float(sum(edit.duration_s for edit in edits))
        self.missing = 0

    def is_presented(self, pts: int | None) -> bool:
        """Whether the current edit presents the frame with this (edited) PTS."""
        return pts is not None and self._edit.first <= pts - self._edit.offset < self._edit.stop

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        for edit in self._edits:
            self._edit = edit
            last = edit.first - 1
            for packet in self._from_key_frame(edit.first):
                if packet.pts is None or packet.dts is None:
                    continue
                last = packet.dts
                # No frame is presented before it is decoded, so none of the edit can follow.
                if last >= edit.stop:
                    break
                packet.pts += edit.offset
                packet.dts += edit.offset
                yield packet
            else:
                self.missing += sum(last < entry.timestamp < edit.stop for entry in self._stream.index_entries)
            yield self._flush_packet()

    def _flush_packet(self) -> Packet[VideoStream]:
        """An empty packet: the decoder returns the frames that it has buffered."""
        packet = cast("Packet[VideoStream]", Packet())
        packet.stream = self._stream
        return packet

    def _from_key_frame(self, first: int) -> Iterator[Packet[VideoStream]]:
        """Packets from the last key frame at or before PTS `first` that can be decoded alone, or else from the start."""
        target, before = first, None
        while True:
            self._container.seek(target, stream=self._stream)
            packets = self._container.demux(self._stream)
            packet = next(packets)
            if packet.pts is None or packet.dts is None or packet.dts == before:
                break
            before, target = packet.dts, packet.dts - 1
            # Frames that follow an open key frame in the file, but are presented before it, need the previous key frame.
            if packet.pts <= first and decode_key_frame(self._container, self._stream, packet.pts, packet.dts) is not None:
                packets = packets_from(self._container, self._stream, packet.pts, packet.dts)
                packet = next(packets)
                break
        yield packet
        yield from packets


def _in_ticks(edits: Sequence[Edit], base: Fraction) -> Iterator[_EditTicks]:
    shown = 0
    for edit in edits:
        duration = round(edit.duration_s / base)
        if edit.start_s is not None:
            first = round(edit.start_s / base)
            yield _EditTicks(first, first + duration, shown - first)
        shown += duration
