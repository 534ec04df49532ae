#!/usr/bin/env bash
# Every claim of the paper with its evidence and a verdict, from what this machine can run, and a page of it.
#
#   bash scripts/verify_claims.sh --quick                       # within ten minutes on two cores
#   bash scripts/verify_claims.sh                               # about an hour; an interrupted run goes on
#   bash scripts/verify_claims.sh --checkpoint DIR --data DIR   # with the paper's benchmarks, on a GPU
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$here" # relative paths are the caller's; -P keeps a folder called eval there from hiding ours
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" -P -m eval.claims "$@"
