#!/usr/bin/env bash
# Measure everything the README shows that needs no GPU and no checkpoint, into results/cpu/, and rewrite the README's
# measured section. About ten minutes on 2 cores; nothing else should run on the machine.
#
#   bash scripts/measure_cpu.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
measure() { "$python" -m eval.record "results/cpu/$1.json" -- python -m "${@:2}"; }
measure parity eval.parity tests/goldens
measure token_counts eval.token_counts configs/llava_onevision_7b
measure flops eval.flops
measure bench_outer eval.bench_outer --threads 1 --repetitions 10
measure bench_outer_long eval.bench_outer --dim 896 --growth 1024 --threads 1 --repetitions 3 --skip-plain
measure bench_kernels eval.bench_kernels --dtypes float32 --threads 1 --repetitions 3
measure bench_methods eval.bench_methods --threads 1 --repetitions 5
"$python" -m eval.readme
