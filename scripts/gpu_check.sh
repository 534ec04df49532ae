#!/usr/bin/env bash
# Everything that only a GPU can show, in under 8 minutes: the kernels against their oracles, the same results on CUDA as on
# the CPU, and the benchmarks, into results/<device>/*.json.
#
#   bash scripts/gpu_check.sh                          # all three parts
#   bash scripts/gpu_check.sh kernels|equality|bench   # one of them
#   bash scripts/gpu_check.sh --dry-run [PART]         # without a GPU: what can run on a CPU, at the tiny size, kept nowhere
#   NO_INSTALL=1 PYTHON=python3 ALLOW_DIRTY=1 bash scripts/gpu_check.sh   # see scripts/device.sh
#
# Beside what running a model takes (scripts/device.sh names it) the tests need pytest, triton and hypothesis, the figure
# matplotlib; no video reader, no harness, no network.
set -euo pipefail
usage() { echo "error: $1; bash scripts/gpu_check.sh [--dry-run] [kernels|equality|bench]" >&2; exit 2; }
dry='' part=all
for word in "$@"; do
  case "$word" in
    --dry-run) dry=1 ;;
    kernels | equality | bench) [ "$part" = all ] || usage "$part and $word were given: name one part, or none for all"; part=$word ;;
    *) usage "there is no part $word" ;;
  esac
done
source "$(dirname "${BASH_SOURCE[0]}")/device.sh"
if [ "$device" = cpu ] && [ -z "$dry" ]; then
  echo "error: torch finds no CUDA device here: run this on a machine with a GPU, or try the script with --dry-run" >&2
  exit 3
fi

tests() { # the packages that check shapes in the tests are not needed here, so neither are the options that ask for them
  "$python" -m pytest -q -ra -p no:cacheprovider -o addopts= "$@"
}
kernels() {
  needs pytest hypothesis triton
  tests tests/holitom/ops/kernels
}
equality() {
  needs pytest
  if [ -n "$dry" ]; then REHEARSE_ON_CPU=1 tests tests/cuda; else tests tests/cuda; fi
}
bench() {
  needs matplotlib
  if [ -n "$dry" ]; then
    results=$(mktemp -d)
    ALLOW_DIRTY=1 record latency_tiny eval.efficiency.latency --geometry tiny --dtype float32 --frames 8 --repetitions 1 --new-tokens 3 \
      --configs configs/tiny/{vanilla,holitom_r10}.yaml
    ALLOW_DIRTY=1 record bench_kernels eval.efficiency.kernels --quick --dtypes float32 --repetitions 1
    ALLOW_DIRTY=1 record bench_decode eval.efficiency.decode --geometry tiny --device cpu --dtype float32 --frames 4 \
      --new-tokens 4 --repetitions 1 --configs configs/tiny/holitom_r10.yaml
    "$python" -m eval.report.figures.latency "$results"/latency_*.json -o "$results/latency.png"
    rm -r "$results"
    return
  fi
  record bench_kernels eval.efficiency.kernels
  record bench_outer eval.efficiency.outer --device cuda --dtype bfloat16 --skip-plain
  bash scripts/bench_efficiency.sh
}

if [ "$part" != all ]; then
  "$part"
  exit
fi
failed=''
for name in kernels equality bench; do
  echo "== $name" >&2
  begin=$SECONDS status=0
  # a part that fails does not keep the next from running: the machine may be lent for minutes
  bash scripts/gpu_check.sh ${dry:+--dry-run} "$name" || status=$?
  if [ "$status" != 0 ]; then failed="$failed $name"; fi
  echo "== $name: $((SECONDS - begin)) s, status $status" >&2
done
if [ -n "$failed" ]; then
  echo "error: failed:$failed" >&2
  exit 1
fi
