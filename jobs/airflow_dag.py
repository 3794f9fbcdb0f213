"""A DAG of Airflow 3 that runs a batchemo job each night. Copy it into the folder of DAGs and change the two paths."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

BATCHEMO = "/opt/batchemo/.venv/bin/batchemo"
JOB = "/etc/batchemo/nightly.toml"

with DAG(
    dag_id="batchemo_nightly",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # each run analyses all new media, whatever day they came
    max_active_runs=1,
):
    BashOperator(
        task_id="run",
        bash_command=f"{BATCHEMO} jobs run {JOB}",
        append_env=True,
        skip_on_exit_code=75,  # another run holds the results folder
        retries=1,  # continues where it stopped; media that failed are not tried again
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=20),
    )
