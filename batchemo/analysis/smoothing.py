"""Probabilities averaged over time: what stays when the noise of single frames has gone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.analysis.frames import labels_of, track_keys, tracks_in, unbroken
from batchemo.errors import UsageError
from batchemo.results.episodes import GAP_SECONDS, SMOOTH_SECONDS, moving_mean

UNCERTAIN_BELOW = 0.5
"""As `batchemo run --uncertain-below`."""


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
