"""The command line: parses, calls the library and prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batchemo import __version__
from batchemo.errors import UsageError, typed
from batchemo.exits import EXIT_DEFECT, EXIT_FAILED_MEDIA, exits, program, python, say, set_up_logging
from batchemo.jobs.commands import app as jobs_app
from batchemo.usage import App
from batchemo.usage import examples as _examples

app = App(
    name="batchemo",
    help="Emotion timelines of every face in folders of pictures and videos.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_RUNS, _RESULTS, _MACHINE = "Analyse", "Look at results", "Look after this machine"
_READ, _ANALYSE, _HOW, _WRITE, _AGAIN, _TALK = "What to read", "What to analyse", "How", "What to write", "Again or not", "How to talk"

app.add_typer(jobs_app, name="jobs", rich_help_panel=_RUNS)

Results = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_TALK)]


def main() -> None:
    """Entry point of the command. Its name is told here, because shells complete no other."""
    app(prog_name="batchemo")


@app.callback(
    invoke_without_command=True,
    epilog=_examples("batchemo run ./videos --out results", "batchemo summary results", "batchemo COMMAND --help  says more of each"),
)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(_welcome(program()))


def _welcome(program: str) -> str:
    lines = [
        (f"{program} run FOLDER --out results", "analyse all pictures and videos in a folder"),
        (f"{program} summary results", "see what was found; results/report/index.html shows it"),
        (f"{program} doctor", "see whether this machine can do the work"),
    ]
    width = max(len(command) for command, _ in lines)
    typed_lines = "\n".join(f"  {command:<{width}}  {meaning}" for command, meaning in lines)
    return f"Emotion timelines of every face in folders of pictures and videos. To begin, type:\n\n{typed_lines}\n\nMore: {program} --help"


@app.command(
    rich_help_panel=_RUNS,
    epilog=_examples(
        "batchemo run ./videos --out results",
        "batchemo run film.mp4 faces.jpg --out results --sample-fps 5 --no-annotate",
        'batchemo run ./videos --out results --include "*.mp4" --min-face-px 80 --workers 2',
    )
    + "\n\nThe same command goes on where an earlier one ended. Each option is also a variable BATCHEMO_<NAME>"
    " and a key of the --config file.",
)
def run(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Pictures, videos, and folders of them.")],
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
    appearance: Annotated[
        bool | None,
        typer.Option(
            "--appearance/--no-appearance", help="Know people again by their look (default: appearance).", rich_help_panel=_ANALYSE
        ),
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
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine (default: one a core or GPU).", metavar="N", rich_help_panel=_HOW)
    ] = None,
    engine: Annotated[
        Literal["local", "dask"] | None,
        typer.Option(help="Processes on this machine, or the workers of a Dask cluster (default: local).", rich_help_panel=_HOW),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Dask's scheduler, like tcp://10.0.0.1:8786 (default: a cluster on this machine).", metavar="ADDRESS", rich_help_panel=_HOW
        ),
    ] = None,
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
    report: Annotated[
        bool | None, typer.Option("--report/--no-report", help="Write a web page of the results (default: report).", rich_help_panel=_WRITE)
    ] = None,
    force: Annotated[bool | None, typer.Option("--force", help="Analyse again what is done.", rich_help_panel=_AGAIN)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run ended (the default).", rich_help_panel=_AGAIN)
    ] = False,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Try again what failed before.", rich_help_panel=_AGAIN)
    ] = None,
    prune: Annotated[
        bool | None, typer.Option("--prune", help="Remove the results of media that are not there any more.", rich_help_panel=_AGAIN)
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(help="Wait so long for another run on the same folder (default: 0).", metavar="SECONDS", rich_help_panel=_HOW),
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
    """Analyse pictures and videos: tables, annotated copies, a page and an account of the run go to --out."""
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
            "appearance": appearance,
            "weights": weights,
            "uncertain_below": uncertain_below,
            "device": device,
            "workers": workers,
            "engine": engine,
            "scheduler": scheduler,
            "batch_size": batch_size,
            "timeout": timeout,
            "max_memory": max_memory,
            "shard": shard,
            "annotate": annotate,
            "report": report,
            "force": force,
            "retry_failed": retry_failed,
            "prune": prune,
            "wait": wait,
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
            ended = run_media(inputs, out, options, display.watch)
        if as_json:
            typer.echo(json.dumps(display.as_dict(ended), ensure_ascii=False))
        display.conclude(ended, out, program=program(), python=python(), min_face_px=options.min_face_px)
        if ended.failed:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@app.command(rich_help_panel=_RESULTS, epilog=_examples("batchemo report results"))
def report(results: Results, as_json: Json = False) -> None:
    """(Re)build the web page of results, report/index.html, without decoding anything; prints where it is."""
    with exits():
        from batchemo.report.site import write_site

        site = write_site(results)
        typer.echo(json.dumps(site.as_dict(), ensure_ascii=False) if as_json else str(site.page))


@app.command(
    rich_help_panel=_RESULTS,
    epilog=_examples(
        "batchemo summary results",
        "batchemo summary results --sort happy --top 10",
        "batchemo summary results --json | jq .total.shares",
    ),
)
def summary(
    results: Results,
    sort: Annotated[
        str,
        typer.Option(
            help="Order: media, status (failed first), or most first: frames, faces, tracks, duration_s, uncertain, or an emotion.",
            metavar="NAME",
        ),
    ] = "media",
    top: Annotated[int | None, typer.Option(min=1, help="Only so many media.", metavar="N")] = None,
    as_json: Json = False,
) -> None:
    """A table of the media: frames, faces, tracks, emotions and their course over time, and the total."""
    with exits():
        from batchemo.summary import summarise
        from batchemo.summary_table import print_summary

        found = summarise(results).sorted_by(sort)
        if as_json:
            typer.echo(json.dumps(dataclasses.replace(found, media=found.media[:top]).as_dict(), ensure_ascii=False))
        else:
            print_summary(found, top=top)


@app.command(
    rich_help_panel=_RESULTS,
    epilog=_examples("batchemo export results --to csv", "batchemo export results --to webvtt", "batchemo export results --to notebook"),
)
def export(
    results: Results,
    to: Annotated[
        Literal["csv", "webvtt", "eaf", "mot", "notebook"],
        typer.Option(
            "--to",
            help="csv (tables), webvtt (captions), eaf (ELAN), mot (MOT Challenge), notebook (for Jupyter).",
            metavar="FORMAT",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where to (default: DIR/exports/FORMAT; webvtt: beside the annotated videos)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write results in a format that other programs open; nothing is analysed again."""
    with exits():
        from batchemo.exporting import export as export_results

        written = export_results(results, to, out=out)
        if as_json:
            typer.echo(json.dumps(written.as_dict(), ensure_ascii=False))
        elif written.files:
            say(f"{len(written.files)} file{'s are' if len(written.files) > 1 else ' is'} in {typed(written.out)}{written.advice}")
        else:
            say(f"{results} holds no videos, and {to} is for videos; for pictures: --to csv")


