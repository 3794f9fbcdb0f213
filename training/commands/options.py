"""Options that several commands share, and their default recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RECIPE = Path(__file__).parents[1] / "recipes" / "shipped.toml"
CROSS = RECIPE.with_name("cross.toml")
VOTING = RECIPE.with_name("votes.toml")
FINETUNING = RECIPE.with_name("finetune.toml")

Data = Annotated[
    Path, typer.Option("--data", help="fer2013.csv or icml_face_data.csv, or a folder with train/<emotion>/ and test/<emotion>/.")
]
Votes = Annotated[Path | None, typer.Option("--votes", help="fer2013new.csv of FER+.")]
TrainingVotes = Annotated[
    Path | None, typer.Option("--votes", help="fer2013new.csv of FER+. Training pictures that show no face are left out.")
]
Pixels = Literal["uint8", "float32"]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu, or cuda:N.")]
