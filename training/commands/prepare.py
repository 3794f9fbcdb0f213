"""The command `prepare`: checks a data set, and writes parts of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.commands.options import RECIPE, Data, Votes
from training.console import say


def prepare(
    *,
    data: Data,
    votes: Votes = None,
    recipe: Annotated[
        Path, typer.Option("--recipe", help="Its augmentation is drawn.", show_default="training/recipes/shipped.toml")
    ] = RECIPE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for samples.png, augmentations.png, statistics.json, duplicates.csv.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the pictures at 48 px, to NAME.csv as fer2013.csv has them, or to a new folder.")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            "--validation", min=0.01, max=0.9, help="With --write: share of each emotion's Training pictures that becomes PublicTest."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the samples and the split.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a copy of FER2013, or pictures of your own: counts, missing and duplicate pictures, samples."""
    from training.commands.tables import print_preparation
    from training.data.fer2013 import read_splits
    from training.data.preparation import describe_splits, split_off, write_pictures, write_statistics
    from training.recipe import read_recipe

    if validation is not None and write is None:
        raise DataError("--validation needs --write NAME.csv or --write FOLDER, where the parts go")
    augmentation = read_recipe(recipe).augmentation
    splits = read_splits(data, votes=votes, faces_only=False)
    parts = splits if validation is None else split_off(splits, share=validation, seed=seed)
    facts, groups = describe_splits(splits, data)
    if write is not None:
        write_pictures(write, parts)
        say(f"wrote {', '.join(f'{len(faces)} pictures of {split}' for split, faces in parts.items())} to {write}")
        say(f"next: python -m training fit --data {typed(write)}")
    if out is not None:
        write_statistics(out, splits, facts, groups, augmentation=augmentation, recipe=recipe.name, seed=seed)
        say(f"wrote statistics and pictures of samples to {out}; they belong to the data set: do not publish them")
    if as_json:
        print(json.dumps(facts))
    else:
        print_preparation(facts)
