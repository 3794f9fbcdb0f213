"""The command line of training.

stdout carries data only; messages go to stderr. Exit code 2: the command, the data or a file is wrong.
"""

from __future__ import annotations

import typer

from batchemo.errors import BatchemoError
from training.commands.average import average
from training.commands.cross_validation import cross
from training.commands.evaluate import evaluate
from training.commands.explore import explore
from training.commands.export import export
from training.commands.finetune import finetune
from training.commands.fit import fit
from training.commands.model_card import card
from training.commands.prefilter import prefilter
from training.commands.prepare import prepare
from training.commands.reid import reid
from training.commands.ship import ship
from training.commands.sweep import sweep
from training.commands.tracking import tracking
from training.console import say

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Train, evaluate and ship the networks of batchemo."
)
for verb in (fit, prepare, evaluate, average, cross, finetune, sweep, export, explore, card, ship, reid, prefilter, tracking):
    app.command()(verb)


def main() -> None:
    """Runs the command line. Errors that the user can mend become one line and exit code 2."""
    try:
        app()
    except BatchemoError as error:
        say(f"error: {error}")
        raise SystemExit(2) from None
