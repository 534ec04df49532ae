#!/usr/bin/env bash
# LLaVA-OneVision-7B without compression: the row all others are held against.
# One line for each configuration: configs/sweeps/eval_ov-7b.yaml
# Finished points are skipped, so the same command goes on after an interruption; a failed point is reported at the end
# and makes the exit status 1.
#
#   bash scripts/eval_ov-7b.sh --data DIR             # the paper's benchmarks, see `python -m eval.benchmarks.data plan`
#   bash scripts/eval_ov-7b.sh --fixture              # rehearsal on miniature data sets, a CPU is enough
#   bash scripts/eval_ov-7b.sh --tasks synthvid       # rehearsal on the synthetic benchmark
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$here" # relative paths are the caller's; -P keeps a folder called eval there from hiding ours
exec "$python" -P -m eval.benchmarks.sweep eval_ov-7b "$@"
