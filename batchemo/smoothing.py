"""Probabilities averaged over time: what stays when the noise of single frames has gone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.errors import UsageError
from batchemo.rows import GAP_SECONDS, labels_of, track_keys, tracks_in, unbroken

SMOOTH_SECONDS = 0.5
"""Width of the moving average: expressions that people notice last half a second to four (Ekman 2003, *Emotions Revealed*), so what is
shorter is mostly the noise of single frames. Micro-expressions (1/25 to 1/5 s by Ekman; below .5 s in Yan et al. 2013, *Journal of
Nonverbal Behavior* 37) are averaged away: to look for them, give a width of about .1 s and analyse every frame of a quick camera."""

UNCERTAIN_BELOW = 0.5
"""As `batchemo run --uncertain-below`."""


def moving_mean(times: NDArray[np.float64], values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Mean of `values` (N x K) over all rows within `seconds` / 2 of each of the increasing `times` (N)."""
    first = np.searchsorted(times, times - seconds / 2 - 1e-9, side="left")
    last = np.searchsorted(times, times + seconds / 2 + 1e-9, side="right")
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def smooth(
    faces: pd.DataFrame, *, seconds: float = SMOOTH_SECONDS, gap_seconds: float = GAP_SECONDS, uncertain_below: float = UNCERTAIN_BELOW
) -> pd.DataFrame:
    """`faces` with each `p_<emotion>` averaged over the rows of its track within `seconds` / 2 before and after it.

    By time and not by number of rows, so that variable frame rates and sampled videos come out alike; never across a track's gaps of more
    than `gap_seconds`. `emotion`, `confidence` and `uncertain` are read off the averages. Rows and their order stay. Raises UsageError.
    """
    if seconds < 0 or gap_seconds < 0:
        raise UsageError(f"smooth: seconds={seconds} and gap_seconds={gap_seconds} must not be negative")
    keys = track_keys(faces, what="smooth")
    labels = labels_of(faces)
    if not labels:
        raise UsageError("smooth: the table has no columns p_<emotion>; load the faces with: batchemo.load(DIR)")
    columns = [f"p_{label}" for label in labels]
    values = faces[columns].to_numpy(np.float64, copy=True)
    times = faces["time_s"].to_numpy(np.float64)
    for _, positions in tracks_in(faces, keys):
        for part in unbroken(times[positions], gap_seconds):
            rows = positions[part]
            values[rows] = moving_mean(times[rows], values[rows], seconds)
    return with_probabilities(faces, values, labels, uncertain_below=uncertain_below)


def with_probabilities(faces: pd.DataFrame, values: NDArray[np.float64], labels: list[str], *, uncertain_below: float) -> pd.DataFrame:
    """`faces` with other probabilities (N x labels), and what is read off them."""
    # Where media of other labels lie beside these, their probabilities are missing and not 0.
    known = np.where(np.isnan(values), -1.0, values)
    best = known.argmax(axis=1) if len(known) else np.empty(0, np.intp)
    confidence = known[np.arange(len(known)), best].astype(np.float32)
    changed = {f"p_{label}": values[:, i].astype(np.float32) for i, label in enumerate(labels)}
    emotion = pd.Series([labels[i] for i in best], index=faces.index, dtype="str")
    return faces.assign(**changed, emotion=emotion, confidence=confidence, uncertain=confidence < uncertain_below)
