#!/usr/bin/env bash
# A benchmark run, or a whole grid, shared by the tasks of an array job; without SLURM the shares run one after another.
# The folder of the results must be common to all; no file lock is used. A task that died is submitted again: finished
# answers are kept. The last share scores; `... --merge N` does it again where new files are seen late.
#
#   sbatch --array=0-7 --gpus-per-task=1 scripts/slurm_array.sh sweep eval_ov-7b_rivals --data DIR
#   SHARES=3 bash scripts/slurm_array.sh run configs/llava_onevision_7b/holitom_r15.yaml --checkpoint DIR --data DIR \
#       --tasks videomme -o results/holitom_r15
#SBATCH --job-name=holitom
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" # SLURM runs a copy of this file: start it from the project's folder
what="${1:?run or sweep, then its arguments}"
shift
python="${PYTHON:-.venv/bin/python}"
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    first="${SLURM_ARRAY_TASK_MIN:-0}"
    exec "$python" -m "eval.benchmarks.$what" "$@" --share "$((SLURM_ARRAY_TASK_ID - first))/$SLURM_ARRAY_TASK_COUNT"
fi
shares="${SHARES:-2}"
for ((share = 0; share < shares; share++)); do
    "$python" -m "eval.benchmarks.$what" "$@" --share "$share/$shares"
done
