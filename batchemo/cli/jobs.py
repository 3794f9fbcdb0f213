"""`batchemo jobs ...`: parses, calls the library and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchemo.cli.exit_codes import EXIT_FAILED_MEDIA, EXIT_USAGE, exits, program, say, set_up_logging
from batchemo.cli.help import App, examples
from batchemo.errors import UsageError, typed

jobs_app = App(
    help="Nightly jobs: what a file says, run, looked after and scheduled.",
    no_args_is_help=True,
    epilog=examples(
        "batchemo jobs check jobs/nightly.toml",
        "batchemo jobs run jobs/nightly.toml",
        "batchemo jobs install jobs/nightly.toml --systemd --write",
    ),
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A job file; see jobs/nightly.toml.")]
JobsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Folder = Annotated[
    Path | None, typer.Option(help="Where the units of systemd are (default: those of this user).", metavar="DIR", show_default=False)
]


@jobs_app.command(epilog=examples("batchemo jobs check jobs/nightly.toml"))
def check(file: File, as_json: JobsJson = False) -> None:
    """What would be done: new, changed and failed media, and how long it may take. Exit 2 where the file would fail at night."""
    with exits():
        from batchemo.cli.jobs_output import print_forecast
        from batchemo.jobs.file import read_job
        from batchemo.jobs.forecast import forecast

        job = read_job(file)
        found = forecast(job)
        if as_json:
            typer.echo(json.dumps(found.as_dict()))
        else:
            print_forecast(job, found)
        if found.problems:
            raise typer.Exit(EXIT_USAGE)


@jobs_app.command("run", epilog=examples("batchemo jobs run jobs/nightly.toml", "batchemo jobs run jobs/nightly.toml --shard 2/8"))
def run_job_command(
    file: File,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Of N machines that share the folders this is number I, which takes its part.")
    ] = None,
    as_json: JobsJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line a medium; tracebacks.")] = False,
) -> None:
    """Analyse what is new or has changed, as FILE says; keep the account, compare it with earlier ones, and tell whoever is to be told."""
    with exits(verbose=verbose):
        from batchemo.cli.jobs_output import print_night
        from batchemo.cli.messages import Display
        from batchemo.jobs.file import read_job
        from batchemo.jobs.job_run import run_job
        from batchemo.options import validate_options

        part = validate_options({"shard": shard}, {"shard": "the command line"}).shard
        job = read_job(file)
        set_up_logging(quiet=quiet, verbose=verbose)
        display = Display(quiet=quiet, verbose=verbose)
        with display:
            night = run_job(job, display.watch, shard=part)
        if as_json:
            typer.echo(json.dumps(night.account.facts))
        if not quiet:
            display.say_where_faces_are_left(night.report)
            print_night(job, night, program=program(), file=typed(file))
        elif night.trouble:
            say(f"nobody was told: {night.trouble}")
        if night.report.failed or night.report.faces_left:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@jobs_app.command(epilog=examples("batchemo jobs status jobs/nightly.toml"))
def status(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files.")],
    as_json: JobsJson = False,
) -> None:
    """The last runs, what failed or was unusual, and when the next is due."""
    with exits():
        from batchemo.cli.jobs_output import print_status
        from batchemo.jobs.file import read_job
        from batchemo.jobs.status import status_of

        found = [status_of(read_job(file)) for file in files]
        if as_json:
            typer.echo(json.dumps([each.as_dict() for each in found]))
            return
        for number, each in enumerate(found):
            if number:
                typer.echo()
            print_status(each)


@jobs_app.command(
    "install",
    epilog=examples("batchemo jobs install jobs/nightly.toml --systemd", "batchemo jobs install jobs/nightly.toml --cron --write"),
)
def install_command(
    file: File,
    systemd: Annotated[bool, typer.Option("--systemd", help="A service and a timer of this user.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A line in this user's crontab.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write it, instead of printing what would be written.")] = False,
    folder: Folder = None,
) -> None:
    """Print the units or the crontab line that start the job when it is due; with --write, install them."""
    with exits():
        from batchemo.jobs.crontab import install_cron as install_lines
        from batchemo.jobs.crontab import lines_of
        from batchemo.jobs.file import read_job
        from batchemo.jobs.systemd import enable, units_of, user_folder, write_units

        if systemd == cron:
            raise UsageError("say which scheduler: --systemd or --cron")
        if cron and folder is not None:
            raise UsageError("--folder is for --systemd; cron has one crontab a user")
        job = read_job(file)
        place = folder or user_folder()
        if not write:
            if cron:
                typer.echo("\n".join(lines_of(job, _called())))
            else:
                typer.echo("\n".join(f"# {place / name}\n{text}" for name, text in units_of(job, _called()).items()), nl=False)
            say("nothing was written; to install it, add --write")
        elif cron:
            install_lines(job, _called())
            say(f"the crontab has it; see: crontab -l, and {program()} jobs status {typed(file)}")
        else:
            for path in write_units(job, _called(), folder=place):
                say(f"wrote {path}")
            for command in enable(job, folder=place):
                say(f"now type: {command}")
            if folder is None:
                say('units of users run while they are logged in; to let them run always: loginctl enable-linger "$USER"')


@jobs_app.command("uninstall", epilog=examples("batchemo jobs uninstall jobs/nightly.toml"))
def uninstall_command(file: File, folder: Folder = None) -> None:
    """Take away what `install --write` wrote for FILE, which itself need not exist any more. Results stay."""
    with exits():
        from batchemo.jobs.crontab import uninstall_cron as remove_lines
        from batchemo.jobs.systemd import remove_units, user_folder

        units = remove_units(file, folder=folder or user_folder())
        lines = remove_lines(file) if folder is None else []
        for path in units:
            say(f"removed {path}")
        if lines:
            say(f"removed {len(lines)} lines from the crontab")
        if not units and not lines:
            raise UsageError(f"nothing of {file} is installed for this user; units elsewhere: --folder DIR")


def _called() -> list[str]:
    """How a scheduler can call this very batchemo, from any folder."""
    script = Path(sys.executable).with_name("batchemo")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "batchemo"]
