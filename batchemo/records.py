"""Value objects that the stages of the pipeline exchange. Imports only `errors` and `yuv`, so that no import cycle can arise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError

if TYPE_CHECKING:
    from batchemo.yuv import Planes

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Labels of the shipped weights, in the order of FER2013."""

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""The five landmarks of a face, in MTCNN's order. Left and right are those of the picture, not of the person."""

MediaKind = Literal["image", "video"]


@dataclasses.dataclass(frozen=True, slots=True)
class Medium:
    """A picture or video to analyse.

    - `name`: its path below the INPUT (column `media`).
    - `output`: the same as a relative path that is safe and unique in a results folder, without the suffix of each kind of output.
    """

    path: Path
    name: str
    output: str
    kind: MediaKind

    def size_bytes(self) -> int:
        """The size of the file; 0 where it is not there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


class Picture(Protocol):
    """An upright picture, converted to colours on demand."""

    @property
    def nbytes(self) -> int: ...

    def rgb(self, shrink: int = 1) -> NDArray[np.uint8]:
        """H x W x 3, both sides divided by `shrink`."""
        ...

    def grey(self) -> NDArray[np.uint8]:
        """H x W, luma 0 to 255: BT.601, or the video's own."""
        ...

    def planes(self) -> Planes | None:
        """The decoded YUV planes; None if their format cannot be drawn on."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a medium: RGB uint8 H x W x 3, upright, or a `Picture`; `time_s` since the medium's first frame.

    A frame that no decoder can decode has no picture, and `index` -1: indices count decoded frames.
    """

    index: int
    time_s: float
    picture: NDArray[np.uint8] | Picture | None

    def __post_init__(self) -> None:
        pixels = self.picture
        if isinstance(pixels, np.ndarray) and (pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8):
            raise ValueError(f"pixels must be uint8 H x W x 3, not {pixels.dtype} {pixels.shape}")

    def __repr__(self) -> str:
        return f"Frame({self.index}, {self.time_s:.6f} s{'' if self.is_decoded else ', undecodable'})"

    @property
    def is_decoded(self) -> bool:
        return self.picture is not None

    @property
    def nbytes(self) -> int:
        return 0 if self.picture is None else self.picture.nbytes

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """RGB uint8 H x W x 3, converted anew on each access. Raises ValueError for an undecodable frame."""
        if self.picture is None:
            raise ValueError(f"{self!r} has no picture")
        return self.picture if isinstance(self.picture, np.ndarray) else self.picture.rgb()

    def small(self, shrink: int) -> NDArray[np.uint8]:
        """RGB uint8, both sides divided by `shrink`, without a full-size conversion. Raises ValueError for an undecodable frame."""
        if self.picture is None:
            raise ValueError(f"{self!r} has no picture")
        if not isinstance(self.picture, np.ndarray):
            return self.picture.rgb(shrink)
        import cv2  # noqa: PLC0415 (readers of tables need no decoder)

        height, width = (max(1, side // shrink) for side in self.picture.shape[:2])
        return np.asarray(cv2.resize(self.picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    @property
    def planes(self) -> Planes:
        """The decoded YUV planes, or those of `pixels`; read-only. Raises ValueError for an undecodable frame."""
        found = None if self.picture is None or isinstance(self.picture, np.ndarray) else self.picture.planes()
        if found is not None:
            return found
        from batchemo.yuv import Planes  # noqa: PLC0415 (readers of tables need no decoder)

        return Planes.from_rgb(self.pixels)

    @property
    def grey(self) -> NDArray[np.uint8]:
        """Uint8 H x W, read-only. Raises ValueError for an undecodable frame."""
        if self.picture is None:
            raise ValueError(f"{self!r} has no picture")
        if not isinstance(self.picture, np.ndarray):
            return self.picture.grey()
        import cv2  # noqa: PLC0415 (readers of tables need no decoder)

        return np.asarray(cv2.cvtColor(self.picture, cv2.COLOR_RGB2GRAY), np.uint8)


@dataclasses.dataclass(frozen=True, slots=True)
class Faces:
    """The N faces of one frame, in pixels of the upright picture, largest first.

    - `boxes` float32 N x 4: bounding boxes (x1, y1, x2, y2).
    - `landmarks` float32 N x 5 x 2 (x, y), in the order of `LANDMARKS`.
    - `scores` float32 N: the detector's, 0 to 1.
    - `propagated`: all come from another frame by optical flow, with their scores there, and not from a search.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    propagated: bool = False

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.landmarks.shape != (count, 5, 2) or self.scores.shape != (count,):
            raise ValueError(f"shapes do not agree: {self!r}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Faces(boxes {self.boxes.shape}, landmarks {self.landmarks.shape}, scores {self.scores.shape})"

    @classmethod
    def none(cls) -> Faces:
        return cls(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Faces]) -> Faces:
        """All faces of `parts`, which may be empty."""
        every = [cls.none(), *parts]
        boxes, landmarks, scores = ([getattr(part, name) for part in every] for name in ("boxes", "landmarks", "scores"))
        return cls(np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores))

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Faces:
        return Faces(self.boxes[chosen], self.landmarks[chosen], self.scores[chosen], self.propagated)

    def shifted(self, right_px: float, down_px: float) -> Faces:
        by = np.array([right_px, down_px], np.float32)
        return Faces(self.boxes + np.tile(by, 2), self.landmarks + by, self.scores, self.propagated)

    def intersection(self, others: Faces) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Intersection of N boxes with M others, N x M, and the areas of both, N x 1 and 1 x M (px squared)."""
        low = np.maximum(self.boxes[:, None, :2], others.boxes[None, :, :2])
        high = np.minimum(self.boxes[:, None, 2:], others.boxes[None, :, 2:])
        areas, other_areas = (np.prod(each.boxes[:, 2:] - each.boxes[:, :2], axis=1) for each in (self, others))
        return np.clip(high - low, 0, None).prod(axis=2), areas[:, None], other_areas[None]

    def iou(self, others: Faces) -> NDArray[np.float32]:
        """Intersection over union of N boxes with M others, N x M."""
        intersection, areas, other_areas = self.intersection(others)
        return np.asarray(intersection / (areas + other_areas - intersection))

    def largest_first(self) -> Faces:
        return self.subset(np.argsort(-(self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1), kind="stable"))


@dataclasses.dataclass(frozen=True, slots=True)
class DetectedFrame:
    """A frame and its faces. `cut`: a shot begins with it."""

    frame: Frame
    faces: Faces
    cut: bool


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedCrops:
    """Aligned crops of the N faces of one frame: the classifier's input.

    `pixels` uint8 N x 48 x 48 grey, `face_px` float32 N: side of each crop in the picture, `sharpness` float32 N.
    """

    pixels: NDArray[np.uint8]
    face_px: NDArray[np.float32]
    sharpness: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.face_px) == len(self.sharpness):
            raise ValueError(f"shapes do not agree: {self!r}")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"AlignedCrops(pixels {self.pixels.shape})"


@dataclasses.dataclass(frozen=True, slots=True)
class FrameResult:
    """Results of one frame, before tracking.

    - `index`: -1 for an undecodable frame; `time_s` since the medium's first frame; `cut`: a shot begins with it.
    - `face_px`, `sharpness` float32 N: as in `AlignedCrops`.
    - `probabilities` float32 N x classes.
    - `embeddings` float32 N x D (see `batchemo.faces.reid`); None if the frame was not sampled.
    - `fingerprint`: of the frame's picture; 0 for an undecodable one.
    """

    index: int
    time_s: float
    faces: Faces
    face_px: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    cut: bool
    fingerprint: int

    def __post_init__(self) -> None:
        counts = {len(each) for each in (self.faces, self.face_px, self.sharpness, self.probabilities)}
        if len(counts) != 1 or (self.embeddings is not None and len(self.embeddings) != len(self.faces)):
            raise ValueError(f"{len(self.faces)} faces, {len(self.face_px)} sizes, {len(self.probabilities)} probabilities")

    def __repr__(self) -> str:
        return f"FrameResult({self.index}, {self.time_s:.6f} s, {len(self.faces)} faces)"


@dataclasses.dataclass(frozen=True, slots=True)
class OverlayData:
    """What is drawn onto a frame.

    - `boxes` float32 N x 4 (px), `track_ids` int32 N, `probabilities` float32 N x classes, `uncertain` bool N: of its faces.
    - `hidden` float32 M x 4 (px): where faces are or may be, to be blurred if that is asked for.
    """

    boxes: NDArray[np.float32]
    track_ids: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    uncertain: NDArray[np.bool_]
    hidden: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not len(self.boxes) == len(self.track_ids) == len(self.probabilities) == len(self.uncertain):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.track_ids)} track ids, {len(self.probabilities)} probabilities")

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"OverlayData({len(self)} faces)"


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """An interval of a video that can be decoded independently, in ticks of the container.

    - `start`, `stop`: first tick shown, and the tick before which it ends; None: unbounded. An indivisible medium is one unbounded segment.
    - `seek`: decoding tick of the key frame shown at `start`.
    - `zero`: tick of the medium's first frame.
    - `before_s`: time of the last frame before `start`.
    - `frames`: expected number of frames.
    - `size`: (width, height) of the medium as presented.
    """

    number: int = 0
    start: int | None = None
    stop: int | None = None
    seek: int | None = None
    zero: int | None = None
    before_s: float | None = None
    frames: int = 0
    size: tuple[int, int] | None = None

    @property
    def is_whole(self) -> bool:
        return self.zero is None

    def holds(self, tick: int) -> bool:
        return (self.start is None or tick >= self.start) and (self.stop is None or tick < self.stop)


@dataclasses.dataclass(frozen=True, slots=True)
class MediaRow:
    """One row of `media.parquet`: the outcome of one medium.

    - `error`: kind of the error if `status` is `failed`; otherwise empty, or `faces_left` if the blurred copy may show a face.
    - `starts_s`: when a player shows the first frame, counted from where sound or pictures begin; None if unknown, as in rows of older
      versions.
    """

    media: str
    path: str
    kind: MediaKind
    status: Literal["done", "failed"]
    error: str = ""
    message: str = ""
    decoder: str = ""
    width: int = 0
    height: int = 0
    duration_s: float = 0.0
    starts_s: float | None = None
    n_frames: int = 0
    n_frames_analysed: int = 0
    n_faces: int = 0
    n_tracks: int = 0
    sha256: str = ""
    seconds_taken: float = 0.0
    run_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def storable(self) -> MediaRow:
        """The row with texts as valid UTF-8: file names may be any bytes."""
        texts = {name: getattr(self, name) for name in ("media", "path", "message")}
        return dataclasses.replace(
            self, **{name: text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name, text in texts.items()}
        )


def failed_row(row: MediaRow, error: MediaError) -> MediaRow:
    """The row of a medium that failed with `error`."""
    return dataclasses.replace(row, status="failed", error=error.kind, message=str(error)).storable()


@dataclasses.dataclass(frozen=True, slots=True)
class MediumOutcome:
    """What an engine returns per medium: its `row`, processor time (`seconds`) per stage, and the
    `processors` that computed its probabilities."""

    row: MediaRow
    seconds: Mapping[str, float]
    processors: tuple[str, ...] = ()
