"""The command `batchemo run`: its options, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batchemo.cli.exit_codes import EXIT_FAILED_MEDIA, exits, program, python, say, set_up_logging
from batchemo.errors import UsageError
from batchemo.options import BlurStyle, Codec, Quality

_READ, _ANALYSE, _HOW = "What to read", "What to analyse", "How"
_WRITE, _LOOK, _AGAIN, _TALK = "What to write", "How annotated copies look", "Again or not", "How to talk"

RunJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_TALK)]


def run_command(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Pictures, videos, and folders of them.")],
    out: Annotated[Path, typer.Option("--out", envvar="BATCHEMO_OUT", metavar="DIR", help="The results folder; made if missing.")],
    include: Annotated[
        list[str] | None, typer.Option(help="Only media whose name matches; may be repeated.", metavar="PATTERN", rich_help_panel=_READ)
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No media whose name matches; may be repeated.", metavar="PATTERN", rich_help_panel=_READ)
    ] = None,
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
    timeline: Annotated[
        bool | None,
        typer.Option(
            "--timeline/--no-timeline",
            help="Strip below videos: who showed which emotion when (default: no-timeline).",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    blur_faces: Annotated[
        bool | None,
        typer.Option(
            "--blur-faces/--no-blur-faces",
            help="Hide faces, on the page as well, and search what is hidden once more; exit 3 where a face may be left "
            "(default: as the results folder is, no-blur-faces in a new one).",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    blur_style: Annotated[
        BlurStyle | None,
        typer.Option(
            help="What hides faces: 4 x 4 colours of each, or one grey (default: as the results folder is, pixels in a new one).",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    codec: Annotated[Codec | None, typer.Option(help="Of videos; every browser plays h264 (default: h264).", rich_help_panel=_LOOK)] = None,
    quality: Annotated[Quality | None, typer.Option(help="Of videos; finer is larger (default: medium).", rich_help_panel=_LOOK)] = None,
    hardware: Annotated[
        bool | None,
        typer.Option(
            "--hardware/--no-hardware",
            help="Encode videos by the GPU where that works; see: batchemo doctor (default: no-hardware).",
            rich_help_panel=_LOOK,
        ),
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
    as_json: RunJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.", rich_help_panel=_TALK)] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line a medium; tracebacks.", rich_help_panel=_TALK)] = False,
) -> None:
    """Analyse pictures and videos: tables, annotated copies, a page and an account of the run go to --out."""
    with exits(verbose=verbose):
        from batchemo.options import merge_options
        from batchemo.run.plan import plan_run
        from batchemo.run.run import run_media

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
            "blur_faces": blur_faces,
            "blur_style": blur_style,
            "timeline": timeline,
            "codec": codec,
            "quality": quality,
            "hardware": hardware,
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
            _print_plan(plan_run(inputs, out, options), as_json=as_json)
            return
        from batchemo.cli.messages import Display

        display = Display(quiet=quiet, verbose=verbose)
        with display:
            ended = run_media(inputs, out, options, display.watch)
        if as_json:
            typer.echo(json.dumps(display.as_dict(ended), ensure_ascii=False))
        display.conclude(ended, out, program=program(), python=python(), min_face_px=options.min_face_px)
        if ended.failed or ended.faces_left:
            raise typer.Exit(EXIT_FAILED_MEDIA)


def _print_plan(planned: Any, *, as_json: bool) -> None:
    from batchemo.cli.messages import skipped_kinds_messages
    from batchemo.run.plan import STAYS_BLURRED, count_kinds

    if as_json:
        names = {
            "todo": [m.name for m in planned.todo],
            "redrawn": sorted(planned.redrawn),
            "done": [row.media for row in planned.done],
            "vanished": [row.media for row in planned.vanished],
            "passed_over": count_kinds(planned.passed_over),
        }
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for medium in planned.todo:
        typer.echo(medium.name)
    if planned.stays_blurred:
        say(STAYS_BLURRED)
    gone = f", {len(planned.vanished)} are not there any more (see --prune)" if planned.vanished else ""
    drawn = f", {len(planned.redrawn)} drawn again" if planned.redrawn else ""
    if planned.passed_over:
        say(skipped_kinds_messages(planned.passed_over))
    say(f"{len(planned.todo) - len(planned.redrawn)} media would be analysed{drawn}, {len(planned.done)} are done{gone}")
