"""How well identities are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from training.console import say
from training.options import Data, Votes


def tracking(
    *,
    data: Data,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Whose faces play. Thresholds were chosen with Training's.")] = "PublicTest",
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="Scenes of each kind.")] = 10,
    fps: Annotated[float | None, typer.Option("--fps", min=1, help="Pictures a second; default: another rate for each scene.")] = None,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Write the scenes as videos and analyse these: slow.")] = False,
) -> None:
    """Measure how well identities are kept, in scenes whose identities are known, against simpler trackers."""
    from training.dataset import read_split
    from training.display import print_tracking
    from training.scenes import cast
    from training.staging import KINDS, RETURNS, stage
    from training.tracking import score, through_pipeline, trackers, watch

    people = cast(read_split(data, split, votes=votes).pixels[:200, 0].numpy(), seed=5)
    scores, described = [], []
    for kind in KINDS:
        say(f"{kind} ...")
        for seed in range(scenes):
            scene = stage(kind, people, seed=seed, fps=fps)
            if pipeline:
                scores += through_pipeline(scene)
                continue
            sights, milliseconds = watch(scene)
            described.append(milliseconds)
            scores += [score(sights, make(), kind=kind, name=name) for name, make in trackers(scene.fps).items()]
    print_tracking(scores, described, kinds=tuple(KINDS), returns=RETURNS)
