"""How annotated copies look: what they are drawn and encoded by, beside the tables."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Codec = Literal["h264", "hevc", "av1", "vp9"]
Quality = Literal["low", "medium", "high"]
BlurStyle = Literal["pixels", "solid"]


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """`blur_faces`: nobody can be recognized, and `blur_style` covers the faces; `timeline`: a strip below videos. The rest is about the
    encoding of videos; `hardware`: by the machine's own encoder where there is one."""

    blur_faces: bool = False
    blur_style: BlurStyle = "pixels"
    timeline: bool = False
    codec: Codec = "h264"
    quality: Quality = "medium"
    hardware: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As it is stored: what covers faces is only part of a look that hides them."""
        found = dataclasses.asdict(self)
        return found if self.blur_faces else {name: value for name, value in found.items() if name != "blur_style"}