@app.command(rich_help_panel=_RESULTS, epilog=_examples("batchemo verify results", "batchemo verify results --deep"))
def verify(
    results: Results,
    deep: Annotated[bool, typer.Option("--deep", help="Read and decode all media again, and compare.")] = False,
    as_json: Json = False,
) -> None:
    """Audit a results folder: is every frame of every medium accounted for, is every file whole. Exit 3 where something is off."""
    with exits():
        from batchemo.display import print_verification
        from batchemo.verify import verify as verify_results

        found = verify_results(results, deep=deep)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        else:
            print_verification(found)
        if found.problems:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@app.command(rich_help_panel=_MACHINE, epilog=_examples("batchemo bench", "batchemo bench clip.mp4"))
def bench(
    medium: Annotated[Path | None, typer.Argument(metavar="[INPUT]", help="A video; without one, clips are made.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the clips that are made.", metavar="S")] = 60.0,
    min_face_px: Annotated[int, typer.Option(min=20, help="Smallest face that is searched for, in px.", metavar="N")] = 40,
    as_json: Json = False,
) -> None:
    """How quick the analysis is here, stage by stage, and what limits it."""
    with exits():
        from batchemo.bench import fixed_seconds, measure
        from batchemo.display import SpeedTable

        fixed = fixed_seconds()
        table = SpeedTable(quiet=as_json)
        with table:
            speeds = [table.add(speed) for speed in measure(medium, seconds=seconds, min_face_px=min_face_px)]
        if as_json:
            typer.echo(json.dumps({"fixed_seconds": fixed, "speeds": [{**dataclasses.asdict(s), "limit": s.limit} for s in speeds]}))
        else:
            table.conclude(fixed)


@app.command(rich_help_panel=_MACHINE, epilog=_examples("batchemo doctor"))
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
        names = {
            "todo": [m.name for m in planned.todo],
            "done": [row.media for row in planned.done],
            "vanished": [row.media for row in planned.vanished],
        }
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for medium in planned.todo:
        typer.echo(medium.name)
    gone = f", {len(planned.vanished)} are not there any more (see --prune)" if planned.vanished else ""
    say(f"{len(planned.todo)} media would be analysed, {len(planned.done)} are done{gone}")
