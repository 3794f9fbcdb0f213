"""Votes of FER+: soft targets for FER2013's labels, and majorities for evaluation.

The most frequent vote equals FER2013's label in only 62 % of the pictures, so votes do not replace labels. The soft targets are the
probabilities of the labels given the votes, fitted on Training.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.data.fer2013 import VOTES

PUBLISHED_MAJORITY = {"Training": 25060, "PublicTest": 3199, "PrivateTest": 3153}
"""Pictures of FER+ as published that have a `majority`, by split; counted from its csv."""

EMOTION_OF_VOTE = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
}
"""FER2013's names of FER+'s choices. Contempt has none."""

_FOLDS = 5


def label_probabilities(votes: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    """P(label | votes), float32 N x 7, of `votes` (N x 10 counts): multinomial logistic regression.

    Cross-fitted over five folds, so that a picture's label does not influence its own probabilities.
    Raises DataError if an emotion has fewer pictures than there are folds.
    """
    scarce = [emotion for label, emotion in enumerate(EMOTIONS) if int((labels == label).sum()) < _FOLDS]
    if scarce:
        raise DataError(f"fewer than {_FOLDS} pictures of {', '.join(scarce)}: too few to learn what their votes mean; set votes_share = 0")
    counts = votes.numpy().astype(np.float64)
    # The logarithm: a second vote says less than the first.
    inputs = np.concatenate([counts, np.log1p(counts)], axis=1)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=2000)
    return torch.from_numpy(cross_val_predict(model, inputs, labels.numpy(), cv=folds, method="predict_proba")).float()


def vote_shares(votes: Tensor) -> Tensor:
    """Votes as a distribution, float32 N x 10; uniform without any vote."""
    counts = votes.float()
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(1), 1 / counts.shape[1])


def majority(votes: Tensor) -> Tensor:
    """The majority of the annotators, int64 N: an index into `VOTES`, or -1 without a majority for an emotion.

    The rule of FER+'s authors (github.com/microsoft/FERPlus, src/ferplus.py, mode "majority"): choices with a single vote are dropped, and
    the winner needs more than half of the remaining votes. "Unknown" and "not a face" are no emotions.
    """
    counts = torch.where(votes > 1, votes, 0)
    most, chosen = counts.max(dim=1)
    agreed = (2 * most > counts.sum(dim=1)) & (chosen < VOTES.index("unknown"))
    return torch.where(agreed, chosen, -1)


def majority_emotion(votes: Tensor) -> Tensor:
    """`majority` as an index into `EMOTIONS`, int64 N: -1 without one, `len(EMOTIONS)` for contempt."""
    numbers = [EMOTIONS.index(EMOTION_OF_VOTE[vote]) if vote in EMOTION_OF_VOTE else len(EMOTIONS) for vote in VOTES]
    return torch.tensor([*numbers, -1])[majority(votes)]
