"""The command line: parses, calls the library and prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from batchemo import __version__
from batchemo.cli.exit_codes import EXIT_DEFECT, EXIT_FAILED_MEDIA, exits, program
from batchemo.cli.help import App, examples
from batchemo.cli.jobs import jobs_app
from batchemo.cli.run import RunJson, run_command
from batchemo.cli.streams import ensure_utf8_paths, prepare_streams, print_json, say
from batchemo.errors import typed

main_app = App(
    name="batchemo",
    help="Emotion timelines of every face in folders of pictures and videos.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_ANALYSIS, _RESULTS, _MACHINE = "Analysis", "Results", "This machine"

main_app.add_typer(jobs_app, name="jobs", rich_help_panel=_ANALYSIS)

Results = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")]


def main() -> None:
    """Entry point of the command. Its name is given here, because shells complete no other."""
    ensure_utf8_paths()
    prepare_streams()
    main_app(prog_name="batchemo")


@main_app.callback(
    invoke_without_command=True,
    epilog=examples("batchemo run ./videos --out results", "batchemo summary results", "batchemo COMMAND --help"),
)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
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


main_app.command(
    "run",
    rich_help_panel=_ANALYSIS,
    epilog=examples(
        "batchemo run ./videos --out results",
        "batchemo run clip.mp4 faces.jpg --out results --sample-fps 5 --no-annotate",
        'batchemo run ./videos --out results --include "*.mp4" --min-face-px 80 --workers 2',
        "batchemo run ./videos --out to_publish --blur-faces --timeline",
    )
    + "\n\nThe same command continues where an earlier run ended. Each option is also an environment variable BATCHEMO_<NAME>"
    " and a key of the --config file.",
)(run_command)


@main_app.command(rich_help_panel=_RESULTS, epilog=examples("batchemo report results"))
def report(results: Results, as_json: RunJson = False) -> None:
    """Write the web page of results, report/index.html, again, without decoding any media; prints its path."""
    with exits():
        from batchemo.report.site import write_site

        site = write_site(results)
        if as_json:
            print_json(site.as_dict())
        else:
            typer.echo(str(site.page))


@main_app.command(
    rich_help_panel=_RESULTS,
    epilog=examples(
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
    top: Annotated[int | None, typer.Option(min=1, help="Print only N media.", metavar="N")] = None,
    as_json: RunJson = False,
) -> None:
    """Print a table of the media: frames, faces, tracks, emotions and their course over time, and the totals."""
    with exits():
        from batchemo.cli.summary import print_summary
        from batchemo.report.summary import summarise

        found = summarise(results).sorted_by(sort)
        if as_json:
            print_json(dataclasses.replace(found, media=found.media[:top]).as_dict())
        else:
            print_summary(found, top=top)


@main_app.command(
    "export",
    rich_help_panel=_RESULTS,
    epilog=examples("batchemo export results --to csv", "batchemo export results --to webvtt", "batchemo export results --to notebook"),
)
def export_command(
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
        typer.Option(
            "--out", metavar="FOLDER", help="Folder to write to (default: DIR/exports/FORMAT, webvtt beside the annotated videos)."
        ),
    ] = None,
    as_json: RunJson = False,
) -> None:
    """Write results in a format that other programs open; nothing is analysed again."""
    with exits():
        from batchemo.analysis.export.formats import export_results

        written = export_results(results, to, out=out)
        if as_json:
            print_json(written.as_dict())
        elif written.files:
            say(f"{len(written.files)} file{'s are' if len(written.files) > 1 else ' is'} in {typed(written.out)}{written.advice}")
        else:
            say(f"{results} holds no videos, and {to} is for videos; for pictures: --to csv")


@main_app.command(
    "verify",
    rich_help_panel=_RESULTS,
    epilog=examples("batchemo verify results", "batchemo verify results --deep", "batchemo verify results --reader ffmpeg"),
)
def verify_command(
    results: Results,
    deep: Annotated[bool, typer.Option("--deep", help="Decode all media again, and check each row against its frame.")] = False,
    reader: Annotated[
        Literal["pyav", "ffmpeg"] | None,
        typer.Option(help="Decoder of the second reading: PyAV, frame by frame, or the ffmpeg command; implies --deep."),
    ] = None,
    as_json: RunJson = False,
) -> None:
    """Audit a results folder: is every frame of every medium accounted for, is every file whole. Exit 3 where there are problems."""
    with exits():
        from batchemo.cli.messages import print_verification
        from batchemo.verify.audit import verify as verify_results

        found = verify_results(results, deep=deep or reader is not None, reader=reader or "pyav")
        if as_json:
            print_json(found.as_dict())
        else:
            print_verification(found)
        if found.problems:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@main_app.command(rich_help_panel=_MACHINE, epilog=examples("batchemo bench", "batchemo bench clip.mp4", "batchemo bench pictures/"))
def bench(
    medium: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="A video, or a folder (default: generated clips and pictures).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the generated clips, in seconds.", metavar="S")] = 60.0,
    min_face_px: Annotated[int, typer.Option(min=20, help="Smallest face that is searched for, in px.", metavar="N")] = 40,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one, then one per core).", metavar="N")] = None,
    as_json: RunJson = False,
) -> None:
    """Measure the throughput of this machine, stage by stage, and find the slowest stage."""
    with exits():
        from batchemo.cli.benchmark import fixed_seconds, measure
        from batchemo.cli.progress import SpeedTable

        fixed = fixed_seconds()
        table = SpeedTable(quiet=as_json)
        with table:
            speeds = [table.add(speed) for speed in measure(medium, seconds=seconds, min_face_px=min_face_px, workers=workers)]
        if as_json:
            print_json({"fixed_seconds": fixed, "speeds": [{**dataclasses.asdict(speed), "limit": speed.limit} for speed in speeds]})
        else:
            table.print_table(fixed)


@main_app.command(rich_help_panel=_MACHINE, epilog=examples("batchemo doctor"))
def doctor(as_json: RunJson = False) -> None:
    """Check whether this machine can do a run: device, weights, codecs, versions."""
    with exits():
        from batchemo.cli.doctor import examine
        from batchemo.cli.messages import print_checks

        checks = examine()
        if as_json:
            print_json([{name: getattr(check, name) for name in ("part", "ok", "needed", "detail")} for check in checks])
        else:
            print_checks(checks)
        if any(check.needed and not check.ok for check in checks):
            raise typer.Exit(EXIT_DEFECT)
