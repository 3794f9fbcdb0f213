"""How commands explain themselves: their examples, and what Typer's help and errors say in the words of programmers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PYDANTIC = "Value error, "
"""What Typer's errors take over from the library that checks its values."""


def examples(*lines: str) -> str:
    """An epilog; the help would run single lines together."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{line.replace('[', chr(92) + '[')}[/cyan]" for line in lines)])


class App(typer.Typer):
    """A Typer all of whose commands explain themselves like this."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    """Without types at options that take no value, and with errors that begin with what is wrong."""

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
