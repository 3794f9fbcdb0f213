#!/bin/bash
# Eight machines, one shared folder, no coordinator: each task analyses its share of the media, and their results are one data set.
# Submit: sbatch jobs/slurm_array.sh /shared/batchemo/nightly.toml
# The same command again continues. For a GPU a task, add --gpus-per-task=1, and to the job file: device = "cuda".
#SBATCH --job-name=batchemo
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --output=batchemo-%A_%a.log
# SIGTERM comes two minutes before the time is over: the medium in work is left for the next run, the manifest is written.
#SBATCH --signal=TERM@120
set -euo pipefail

job_file=${1:?give the job file: sbatch $0 nightly.toml}
shards=8 # as in --array; SLURM_ARRAY_TASK_COUNT differs when single tasks are submitted again (--array=3)
exec srun batchemo jobs run "$job_file" --shard "$SLURM_ARRAY_TASK_ID/$shards"
