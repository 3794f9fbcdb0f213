"""What the votes of FER+ tell about the label that FER2013 has: softer targets, and a second thing to learn.

The most frequent vote is FER2013's label for 62 % of the pictures only, so votes are never labels themselves. How likely
each label is, given the votes, is fitted on Training; that distribution says which pictures are clear and what the others
may be taken for.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.dataset import VOTES

PUBLISHED_MAJORITY = {"Training": 25060, "PublicTest": 3199, "PrivateTest": 3153}
"""Pictures a split that `majority` keeps of FER+ as published: counted from its csv."""

EMOTION_OF_VOTE = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
}
"""FER2013's name of what FER+'s annotators could choose. Contempt has none."""

_FOLDS = 5


def label_probabilities(votes: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    """P(label | votes), float32 N x 7, of `votes` (N x 10 counts): multinomial logistic regression.

    Cross-fitted over five folds, so that no picture's own label speaks in its own distribution.
    Raises DataError where an emotion has fewer pictures than there are folds.
    """
    scarce = [emotion for label, emotion in enumerate(EMOTIONS) if int((labels == label).sum()) < _FOLDS]
    if scarce:
        raise DataError(f"fewer than {_FOLDS} pictures of {', '.join(scarce)}: too few to learn what their votes mean; set votes_share = 0")
    counts = votes.numpy().astype(np.float64)
    # A second vote says less than the first.
    inputs = np.concatenate([counts, np.log1p(counts)], axis=1)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=2000)
    return torch.from_numpy(cross_val_predict(model, inputs, labels.numpy(), cv=folds, method="predict_proba")).float()


def vote_shares(votes: Tensor) -> Tensor:
    """Votes as a distribution: float32 N x 10, uniform where nobody voted."""
    counts = votes.float()
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(1), 1 / counts.shape[1])


def majority(votes: Tensor) -> Tensor:
    """What most annotators chose, int64 N: an index into `VOTES`, -1 where they do not agree or see no emotion.

    The rule is that of the authors' own code (github.com/microsoft/FERPlus, src/ferplus.py, mode "majority"): choices
    with a single vote are dropped, the winner must have more than half of the votes that remain, and pictures where
    "unknown" or "not a face" wins are left out.
    """
    counts = torch.where(votes > 1, votes, 0)
    most, chosen = counts.max(dim=1)
    agreed = (2 * most > counts.sum(dim=1)) & (chosen < VOTES.index("unknown"))
    return torch.where(agreed, chosen, -1)


def majority_emotion(votes: Tensor) -> Tensor:
    """`majority` as an index into `EMOTIONS`, int64 N: -1 where there is none, `len(EMOTIONS)` for contempt."""
    numbers = [EMOTIONS.index(EMOTION_OF_VOTE[vote]) if vote in EMOTION_OF_VOTE else len(EMOTIONS) for vote in VOTES]
    return torch.tensor([*numbers, -1])[majority(votes)]
