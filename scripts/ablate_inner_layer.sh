#!/usr/bin/env bash
# HoliTom at 15 % with the inner stage at other layers.
# One line for each configuration: configs/sweeps/ablate_inner_layer.yaml
# Finished points are skipped, so the same command goes on after an interruption; a failed point is reported at the end
# and makes the exit status 1.
#
#   bash scripts/ablate_inner_layer.sh --data DIR             # the paper's benchmarks, see `python -m eval.benchmarks.data plan`
#   bash scripts/ablate_inner_layer.sh --fixture              # rehearsal on miniature data sets, a CPU is enough
#   bash scripts/ablate_inner_layer.sh --tasks synthvid       # rehearsal on the synthetic benchmark
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$here" # relative paths are the caller's; -P keeps a folder called eval there from hiding ours
exec "$python" -P -m eval.benchmarks.sweep ablate_inner_layer "$@"
