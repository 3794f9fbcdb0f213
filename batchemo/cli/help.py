"""Formats the help of commands: with examples, and without words that only programmers know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PYDANTIC = "Value error, "
"""A prefix that Typer's errors take over from the library that checks its values."""


def examples(*lines: str) -> str:
    """An epilog of examples, each on a line of its own."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{line.replace('[', chr(92) + '[')}[/cyan]" for line in lines)])


class App(typer.Typer):
    """A Typer whose commands have this help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    """Shows no type for options without a value, and errors that begin with what is wrong."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_PYDANTIC)
            raise


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif getattr(param, "multiple", False) and param.metavar is None:
            param.metavar = param.name.upper()
    return params
