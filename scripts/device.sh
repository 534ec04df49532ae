# Sourced by the scripts that measure speed: the interpreter in $python, the name of this machine's device in $device, the
# folder that results go to in $results, and record, which runs a measuring command and keeps its result.
#
#   RESULTS=/tmp/h200 bash scripts/gpu_check.sh     # results go there instead of results/<device>/, and the README stays
#   NO_INSTALL=1 PYTHON=python3 bash scripts/gpu_check.sh     # an interpreter that has torch and the rest already
#   ALLOW_DIRTY=1 ...                                         # outside a clone, or with changes that are not committed

if [ -n "${RESULTS:-}" ] && [[ $RESULTS != /* ]]; then RESULTS=$PWD/$RESULTS; fi # the caller's folder is left below
if [ -n "${NO_INSTALL:-}" ]; then
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  python=$(command -v "${PYTHON:-python3}") || { echo "there is no ${PYTHON:-python3}: name an interpreter, PYTHON=..." >&2; exit 2; }
  export TOKENIZERS_PARALLELISM=false
else
  trap 'echo "nothing could be installed; without a network name an interpreter that has the packages: NO_INSTALL=1 PYTHON=python3 bash $0" >&2' EXIT
  source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  trap - EXIT
fi

lacks() { # lacks MODULE...: those that the interpreter does not have
  "$python" -c 'import importlib.util, sys; print(*(name for name in sys.argv[1:] if not importlib.util.find_spec(name)))' "$@"
}
needs() { # needs MODULE...: ends the script if the interpreter lacks one
  local missing
  missing=$(lacks "$@")
  if [ -n "$missing" ]; then
    echo "error: $python lacks $missing: install what requirements.txt lists, or name another interpreter, PYTHON=..." >&2
    exit 2
  fi
}
needs torch transformers accelerate safetensors numpy PIL yaml jaxtyping

# "h200" for NVIDIA H200, "cpu" without a GPU
device=$("$python" -c '
import re, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
print(re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-"))')

results=${RESULTS:-results/$device}

record() { # record NAME MODULE ARGUMENTS...: $results/NAME.json
  "$python" -m eval.instruments.record "$results/$1.json" ${ALLOW_DIRTY:+--allow-dirty} -- python -m "${@:2}"
}
