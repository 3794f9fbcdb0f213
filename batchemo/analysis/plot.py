"""Plots of timelines by matplotlib, an extra: `pip install "batchemo[plot]"`. Each draws on `ax`, or a new figure, and returns its Axes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.analysis.frames import durations, labels_of, need, track_keys, tracks_in, unbroken
from batchemo.analysis.smoothing import smooth
from batchemo.analysis.statistics import share
from batchemo.analysis.statistics import transitions as count_transitions
from batchemo.errors import UsageError, suggestion
from batchemo.palette import as_hex, colours
from batchemo.results.episodes import GAP_SECONDS, SMOOTH_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LANE = 0.86
"""Height of a track's lane where the emotion is certain; lanes are 1 apart."""


def timeline(faces: pd.DataFrame, *, media: str | None = None, smooth_seconds: float = SMOOTH_SECONDS, ax: Axes | None = None) -> Axes:
    """The emotions of one medium over time, a lane for each track: the colour is the most probable emotion's, averaged over
    `smooth_seconds`, the height its probability (the dotted line is one half). Where a lane is empty, the track is out of view.

    `media` picks the medium where `faces` holds several. Raises UsageError.
    """
    rows = _one_medium(faces, media)
    labels = labels_of(rows)
    axes = ax if ax is not None else _new_axes(9, 1.3 + 0.5 * rows["track_id"].nunique())
    shown = smooth(rows, seconds=smooth_seconds)
    seconds = durations(rows).to_numpy()
    times, confidence = shown["time_s"].to_numpy(np.float64), shown["confidence"].to_numpy(np.float64)
    emotions = shown["emotion"].to_numpy()
    names = []
    for lane, (track, positions) in enumerate(tracks_in(rows, track_keys(rows, what="plot.timeline"))):
        names.append(f"#{track['track_id']}")
        for part in unbroken(times[positions], GAP_SECONDS):
            here = positions[part]
            edges = np.append(times[here], times[here[-1]] + seconds[here[-1]])
            _draw_lane(axes, -lane, edges, confidence[here], emotions[here], dict(zip(labels, _hex(labels), strict=True)))
        axes.axhline(0.5 * _LANE - lane, color="0.4", linewidth=0.6, linestyle=":", zorder=3)
    axes.set_yticks([0.5 * _LANE - lane for lane in range(len(names))], names)
    axes.set_ylim(-len(names) + 0.9, 1)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("track")
    if "media" in rows.columns and len(rows):
        axes.set_title(_plain(str(rows["media"].iloc[0])), loc="left", parse_math=False)
    _add_legend(axes, [label for label in labels if label in set(emotions)])
    return _without_frame(axes)


def mix(faces: pd.DataFrame, by: Hashable | Sequence[Any] = "media", *, ax: Axes | None = None, **choices: Any) -> Axes:
    """The share of time of each emotion, a bar for each group of `by`; `choices` are those of `batchemo.share`. Raises UsageError."""
    table = share(faces, by, **choices)
    axes = ax if ax is not None else _new_axes(9, 1.3 + 0.35 * len(table))
    names = [_plain(", ".join(map(str, name)) if isinstance(name, tuple) else str(name)) for name in table.index]
    left = np.zeros(len(table))
    for label, colour in zip(table.columns, _hex(list(table.columns)), strict=True):
        widths = table[label].fillna(0.0).to_numpy(np.float64)
        axes.barh(range(len(table)), widths, left=left, color=colour, edgecolor="white", linewidth=0.5)
        left = left + widths
    axes.set_yticks(range(len(table)), names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:.0%}")
    axes.set_xlabel("share of the time that faces are seen")
    _add_legend(axes, [str(label) for label in table.columns if (table[label] > 0).any()])
    return _without_frame(axes)


def transitions(table: pd.DataFrame, *, shares: bool = False, ax: Axes | None = None, **choices: Any) -> Axes:
    """What follows what, as a grid of numbers; `table` and `choices` are those of `batchemo.transitions`. Raises UsageError."""
    counts = count_transitions(table, shares=shares, **choices)
    axes = ax if ax is not None else _new_axes(1.8 + 0.75 * len(counts), 1.2 + 0.6 * len(counts))
    values = counts.fillna(0).to_numpy(np.float64)
    highest = float(values.max(initial=0.0)) or 1.0
    axes.imshow(values, cmap="Greys", vmin=0, vmax=highest * 1.2)
    for row, column in np.argwhere(values > 0):
        text = f"{values[row, column]:.0%}" if shares else f"{values[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if values[row, column] > 0.6 * highest else "black")
    axes.set_xticks(range(len(counts)), [str(name) for name in counts.columns], rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(counts)), [str(name) for name in counts.index])
    axes.set_xlabel("then")
    axes.set_ylabel("first")
    return _without_frame(axes)


def _one_medium(faces: pd.DataFrame, media: str | None) -> pd.DataFrame:
    if media is not None:
        need(faces, ["media"], what="plot.timeline")
        names = [str(name) for name in faces["media"].unique()]
        if media not in names:
            raise UsageError(f"plot.timeline: no medium {media!r}; {suggestion(media, names[:20])}")
        faces = faces[faces["media"] == media]
    several = faces[[name for name in ("results", "media") if name in faces.columns]].drop_duplicates()
    if len(several) > 1 and len(several.columns):
        named = str(several["media"].iloc[0]) if "media" in several.columns else ""
        raise UsageError(f"plot.timeline draws one medium, and the table holds {len(several)}; pick one, as with media={named!r}")
    return faces


def _draw_lane(
    axes: Axes, base: float, edges: NDArray[np.float64], heights: NDArray[np.float64], emotions: NDArray[Any], colour_of: dict[str, str]
) -> None:
    """One unbroken part of a track: a step for each row from its time to the next row's (`edges`, one more than rows)."""
    tops = base + _LANE * np.append(heights, heights[-1])
    borders = np.flatnonzero(emotions[1:] != emotions[:-1]) + 1
    for first, last in zip([0, *borders], [*borders, len(emotions)], strict=True):
        span = slice(first, last + 1)
        step_tops = np.append(tops[first:last], tops[last - 1])
        axes.fill_between(edges[span], base, step_tops, step="post", color=colour_of[str(emotions[first])], linewidth=0)


def _new_axes(width: float, height: float) -> Axes:
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise UsageError('plots need matplotlib, an extra; install it with: pip install "batchemo[plot]"') from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _hex(labels: Sequence[str]) -> list[str]:
    return [as_hex(colour) for colour in colours(labels)]


def _add_legend(axes: Axes, shown: Sequence[str]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415 (an extra)

    patches = [Patch(color=colour, label=label) for label, colour in zip(shown, _hex(shown), strict=True)]
    axes.legend(handles=patches, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _without_frame(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _plain(text: str) -> str:
    """A name that no font can stumble over: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
