"""The command `sweep`: compares hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from batchemo.errors import typed
from training.commands.options import Data, Device, Votes
from training.console import say


def sweep(
    *,
    trials: Annotated[Path, typer.Argument(help="TOML file: a recipe, and lists or ranges of values.", metavar="SWEEP.toml")],
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the trials; default: runs/<name of the sweep>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's: trials may be short.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Parallel trials; default: one per core, or one on a GPU.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train once for each set of hyperparameters. Prints a table, the best first, and writes OUT/results.csv.

    If it is stopped, the same command resumes.
    """
    from batchemo.devices import choose_device
    from batchemo.run.processes import usable_cores
    from training.commands.tables import print_trials
    from training.data.holdout import read_holdout
    from training.fit.sweep import RECIPE_FILE, rank_trials, read_sweep, run_sweep

    planned = read_sweep(trials, epochs=epochs)
    folder = out if out is not None else Path("runs") / trials.stem
    target = choose_device(device)
    count = workers or (1 if target.type == "cuda" else usable_cores())
    shared = read_holdout(data, votes, planned[0].recipe.seed)
    say(f"{len(planned)} trials, {min(count, len(planned))} at once, in {folder}; compared on {shared.name}")
    results: list[dict[str, Any]] = []
    try:
        for result in run_sweep(planned, shared, folder=folder, device=target, workers=count):
            results.append(result)
            say(f"{len(results)}/{len(planned)}  {result['trial']}  {result['error'] or format(result['accuracy_clean'], '.2%')}")
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise typer.Exit(130) from None
    best = rank_trials(results)[0]
    print_trials(rank_trials(results))
    if not best["error"]:
        chosen = folder / best["trial"]
        votes_too = f" --votes {typed(votes)}" if votes is not None else ""
        command = f"python -m training fit {typed(chosen / RECIPE_FILE)} --data {typed(data)}{votes_too}"
        say(f"next: {command} --out {typed(chosen)}  (writes the weights of the best trial)")
        if epochs is not None:
            whole = read_sweep(trials)[0].recipe.epochs
            say(f"or:   {command} --epochs {whole} --out {typed(folder / 'best')}  (trains it as long as the recipe says)")
