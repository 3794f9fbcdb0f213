"""How commands end: errors as messages on stderr and exit codes, and what users can type to call us again."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import typer

from batchemo.errors import BatchemoError, ClusterError, LockedError, StorageError, typed

EXIT_DEFECT, EXIT_USAGE, EXIT_FAILED_MEDIA, EXIT_STORAGE, EXIT_LOCKED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 74, 75, 130, 143


class Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def exits(*, verbose: bool = False) -> Iterator[None]:
    """Turns errors into messages on stderr and exit codes."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        say("Ended before its time; the same command goes on where it stopped.")
        raise typer.Exit(EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_TERMINATED) from None
    except LockedError as error:
        say(str(error))
        raise typer.Exit(EXIT_LOCKED) from error
    except StorageError as error:
        say(str(error))
        raise typer.Exit(EXIT_STORAGE) from error
    except ClusterError as error:
        say(str(error))
        raise typer.Exit(EXIT_DEFECT) from error
    except BatchemoError as error:
        say(str(error))
        raise typer.Exit(EXIT_USAGE) from error
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_DEFECT) from None
    except typer.Exit:
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        say(f"a defect of batchemo: {type(error).__name__}: {error}. The end of runs/*/log.jsonl has details; so has --verbose")
        raise typer.Exit(EXIT_DEFECT) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def say(message: str) -> None:
    typer.echo(f"batchemo: {message}", err=True)


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(format="batchemo: %(message)s", stream=sys.stderr)
    logging.getLogger("batchemo").setLevel(level)


def python() -> str:
    """How the user can call the Python that batchemo is installed for."""
    found = shutil.which("python")
    if found and Path(found).samefile(sys.executable) and sys.prefix == sys.base_prefix:
        return "python"
    beside = Path(sys.argv[0]).with_name("python")
    return typed(beside) if beside.exists() else typed(Path(sys.executable))


def program() -> str:
    """How the user can call batchemo again: its name where that is found, otherwise the path that was typed."""
    called = Path(sys.argv[0])
    found = shutil.which("batchemo")
    if found and Path(found).resolve() == called.resolve():
        return "batchemo"
    return typed(called) if called.name == "batchemo" else f"{shlex.quote(sys.executable)} -m batchemo"
