#!/usr/bin/env bash
# The task definitions of lmms-eval 0.3.0, with which the paper was measured, in a folder of their own: for
# --harness 0.3.0 of eval.benchmarks.run and for eval.benchmarks.versions. Needs the package index, once.
#
#   bash scripts/harness_030.sh             # into outputs/harness-0.3.0
#   bash scripts/harness_030.sh FOLDER      # elsewhere; name it with --harness-folder
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
folder=${1:-outputs/harness-0.3.0}
[[ $folder = /* || $# -eq 0 ]] || folder=$here/$folder
# sqlitedict and hf_transfer: what 0.3.0 imports and the installed release does not need
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$folder" \
  lmms-eval==0.3.0 sqlitedict==2.1.0 hf_transfer==0.1.9
echo "lmms-eval 0.3.0 is in $folder"
