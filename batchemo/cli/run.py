"""The command `batchemo run`, whose parameters are made from the declaration of the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from batchemo.cli.exit_codes import EXIT_FAILED_MEDIA, exits, program, python
from batchemo.cli.streams import print_json, say, set_up_logging
from batchemo.errors import UsageError
from batchemo.options import OPTIONS, Option, RunOptions, flag, merge_options

_Keyword = inspect.Parameter.KEYWORD_ONLY

RunJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel="Messages")]


def option_help(name: str) -> str:
    """What the help says of an option: the sentence of its declaration, and its default."""
    option, default = OPTIONS[name], RunOptions.model_fields[name].default
    if option.default:
        shown = option.default
    elif option.negatable:
        shown = flag(name if default else f"no_{name}").removeprefix("--")
    elif isinstance(default, bool | tuple):
        return f"{option.help}."
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{option.help} (default: {shown})."


def _with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Shows Typer a signature of `command` that has a parameter for each option in the place of `**options`."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    first = [each for each in own if each.kind is not _Keyword]
    parameters = [each for name in OPTIONS for each in _parameters(name)]
    vars(command)["__signature__"] = signature.replace(parameters=[*first, *parameters, *own[len(first) :]])
    return command


def _parameters(name: str) -> list[inspect.Parameter]:
    """The parameter of an option and, hidden, that of its earlier name. None is "not given", so that other sources may give a value."""
    option = OPTIONS[name]
    kind = _flag_type(RunOptions.model_fields[name].annotation)
    shown = typer.Option(_spelling(name, kind, option), help=option_help(name), metavar=option.metavar, rich_help_panel=option.panel)
    found = [inspect.Parameter(name, _Keyword, default=None, annotation=Annotated[kind | None, shown])]
    if option.old_name:
        hidden = typer.Option(_spelling(option.old_name, kind, option), hidden=True)
        found.append(inspect.Parameter(option.old_name, _Keyword, default=None, annotation=Annotated[kind | None, hidden]))
    return found


def _spelling(name: str, kind: Any, option: Option) -> str:
    """Switches that cannot be turned off have no `--no-...`, which Typer would add."""
    return f"{flag(name)}/{flag(f'no_{name}')}" if kind is bool and option.negatable else flag(name)


def _flag_type(annotation: Any) -> Any:
    """The type that Typer parses. Values of other types are parsed by `merge_options`, and text here."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kind = next(each for each in kinds if each is not NoneType)
    if get_origin(kind) is tuple:
        return list[str]
    return kind if kind in (bool, int, float, Path) or get_origin(kind) is Literal else str


@_with_run_options
def run_command(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Pictures, videos, and folders of them.")],
    out: Annotated[Path, typer.Option("--out", envvar="BATCHEMO_OUT", metavar="DIR", help="The results folder; made if missing.")],
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where an earlier run ended (the default).", rich_help_panel="Resuming")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of options (default: ./batchemo.toml).", metavar="FILE", rich_help_panel="Messages")
    ] = None,
    as_json: RunJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.", rich_help_panel="Messages")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line per medium; tracebacks.", rich_help_panel="Messages")] = False,
    **options: Any,
) -> None:
    """Analyse pictures and videos. Tables, annotated copies, a page and a record of the run are written to --out."""
    with exits(verbose=verbose):
        from batchemo.run.run import run_media

        if options["force"] and resume:
            raise UsageError("--force and --resume exclude each other; give one of them")
        # An option that may be repeated is an empty list where it is not given.
        chosen = merge_options({name: None if value == [] else value for name, value in options.items()}, config=config)
        set_up_logging(quiet=quiet, verbose=verbose)
        if chosen.dry_run:
            _print_plan(inputs, out, chosen, as_json=as_json)
            return
        from batchemo.cli.messages import print_run_result, result_as_dict
        from batchemo.cli.progress import RunProgress

        with RunProgress(quiet=quiet, verbose=verbose) as progress:
            result = run_media(inputs, out, chosen, progress.callbacks)
        if as_json:
            print_json(result_as_dict(result))
        if not quiet:
            print_run_result(result, out, reported=progress.finished, program=program(), python=python(), min_face_px=chosen.min_face_px)
        if result.failed or result.faces_left:
            raise typer.Exit(EXIT_FAILED_MEDIA)


def _print_plan(inputs: list[Path], out: Path, options: RunOptions, *, as_json: bool) -> None:
    from batchemo.cli.messages import skipped_kinds_message
    from batchemo.run.plan import STAYS_BLURRED, count_kinds, plan_run

    plan = plan_run(inputs, out, options)
    if as_json:
        print_json(
            {
                "todo": [medium.name for medium in plan.todo],
                "redrawn": sorted(plan.redrawn),
                "done": [row.media for row in plan.done],
                "vanished": [row.media for row in plan.vanished],
                "passed_over": count_kinds(plan.passed_over),
            }
        )
        return
    for medium in plan.todo:
        typer.echo(medium.name)
    if plan.stays_blurred:
        say(STAYS_BLURRED)
    if plan.passed_over:
        say(skipped_kinds_message(plan.passed_over))
    redrawn = f", {len(plan.redrawn)} drawn again" if plan.redrawn else ""
    vanished = f", {len(plan.vanished)} are no longer there (see --prune)" if plan.vanished else ""
    say(f"{len(plan.todo) - len(plan.redrawn)} media would be analysed{redrawn}, {len(plan.done)} are done{vanished}")
