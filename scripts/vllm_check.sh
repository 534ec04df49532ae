#!/usr/bin/env bash
# holitom.serving on vLLM's engine, on a CPU: an environment of its own, made on first use from requirements-vllm.txt,
# and the tests there; the suite skips those of them that need vLLM. Ten minutes and 4 GB on first use, then minutes.
#
#   bash scripts/vllm_check.sh                                   # tests
#   bash scripts/vllm_check.sh -k client                         # arguments go to pytest
#   bash scripts/vllm_check.sh --bench                           # questions per minute, into results/cpu/serving.json
#   TORCH="torch==2.13.0" VENV=/tmp/vllm bash scripts/vllm_check.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv-vllm}
python=$venv/bin/python
if ! "$python" -m pip --version >/dev/null 2>&1; then source scripts/own_venv.sh; fi
# vLLM's CPU build fits this torch alone, a build for the CPU; torchvision, torchaudio and torchcodec are not needed here.
torch=${TORCH:-torch==2.13.0}
stamp=$venv/installed
wanted=$({ cat requirements-vllm.txt pyproject.toml setup.py; echo "$torch"; } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $venv (first use, or what is wanted changed) ..." >&2
  install=("$python" -m pip install --quiet --disable-pip-version-check)
  "${install[@]}" "$torch" -c requirements-vllm.txt
  "${install[@]}" --no-deps -r requirements-vllm.txt
  "${install[@]}" --no-deps --no-build-isolation -e .
  echo "$wanted" >"$stamp"
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
if [ "${1:-}" = --bench ]; then
  unset OMP_NUM_THREADS # all cores, for either side
  exec "$python" -m eval.instruments.record results/cpu/serving.json -- python -m eval.efficiency.serving "${@:2}"
fi
exec "$python" -m pytest tests/holitom/serving tests/eval/benchmarks/test_vllm_engine.py "$@"
