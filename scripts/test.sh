#!/usr/bin/env bash
# Everything a change must pass: lint, format, types, tests. No GPU, no network after the install.
#
#   bash scripts/test.sh                       # all
#   bash scripts/test.sh tests/holitom -k dpc  # arguments go to pytest, the checks of the code are left out
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -eq 0 ]; then
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
  set -- -n "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1
unset PYTHONDONTWRITEBYTECODE # else each of a hundred commands that the tests start compiles this project anew
exec "$python" -m pytest "$@"
