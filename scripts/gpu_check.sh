#!/usr/bin/env bash
# Everything that only a GPU can show: the kernels against their oracles, the same results on CUDA as on the CPU, and the
# benchmarks, into results/<device>/*.json. In parts that each end inside five minutes (one that does not is stopped), since
# a GPU is often had for ten; a part that fails does not keep the next from running, the exit status tells at the end.
#
#   bash scripts/gpu_check.sh                          # all parts
#   bash scripts/gpu_check.sh PART                     # one of them:
#       kernels    their tests                         equality   tests/cuda: tokens, logits, graphs, waiting, memory
#       times      every kernel against torch          outer      the outer stage
#       latency    LLaVA-OneVision-7B                  decode     the ways of decoding
#       video      LLaVA-Video-7B                      figure     drawn from the latencies, where matplotlib is
#       bench      the six from times to figure
#   bash scripts/gpu_check.sh --results DIR [PART]     # results, and what every part said (PART.log), go there; or RESULTS=DIR
#   bash scripts/gpu_check.sh --dry-run [PART]         # without a GPU: what can run on a CPU, at the tiny size, kept nowhere
#   NO_INSTALL=1 PYTHON=python3 ALLOW_DIRTY=1 bash scripts/gpu_check.sh   # see scripts/device.sh
#   LIMIT=600 bash scripts/gpu_check.sh latency        # seconds until a part is stopped (285; 0: never, as in a dry run)
#
# Beside what running a model takes (scripts/device.sh names it) the tests need pytest and triton; without hypothesis the
# tests that draw their cases skip, and say so. No video reader, no harness, no network.
set -euo pipefail
usage() {
  echo "error: $1; bash scripts/gpu_check.sh [--dry-run] [--results DIR] [kernels|equality|times|outer|latency|decode|video|figure|bench]" >&2
  exit 2
}
dry='' part=all
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=1 ;;
    --results)
      [ -n "${2:-}" ] && [ "${2#-}" = "$2" ] || usage "--results names no folder"
      export RESULTS=$2
      shift
      ;;
    kernels | equality | times | outer | latency | decode | video | figure | bench)
      [ "$part" = all ] || usage "$part and $1 were given: name one part, or none for all"
      part=$1
      ;;
    *) usage "there is no part $1" ;;
  esac
  shift
done
limit=${LIMIT:-$([ -n "$dry" ] && echo 0 || echo 285)}
[[ $limit =~ ^[0-9]+$ ]] || usage "LIMIT=$limit is no number of seconds"
source "$(dirname "${BASH_SOURCE[0]}")/device.sh"
if [ "$device" = cpu ] && [ -z "$dry" ]; then
  echo "error: torch finds no CUDA device here: run this on a machine with a GPU, or try the script with --dry-run" >&2
  exit 3
fi
if [ -n "$dry" ]; then export ALLOW_DIRTY=1; fi
if [ -n "$dry" ] && [ -z "${RESULTS:-}" ]; then
  results=$(mktemp -d)
  trap 'rm -r "$results"' EXIT
fi

tests() { # the packages that check shapes in the tests are not needed here, so neither are the options that ask for them
  needs pytest
  "$python" -m pytest -q -ra -p no:cacheprovider -o addopts= "$@"
}
kernels() {
  needs triton
  tests tests/holitom/ops/kernels
}
equality() {
  if [ -n "$dry" ]; then export REHEARSE_ON_CPU=1; fi
  tests tests/cuda
}
times() {
  local small=()
  if [ -n "$dry" ]; then small=(--quick --dtypes float32 --repetitions 1); fi
  record bench_kernels eval.efficiency.kernels "${small[@]}"
}
outer() {
  local size=(--device cuda --dtype bfloat16)
  if [ -n "$dry" ]; then size=(--frames 4 --tokens 16 --dim 32 --repetitions 1); fi
  record bench_outer eval.efficiency.outer "${size[@]}" --skip-plain
}
rehearse() { # rehearse NAME CONFIG ARGUMENTS...: a latency at the tiny size
  record "latency_$1" eval.efficiency.latency --geometry tiny --dtype float32 --frames 8 --repetitions 1 --new-tokens 3 \
    --configs "configs/tiny/vanilla.yaml" "configs/tiny/$2.yaml" "${@:3}"
}
latency() {
  if [ -n "$dry" ]; then rehearse tiny holitom_r10; else bash scripts/bench_efficiency.sh latency; fi
}
decode() {
  if [ -z "$dry" ]; then
    bash scripts/bench_efficiency.sh decode
  else
    record bench_decode eval.efficiency.decode --geometry tiny --device cpu --dtype float32 --frames 4 \
      --new-tokens 4 --repetitions 1 --configs configs/tiny/holitom_r10.yaml
  fi
}
video() {
  if [ -n "$dry" ]; then rehearse tiny_video fastv --decoding; else bash scripts/bench_efficiency.sh video; fi
}
figure() {
  if [ -z "$dry" ]; then
    bash scripts/bench_efficiency.sh figure
  else # of what the dry run measured, or else of what a CPU did
    ls "$results"/latency_*.json >/dev/null 2>&1 || cp results/cpu/latency_*.json "$results"
    RESULTS=$results bash scripts/bench_efficiency.sh figure
  fi
}

case $part in
  all) parts=(kernels equality times outer latency decode video figure) ;;
  bench) parts=(times outer latency decode video figure) ;;
  *) parts=("$part") ;;
esac
mkdir -p "$results"
export python device results dry
export -f lacks needs record tests rehearse "${parts[@]}"
failed=''
for name in "${parts[@]}"; do
  echo "== $name" >&2
  begin=$SECONDS status=0
  log=/dev/null
  if [ -n "${RESULTS:-}" ]; then log=$results/$name.log; fi
  timeout -k 10 "$limit" bash -euo pipefail -c "$name" 2>&1 | tee "$log" || status=$?
  if [ "$status" = 124 ]; then echo "$name was stopped after $limit s: LIMIT=600 gives it more" >&2; fi
  if [ "$status" != 0 ]; then failed="$failed $name"; fi
  echo "== $name: $((SECONDS - begin)) s, status $status" >&2
done
if [ ${#parts[@]} = 1 ]; then exit "$status"; fi
if [ -n "$failed" ]; then
  echo "error: failed:$failed" >&2
  exit 1
fi
