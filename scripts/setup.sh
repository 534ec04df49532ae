# Sourced by the other scripts: makes .venv on first use and installs what requirements.txt pins; later runs change
# nothing and need no network. Leaves the interpreter in $python and the caller's folder in $here.
#
#   PYTHON=python3.12 TORCH="torch==2.14.1" bash scripts/demo.sh     # another interpreter, another build of torch
#   VENV=/tmp/other bash scripts/test.sh                             # another folder than .venv

here=$(pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}
[[ $venv = /* ]] || venv=$(pwd)/$venv
python=$venv/bin/python

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
  rm -rf "$venv"
  "$base" -m venv "$venv" || { rm -rf "$venv"; echo "cannot make $venv with $base: install its venv module" >&2; exit 2; }
fi

# The two packages that the machine decides on, as tested; a CUDA build of torch brings the triton it needs.
torch=${TORCH:-torch==2.13.0}
triton=triton==3.8.0
stamp=$venv/installed
wanted=$({ cat requirements.txt pyproject.toml setup.py; echo "$torch $triton"; } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $venv (first use, or what is wanted changed) ..." >&2
  install=("$python" -m pip install --quiet --disable-pip-version-check)
  # torch alone is resolved, within the lock, since a CUDA build asks for libraries of its own; the rest of the lock is whole
  "${install[@]}" "$torch" -c requirements.txt
  "${install[@]}" --no-deps -r requirements.txt
  if [ "$(uname -sm)" = "Linux x86_64" ] && ! "$python" -c 'import triton' 2>/dev/null; then
    "${install[@]}" --no-deps "$triton"
  fi
  "${install[@]}" --no-deps --no-build-isolation -e .
  echo "$wanted" >"$stamp"
fi

# Nothing is downloaded at run time unless the user names a checkpoint of the hub.
export TOKENIZERS_PARALLELISM=false
