#!/usr/bin/env bash
# The tests with the newest releases that pyproject.toml allows, instead of those that requirements.txt pins. They are
# installed into a folder of their own, anew in each run; the index is asked, so this needs a network.
#
#   bash scripts/test_newest.sh                                    # all tests
#   bash scripts/test_newest.sh tests/holitom/hooks -x             # arguments go to pytest
#   TRANSFORMERS="transformers==5.17.*" bash scripts/test_newest.sh
#   PYTHON=python3.12 TORCH="torch==2.13.0" VENV=/tmp/other bash scripts/test_newest.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv-newest}
source scripts/own_venv.sh
python=$venv/bin/python
install=("$python" -m pip install --quiet --disable-pip-version-check)

# Names of requirements.in; torch and lmms-eval come apart. Where it pins a release, the ranges of pyproject.toml rule.
# decord, lmms-eval and scikit-video are read in the one release there is for us, filelock below 4.3 by lmms-eval.
"$python" - >"$venv/wanted.txt" <<'PY'
import re
from pathlib import Path

for line in Path("requirements.in").read_text().splitlines():
    wanted = line.split("#")[0].strip()
    name = re.split(r"[=<>; ]", wanted)[0]
    if name in ("", "torch", "lmms-eval"):
        continue
    print(wanted if name in ("decord", "scikit-video") else re.sub(r"==[^;]*", "", wanted))
PY
"${install[@]}" "setuptools>=77" wheel
"${install[@]}" "${TORCH:-torch}" "${TRANSFORMERS:-transformers}" -e . -r "$venv/wanted.txt"
"${install[@]}" --no-deps "lmms-eval==0.7.3"

"$python" -c 'import platform, torch, transformers; print("Python", platform.python_version(), "torch", torch.__version__, "transformers", transformers.__version__)'
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
[ $# -gt 0 ] || set -- -n "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder
exec "$python" -m pytest "$@"
