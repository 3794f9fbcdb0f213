"""The commands `batchemo jobs ...`: parse, call the library and print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from batchemo.cli.exit_codes import EXIT_FAILED_MEDIA, EXIT_USAGE, exits, program
from batchemo.cli.help import App, examples
from batchemo.cli.run import option_help
from batchemo.cli.streams import print_json, say, set_up_logging
from batchemo.errors import UsageError, typed

jobs_app = App(
    help="Scheduled jobs: check, run and install what a job file says.",
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
    Path | None, typer.Option(help="Folder of systemd units (default: that of this user).", metavar="DIR", show_default=False)
]


@jobs_app.command(epilog=examples("batchemo jobs check jobs/nightly.toml"))
def check(file: File, as_json: JobsJson = False) -> None:
    """Print what a run would do: new, changed and failed media, and how long it may take. Exit 2 where the file has problems."""
    with exits():
        from batchemo.cli.jobs_output import print_forecast
        from batchemo.jobs.file import read_job
        from batchemo.jobs.forecast import forecast

        job = read_job(file)
        found = forecast(job)
        if as_json:
            print_json(found.as_dict())
        else:
            print_forecast(job, found)
        if found.problems:
            raise typer.Exit(EXIT_USAGE)


@jobs_app.command("run", epilog=examples("batchemo jobs run jobs/nightly.toml", "batchemo jobs run jobs/nightly.toml --shard 2/8"))
def run_job_command(
    file: File,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help=option_help("shard"))] = None,
    as_json: JobsJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line per medium; tracebacks.")] = False,
) -> None:
    """Analyse new and changed media as FILE says; keep a run record, compare it with earlier ones, and notify."""
    with exits(verbose=verbose):
        from batchemo.cli.jobs_output import print_job_run
        from batchemo.cli.messages import print_faces_left
        from batchemo.cli.progress import RunProgress
        from batchemo.jobs.file import read_job
        from batchemo.jobs.job_run import run_job
        from batchemo.options import validate_options

        part = validate_options({"shard": shard}, {"shard": "the command line"}).shard
        job = read_job(file)
        set_up_logging(quiet=quiet, verbose=verbose)
        with RunProgress(quiet=quiet, verbose=verbose) as progress:
            job_run = run_job(job, progress.callbacks, shard=part)
        if as_json:
            print_json(job_run.record.facts)
        if not quiet:
            print_faces_left(job_run.result)
            print_job_run(job, job_run, program=program(), file=typed(file))
        elif job_run.notification_problem:
            say(f"the notification failed: {job_run.notification_problem}")
        if job_run.result.failed or job_run.result.faces_left:
            raise typer.Exit(EXIT_FAILED_MEDIA)


@jobs_app.command(epilog=examples("batchemo jobs status jobs/nightly.toml"))
def status(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files.")],
    as_json: JobsJson = False,
) -> None:
    """Print the last runs, what failed or was unusual, and when the next run is due."""
    with exits():
        from batchemo.cli.jobs_output import print_status
        from batchemo.jobs.file import read_job
        from batchemo.jobs.status import read_status

        found = [read_status(read_job(file)) for file in files]
        if as_json:
            print_json([each.as_dict() for each in found])
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
    systemd: Annotated[bool, typer.Option("--systemd", help="A systemd service and timer of this user.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A line in this user's crontab.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Install it; without --write, only print it.")] = False,
    folder: Folder = None,
) -> None:
    """Print the units or the crontab line that start the job when it is due; with --write, install them."""
    with exits():
        from batchemo.jobs.crontab import install_cron as install_lines
        from batchemo.jobs.crontab import lines_of
        from batchemo.jobs.file import read_job
        from batchemo.jobs.systemd import enable, units_of, user_folder, write_units

        if systemd == cron:
            raise UsageError("give one scheduler: --systemd or --cron")
        if cron and folder is not None:
            raise UsageError("--folder is for --systemd alone: a user has one crontab; leave --folder out")
        job = read_job(file)
        place = folder or user_folder()
        if not write:
            if cron:
                typer.echo("\n".join(lines_of(job, _own_command())))
            else:
                typer.echo("\n".join(f"# {place / name}\n{text}" for name, text in units_of(job, _own_command()).items()), nl=False)
            say("nothing was installed; to install it, add --write")
        elif cron:
            install_lines(job, _own_command())
            say(f"the crontab has the job; see: crontab -l, and {program()} jobs status {typed(file)}")
        else:
            for path in write_units(job, _own_command(), folder=place):
                say(f"wrote {path}")
            for command in enable(job, folder=place):
                say(f"now type: {command}")
            if folder is None:
                say('units of a user run while the user is logged in; to let them run always: loginctl enable-linger "$USER"')


@jobs_app.command("uninstall", epilog=examples("batchemo jobs uninstall jobs/nightly.toml"))
def uninstall_command(file: File, folder: Folder = None) -> None:
    """Remove what `install --write` wrote for FILE, which need not exist any more. Results stay."""
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
            raise UsageError(f"nothing of {file} is installed for this user; for units elsewhere give --folder DIR")


def _own_command() -> list[str]:
    """The command by which a scheduler calls this installation, from any folder."""
    script = Path(sys.executable).with_name("batchemo")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "batchemo"]
