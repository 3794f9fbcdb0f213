"""Batchemo on Windows: nothing of POSIX alone is needed, and no output has a name that Windows refuses.

The modules and functions that Windows lacks are hidden from the modules of batchemo, in worker processes as well. Libraries keep them: they
have other ways on Windows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchemo import atomic, lock
from batchemo.lock import is_held, lock_path, locked
from batchemo.media import output_names
from batchemo.media.output_names import decode_output_name, output_name
from tests.made_media import write_face_clip
from tests.running import run_in_turn
from tests.test_lock import HOLD

ROOT = Path(__file__).parents[1]
HIDE = """
import builtins, os, signal, types

MODULES = set("fcntl grp posix pty pwd resource syslog termios tty".split())
NAMES = {
    "os": set(
        "O_CLOEXEC O_DIRECTORY O_DIRECT O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE chown chroot confstr fchdir fchmod fchown fdatasync fork"
        " forkpty fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp getsid getuid getxattr initgroups killpg"
        " lchown lockf mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv"
        " register_at_fork sched_getaffinity sched_setaffinity sendfile setpgid setsid setuid setxattr statvfs sync sysconf uname wait"
        " wait3 wait4 waitid writev".split()
    ),
    "signal": set("SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pause pthread_kill setitimer sigwait".split()),
}


class Without(types.ModuleType):
    def __init__(self, module, names):
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _names=names)

    def __getattr__(self, name):
        if name in self._names:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


hidden = {module.__name__: Without(module, NAMES[module.__name__]) for module in (os, signal)}
real = builtins.__import__


def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
    if globals and str(globals.get("__name__")).partition(".")[0] == "batchemo":
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
        if name in hidden:
            return hidden[name]
    return real(name, globals, locals, fromlist, level)


builtins.__import__ = without_posix
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of processes in which batchemo finds nothing of POSIX alone."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "sitecustomize.py").write_text(HIDE)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def call(*arguments: str | Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_posix_is_hidden(environment: dict[str, str]) -> None:
    script = "from batchemo import lock, atomic; print(lock.fcntl, hasattr(atomic.os, 'fork'), hasattr(atomic.os, 'fsync'))"
    assert call("-c", script, environment=environment) == "None False True\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_and_what_is_made_of_it_need_nothing_of_posix(workers: int, environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "results"
    media = [ROOT / "sample_media" / "grace_hopper.jpg", tmp_path / "clip.mp4"]
    write_face_clip(media[1], frames=3)
    run = ("run", *media, "--out", out, "--workers", workers)
    commands = (run, ("verify", out), ("summary", out), ("report", out), (*run, "--dry-run"))
    every = run_in_turn(*commands, options=("-W", "error"), cwd=ROOT, env=environment)
    assert [ended.returncode for ended in every] == [0] * 5, every
    _, _, summary, report, planned = (ended.stdout.decode() for ended in every)
    assert "grace_hopper.jpg" in summary
    assert report.strip() == str(out / "report" / "index.html")
    assert planned == "", "all is done"
    script = f"import batchemo; print(*sorted(set(batchemo.load({str(out)!r})['media'])))"
    assert call("-c", script, environment=environment).split() == ["clip.mp4", "grace_hopper.jpg"]


def test_jobs_need_nothing_of_posix(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    notification = f"[notification]\ncommand = {command}\nwhen = 'always'\ntimeout_seconds = 0.5\n"
    (tmp_path / "job.toml").write_text(f"inputs = 'media'\nout = 'results'\n{notification}")
    call("-m", "batchemo", "jobs", "run", tmp_path / "job.toml", environment=environment)
    log = "".join(path.read_text() for path in tmp_path.glob("results/runs/*/log.jsonl"))
    assert "killed, as it had not ended after 0.5 s" in log


def test_a_lock_is_seen_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    assert not is_held(tmp_path)
    assert not list(tmp_path.iterdir()), "asking leaves no trace"
    command = [sys.executable, "-c", HOLD + "    input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        other.communicate(b"\n")
    assert not is_held(tmp_path)
    with locked(tmp_path):
        assert lock_path(tmp_path).exists()


def test_files_are_synced_through_a_handle_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows wants it; there `fsync` of another fails with EBADF."""
    flags: list[int] = []

    class Windows:
        name = "nt"

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def open(self, path: Path, how: int) -> int:
            flags.append(how & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR))
            return os.open(path, how)

    monkeypatch.setattr(atomic, "os", Windows())
    atomic.write_text(tmp_path / "file", "text")
    assert flags == [os.O_RDWR]
    assert (tmp_path / "file").read_text() == "text"


DEVICES = ["CON", "aux.jpg", "nul.tar.gz", "Com1 .mp4", "lpt9", "PRN/clip.mp4", "a/com¹.mp4", "conin$"]


@pytest.mark.parametrize("name", DEVICES)
def test_outputs_are_not_called_like_devices_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert output_name(name) == name, "elsewhere results keep the names that they had"
    monkeypatch.setattr(output_names, "_IS_WINDOWS", True)
    output = output_name(name)
    assert decode_output_name(output) == name
    for component in output.split("/"):
        assert component.partition(".")[0].strip().upper() not in output_names._DEVICE_NAMES


@pytest.mark.parametrize("name", ["console.jpg", "auxiliary/aux_.jpg", "com10.mp4", "com.jpg", "my con.jpg", "x.aux"])
def test_other_names_are_the_same_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = output_name(name)
    monkeypatch.setattr(output_names, "_IS_WINDOWS", True)
    assert output_name(name) == elsewhere == name
