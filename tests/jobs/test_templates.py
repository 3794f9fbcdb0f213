"""What stands in jobs/ works: each template is what its scheduler takes, and each command in it is one of ours."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from batchemo.cli.main import main_app
from batchemo.jobs.file import read_job
from batchemo.jobs.schedule import Schedule
from tests.needs import need

JOBS = Path(__file__).parents[2] / "jobs"
VALUES = {"SLURM_ARRAY_TASK_ID": "3", "shards": "8", "job_file": "nightly.toml", "BATCHEMO": "batchemo", "JOB": "nightly.toml"}


def commands(text: str) -> list[list[str]]:
    """The arguments after `batchemo` in each line that calls it, with variables replaced."""
    text = re.sub(r"\$\(\((\w+) \+ 1\)\)", "3", text)
    text = re.sub(r"\$?\{(\w+)\}|\$(\w+)", lambda found: VALUES.get(found[1] or found[2], found[0]), text)
    calls = re.findall(r"(?:^|[\s\"'/])batchemo (jobs [^\n]*?|run [^\n]*?)(?=\s*(?:$|\|\||&&|#|`|\",|;))", text, re.MULTILINE)
    return [shlex.split(call) for call in calls]


def parse(arguments: list[str]) -> dict[str, Any]:
    """Reads the arguments as the command line does, and does nothing with them. Fails on an unknown command or option."""
    command, context = typer.main.get_command(main_app), None
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, arguments
        command, arguments = command.commands[arguments[0]], arguments[1:]
    context = command.make_context("batchemo", list(arguments))
    return dict(context.params)


@pytest.mark.parametrize("path", sorted(p for p in JOBS.iterdir() if p.is_file() and p.suffix != ".timer"), ids=lambda p: p.name)
def test_every_command_in_it_is_one_of_ours(path: Path) -> None:
    found = commands(path.read_text())
    assert found, "a template without a command of ours"
    for arguments in found:
        parse(arguments)


def test_a_wrong_option_would_be_seen() -> None:
    (arguments,) = commands("30 2 * * * /opt/batchemo jobs run x.toml --qiet")
    with pytest.raises(Exception, match="qiet"):
        parse(arguments)


def test_nightly_is_a_job_for_the_samples() -> None:
    job = read_job(JOBS / "nightly.toml")
    assert job.name == "nightly"
    assert [path.resolve() for path in job.inputs] == [JOBS.parent / "sample_media"]
    assert job.schedule is not None
    assert job.schedule.cron_times() == ["30 2 * * *"]
    # What is commented out in it is right as well.
    whole = re.sub(r"^# ?(?=\[|\w+ = )", "", (JOBS / "nightly.toml").read_text(), flags=re.MULTILINE)
    everything = JOBS / "nightly.toml"
    assert whole != everything.read_text()
    raw = dict(re.findall(r"(on_calendar|cron) = \"([^\"]+)\"", whole))
    assert Schedule(**raw).calendar_events() == [raw["on_calendar"]]


def test_every_key_of_nightly_is_taken(tmp_path: Path) -> None:
    whole = re.sub(r"^# ?(?=\[|\w+ = )", "", (JOBS / "nightly.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "nightly.toml").write_text(whole)
    job = read_job(tmp_path / "nightly.toml")
    assert job.notification is not None
    assert job.schedule is not None
    assert job.schedule.cron_times() == ["30 2 * * 1,2,3,4,5"]


def verify(*units: Path) -> None:
    """systemd's own opinion of units."""
    need("systemd-analyze")
    ended = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not [line for line in ended.stderr.splitlines() if "batchemo" in line]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "batchemo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("batchemo-nightly.service", "batchemo-nightly.timer"):
        text = (JOBS / name).read_text().replace("/opt/batchemo/.venv/bin/batchemo", str(program))
        (tmp_path / name).write_text(text)
    verify(tmp_path / "batchemo-nightly.service", tmp_path / "batchemo-nightly.timer")


def test_the_crontab_is_one() -> None:
    lines = [line for line in (JOBS / "nightly.cron").read_text().splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        Schedule(cron=" ".join(line.split()[:5]))
        assert "%" not in line


def test_the_slurm_array_is_a_script_whose_shards_are_its_tasks() -> None:
    path = JOBS / "slurm_array.sh"
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    array = re.search(r"^#SBATCH --array=1-(\d+)$", text, re.MULTILINE)
    shards = re.search(r"^shards=(\d+)\b", text, re.MULTILINE)
    assert array
    assert shards
    assert array[1] == shards[1]
    (call,) = (arguments for arguments in commands(text) if "--shard" in arguments)
    assert parse(call)["shard"] == "3/8"
    directives = [index for index, line in enumerate(text.splitlines()) if line.startswith("#SBATCH")]
    first_command = next(index for index, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert max(directives) < first_command, "Slurm stops reading at the first command"


def test_the_cronjob_shares_the_media_among_its_pods(tmp_path: Path) -> None:
    config, cronjob = yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())
    assert (cronjob["apiVersion"], cronjob["kind"]) == ("batch/v1", "CronJob")
    Schedule(cron=cronjob["spec"]["schedule"])
    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    job = cronjob["spec"]["jobTemplate"]["spec"]
    assert job["completionMode"] == "Indexed"
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    (script,) = container["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    assert f'--shard "$((JOB_COMPLETION_INDEX + 1))/{job["completions"]}"' in script
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (name, content), *none = config["data"].items()
    assert not none
    assert f"/etc/batchemo/{name}" in script
    (tmp_path / name).write_text(content)
    assert str(read_job(tmp_path / name).out) == "/data/results"


def test_the_airflow_dag_calls_the_command_each_night() -> None:
    text = (JOBS / "airflow_dag.py").read_text()
    tree = ast.parse(text)
    compile(tree, "airflow_dag.py", "exec")
    calls = {node.func.id: {kw.arg: kw.value for kw in node.keywords} for node in ast.walk(tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    Schedule(cron=ast.literal_eval(calls["DAG"]["schedule"]))
    assert ast.literal_eval(calls["DAG"]["max_active_runs"]) == 1
    assert ast.literal_eval(calls["BashOperator"]["skip_on_exit_code"]) == 75
    constants = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body
                 if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    bash = calls["BashOperator"]["bash_command"]
    assert isinstance(bash, ast.JoinedStr)
    command = eval(compile(ast.Expression(bash), "bash_command", "eval"), constants)  # noqa: S307 (our own file)
    parse(shlex.split(command)[1:])
