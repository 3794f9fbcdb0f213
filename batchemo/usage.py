"""How commands explain themselves: their examples, and what Typer's help and errors say in the words of programmers alone."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_PYDANTIC = "Value error, "
"""What Typer's errors take over from the library that checks its values."""


def examples(*lines: str) -> str:
    """An epilog; the help would run single lines together."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{line.replace('[', chr(92) + '[')}[/cyan]" for line in lines)])


class Command(TyperCommand):
    """Without types at options that take no value, and with errors that begin with what is wrong."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_PYDANTIC)
            raise


class Group(TyperGroup):
    """As `Command`, for what has commands below it."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
