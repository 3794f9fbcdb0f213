"""Votes of FER+: soft targets and majorities."""

from __future__ import annotations

import pytest
import torch

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.data.fer2013 import (
    VOTES,
)
from training.data.votes import label_probabilities, majority, majority_emotion, vote_shares


def test_votes_tell_how_likely_each_label_is() -> None:
    # Votes of happiness mean happy, three times out of four; a picture without votes could be anything.
    labels = torch.tensor([label for label in range(7) for _ in range(40)])
    happy = EMOTIONS.index("happy")
    counts = torch.zeros(280, len(VOTES), dtype=torch.int64)
    counts[labels == happy, VOTES.index("happiness")] = 10
    (others,) = torch.where(labels != happy)
    counts[others[::18], VOTES.index("happiness")] = 10
    likely = label_probabilities(counts, labels, seed=0)
    assert torch.allclose(likely.sum(dim=1), torch.ones(280), atol=1e-5)
    voted = counts[:, VOTES.index("happiness")] > 0
    share = float((labels[voted] == happy).float().mean())
    assert abs(float(likely[voted, happy].mean()) - share) < 0.05
    assert float(likely[~voted, happy].mean()) < 0.05


def test_scarce_emotions_cannot_teach_what_votes_mean() -> None:
    with pytest.raises(DataError, match=r"fewer than 5 pictures of disgust.*votes_share = 0"):
        label_probabilities(torch.ones(60, len(VOTES), dtype=torch.int64), torch.tensor([0, 2, 3, 4, 5, 6] * 10), seed=0)


def test_shares_of_votes_are_a_distribution() -> None:
    counts = torch.zeros(2, len(VOTES), dtype=torch.int64)
    counts[0, 0], counts[0, 1] = 3, 1
    shares = vote_shares(counts)
    assert shares[0, :2].tolist() == [0.75, 0.25]
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ({"happiness": 10}, "happiness"),
        ({"happiness": 5, "sadness": 5}, None),  # no more than half
        ({"happiness": 5, "sadness": 4, "fear": 1}, "happiness"),  # the single vote is dropped, 5 of 9 remain
        ({"happiness": 4, "sadness": 1, "fear": 1, "anger": 1, "disgust": 1, "neutral": 1, "surprise": 1}, "happiness"),
        ({"happiness": 3, "sadness": 3, "fear": 2, "unknown": 2}, None),
        ({"contempt": 6, "neutral": 4}, "contempt"),
        ({"unknown": 8, "sadness": 2}, None),
        ({"NF": 10}, None),
        ({"happiness": 4, "unknown": 4, "NF": 2}, None),  # votes for unknown and for no face count
        (dict.fromkeys(VOTES, 1), None),
    ],
)
def test_the_majority_is_that_of_the_authors_of_the_votes(votes: dict[str, int], winner: str | None) -> None:
    counts = torch.tensor([[votes.get(name, 0) for name in VOTES]])
    assert majority(counts).tolist() == [-1 if winner is None else VOTES.index(winner)]
    emotions = {"happiness": EMOTIONS.index("happy"), "contempt": len(EMOTIONS), None: -1}
    assert majority_emotion(counts).tolist() == [emotions[winner]]
