# Sourced by the other scripts: makes .venv on first use and installs what requirements.txt lists; later runs change
# nothing and need no network. Leaves the interpreter in $python and the caller's folder in $here.
#
#   PYTHON=python3.12 TORCH="torch==2.14.1" bash scripts/demo.sh     # another interpreter, another build of torch

here=$(pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(pwd)/.venv/bin/python

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

if ! "$python" -m pip --version >/dev/null 2>&1; then # none yet, or one whose making was broken off
  base=${PYTHON:-}
  for candidate in python3.11 python3.12 python3; do
    if [ -z "$base" ] && supported "$candidate"; then base=$candidate; fi
  done
  if [ -z "$base" ] || ! supported "$base"; then
    echo "Python 3.11 or 3.12 is needed${base:+, and $base is neither}: install one and name it, PYTHON=/path/to/python bash $0" >&2
    exit 2
  fi
  rm -rf .venv
  "$base" -m venv .venv || { rm -rf .venv; echo "cannot make .venv with $base: install its venv module" >&2; exit 2; }
fi

stamp=.venv/installed
wanted=$({ cat requirements.txt pyproject.toml; echo "${TORCH:-}"; } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into .venv (first use, or what is wanted changed) ..." >&2
  # torch first: a fixed release keeps pip from taking another build when a newer one appears
  if [ -n "${TORCH:-}" ] || ! "$python" -c 'import torch' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check "${TORCH:-torch==2.13.0}"
  fi
  "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  # its tasks and models without its requirements, which would fetch torchvision and with it another build of torch
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
  echo "$wanted" >"$stamp"
fi

# Nothing is downloaded at run time unless the user names a checkpoint of the hub.
export TOKENIZERS_PARALLELISM=false
