# Sourced by scripts whose environment is not .venv: the interpreter and the folder are looked at, then it is made anew.
#
#   base    interpreter, from PYTHON; python3.11 unless named
#   venv    folder, set by the script
base=${PYTHON:-python3.11}
"$base" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
  echo "Python 3.11 or 3.12 is needed, and $base is neither: name it, PYTHON=/path/to/python bash $0" >&2
  exit 2
}
if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
  echo "$venv is there and no virtual environment: name another folder, VENV=/tmp/other bash $0" >&2
  exit 2
fi
"$base" -m venv --clear "$venv"
