"""The command `tracking`: measures the tracker in synthetic scenes."""

from __future__ import annotations

from typing import Annotated

import typer

from training.commands.options import Data, Votes
from training.console import say


def tracking(
    *,
    data: Data,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Split of the faces. Thresholds were chosen on Training.")] = "PublicTest",
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="Number of scenes of each kind.")] = 10,
    fps: Annotated[
        float | None, typer.Option("--fps", min=1, help="Frames per second; default: the scenes take turns with five rates.")
    ] = None,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Analyse the scenes as videos, with the whole pipeline: slow.")] = False,
) -> None:
    """Score the tracker and simpler baselines on synthetic scenes with known identities (HOTA, IDF1, switches)."""
    from training.commands.tables import print_tracking
    from training.data.fer2013 import read_split
    from training.tracking.baselines import trackers
    from training.tracking.scenarios import KINDS, RETURNS, make_scene
    from training.tracking.scenes import make_people
    from training.tracking.scoring import observe, score_pipeline, score_tracker

    people = make_people(read_split(data, split, votes=votes).pixels[:200, 0].numpy(), seed=5)
    scores, milliseconds = [], []
    for kind in KINDS:
        say(f"{kind} ...")
        for seed in range(scenes):
            scene = make_scene(kind, people, seed=seed, fps=fps)
            if pipeline:
                scores += score_pipeline(scene)
                continue
            frames, spent = observe(scene)
            milliseconds.append(spent)
            scores += [score_tracker(frames, make(), kind=kind, name=name) for name, make in trackers(scene.fps).items()]
    print_tracking(scores, milliseconds, kinds=tuple(KINDS), returns=RETURNS)
