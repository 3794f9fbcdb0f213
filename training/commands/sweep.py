"""Many short runs, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from batchemo.errors import typed
from training.console import say
from training.options import Data, Device, Votes


def sweep(
    *,
    trials: Annotated[Path, typer.Argument(help="TOML file: a recipe, and lists or ranges to vary.", metavar="SWEEP.toml")],
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the trials; default: runs/<name of the sweep>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's: trials may be short.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Trials at once; default: one a core, one on a GPU.")] = None,
    device: Device = "auto",
) -> None:
    """Train once for each set of hyperparameters, and print a table of them, the best first; also OUT/results.csv.

    Stopped at any time, the same command goes on where it was.
    """
    from batchemo.devices import choose_device
    from batchemo.run.local import usable_cores
    from training.display import print_trials
    from training.material import gather
    from training.sweeping import RECIPE as RECIPE_OF_TRIAL
    from training.sweeping import ranked, read_sweep, run_sweep

    planned = read_sweep(trials, epochs=epochs)
    folder = out if out is not None else Path("runs") / trials.stem
    target = choose_device(device)
    count = workers or (1 if target.type == "cuda" else usable_cores())
    shared = gather(data, votes, planned[0].recipe.seed)
    say(f"{len(planned)} trials, {min(count, len(planned))} at once, in {folder}; compared on {shared.name}")
    results: list[dict[str, Any]] = []
    try:
        for result in run_sweep(planned, shared, folder=folder, device=target, workers=count):
            results.append(result)
            say(f"{len(results)}/{len(planned)}  {result['trial']}  {result['error'] or format(result['accuracy_clean'], '.2%')}")
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise typer.Exit(130) from None
    best = ranked(results)[0]
    print_trials(ranked(results))
    if not best["error"]:
        chosen = folder / best["trial"]
        votes_too = f" --votes {typed(votes)}" if votes is not None else ""
        command = f"python -m training fit {typed(chosen / RECIPE_OF_TRIAL)} --data {typed(data)}{votes_too}"
        say(f"next: {command} --out {typed(chosen)}  (writes the weights of the best trial)")
        if epochs is not None:
            whole = read_sweep(trials)[0].recipe.epochs
            say(f"or:   {command} --epochs {whole} --out {typed(folder / 'best')}  (trains it as long as the recipe says)")
