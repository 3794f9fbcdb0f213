"""The command line: parses, calls the library and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batchemo import __version__
from batchemo.errors import UsageError
from batchemo.exits import EXIT_DEFECT, EXIT_FAILED_MEDIA, exits, program, python, say, set_up_logging
from batchemo.jobs.commands import app as jobs_app

app = typer.Typer(
    name="batchemo",
    help="Emotion timelines of every face in folders of pictures and videos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(jobs_app, name="jobs")

_READ, _ANALYSE, _HOW, _WRITE, _AGAIN, _TALK = "What to read", "What to analyse", "How", "What to write", "Again or not", "How to talk"

Results = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_TALK)]


def main() -> None:
    """Entry point of the command."""
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(
    epilog="Each option is also a variable BATCHEMO_<NAME> and a key of the --config file. Example: batchemo run ./videos --out results"
)
def run(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Pictures, videos, and folders of them.")],
    out: Annotated[Path, typer.Option("--out", envvar="BATCHEMO_OUT", metavar="DIR", help="The results folder; made if missing.")],
    include: Annotated[list[str] | None, typer.Option(help="Only media whose name matches this pattern.", rich_help_panel=_READ)] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No media whose name matches this pattern.", rich_help_panel=_READ)] = None,
    follow_symlinks: Annotated[
        bool | None, typer.Option("--follow-symlinks", help="Follow links in folders.", rich_help_panel=_READ)
    ] = None,
    decoder: Annotated[
        Literal["auto", "decord", "pyav"] | None, typer.Option(help="Reader of videos (default: auto).", rich_help_panel=_READ)
    ] = None,
    sample_fps: Annotated[
        float | None, typer.Option(help="Analyse so many frames a second (default: all frames).", metavar="N", rich_help_panel=_ANALYSE)
    ] = None,
    min_face_px: Annotated[
        int | None, typer.Option(help="Smallest face that is searched for, in px (default: 40).", metavar="N", rich_help_panel=_ANALYSE)
    ] = None,
    detector: Annotated[
        Literal["fast", "exact"] | None,
        typer.Option(help="fast, or exactly what MTCNN of facenet-pytorch finds (default: fast).", rich_help_panel=_ANALYSE),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of your own, as safetensors (default: those inside).", metavar="FILE", rich_help_panel=_ANALYSE),
    ] = None,
    uncertain_below: Annotated[
        float | None,
        typer.Option(help="Confidence below which a face is marked uncertain (default: 0.5).", metavar="P", rich_help_panel=_ANALYSE),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N (default: auto).", metavar="NAME", rich_help_panel=_HOW)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one a core).", metavar="N", rich_help_panel=_HOW)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Faces classified at once (default: 64).", metavar="N", rich_help_panel=_HOW)
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds without progress after which a medium is given up (default: 300).", metavar="S", rich_help_panel=_HOW),
    ] = None,
    max_memory: Annotated[
        int | None, typer.Option(help="Most memory of a process, in MB (default: no limit).", metavar="MB", rich_help_panel=_HOW)
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Of N machines that share the folders this is number I, which takes its part of the media.",
            metavar="I/N",
            rich_help_panel=_HOW,
        ),
    ] = None,
    annotate: Annotated[
        bool | None, typer.Option("--annotate/--no-annotate", help="Write annotated copies (default: annotate).", rich_help_panel=_WRITE)
    ] = None,
    force: Annotated[bool | None, typer.Option("--force", help="Analyse again what is done.", rich_help_panel=_AGAIN)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run ended (the default).", rich_help_panel=_AGAIN)
    ] = False,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Try again what failed before.", rich_help_panel=_AGAIN)
    ] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="Say what would be done, and do nothing.", rich_help_panel=_AGAIN)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of options (default: ./batchemo.toml).", metavar="FILE", rich_help_panel=_TALK)
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.", rich_help_panel=_TALK)] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line a medium; tracebacks.", rich_help_panel=_TALK)] = False,
) -> None:
    """Analyse pictures and videos: tables, annotated copies and an account of the run go to --out."""
    with exits(verbose=verbose):
        from batchemo.options import merge_options
        from batchemo.run import plan
        from batchemo.run import run as run_media

        if force and resume:
            raise UsageError("--force and --resume exclude each other")
        flags = {
            "include": include or None,
            "exclude": exclude or None,
            "follow_symlinks": follow_symlinks,
            "decoder": decoder,
            "sample_fps": sample_fps,
            "min_face_px": min_face_px,
            "detector": detector,
            "weights": weights,
            "uncertain_below": uncertain_below,
            "device": device,
            "workers": workers,
            "batch_size": batch_size,
            "timeout": timeout,
            "max_memory": max_memory,
            "shard": shard,
            "annotate": annotate,
            "force": force,
            "retry_failed": retry_failed,
            "dry_run": dry_run,
        }
        options = merge_options(flags, config=config)
        set_up_logging(quiet=quiet, verbose=verbose)
        if options.dry_run:
            _print_plan(plan(inputs, out, options), as_json=as_json)
            return
        from batchemo.display import Display

        display = Display(quiet=quiet, verbose=verbose)
        with display:
            report = run_media(inputs, out, options, display.watch)
        if as_json:
            typer.echo(json.dumps(display.as_dict(report), ensure_ascii=False))
        display.conclude(report, out, program=program(), python=python())
        if report.failed:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@app.command()
def summary(results: Results, as_json: Json = False) -> None:
    """What stands in a results folder: frames, faces, tracks and emotions by medium and in total."""
    with exits():
        from batchemo.display import print_summary
        from batchemo.summary import summarise

        found = summarise(results)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        else:
            print_summary(found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Can this machine do the work: device, weights, codecs, versions."""
    with exits():
        from batchemo.display import print_findings
        from batchemo.doctor import examine

        findings = examine()
        if as_json:
            typer.echo(json.dumps([{"part": f.part, "ok": f.ok, "needed": f.needed, "detail": f.detail} for f in findings]))
        else:
            print_findings(findings)
        if any(f.needed and not f.ok for f in findings):
            raise typer.Exit(EXIT_DEFECT)


def _print_plan(planned: Any, *, as_json: bool) -> None:
    if as_json:
        names = {"todo": [m.name for m in planned.todo], "done": [row.media for row in planned.done]}
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for medium in planned.todo:
        typer.echo(medium.name)
    say(f"{len(planned.todo)} media would be analysed, {len(planned.done)} are done")
