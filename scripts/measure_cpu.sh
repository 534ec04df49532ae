#!/usr/bin/env bash
# Measure everything that needs no GPU and no checkpoint, into results/cpu/, and write results/README.md anew. About
# sixteen minutes on 2 cores; nothing else should run on the machine.
#
#   bash scripts/measure_cpu.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
measure() { "$python" -m eval.instruments.record "results/cpu/$1.json" -- python -m "${@:2}"; }
measure parity eval.claims.parity tests/goldens
measure parity_newer eval.claims.parity tests/goldens_newer
measure token_counts eval.efficiency.token_counts configs/llava_onevision_7b
measure flops eval.efficiency.flops
measure bench_outer eval.efficiency.outer --threads 1 --repetitions 10
measure bench_outer_long eval.efficiency.outer --dim 896 --growth 1024 --threads 1 --repetitions 3 --skip-plain
measure bench_kernels eval.efficiency.kernels --dtypes float32 --threads 1 --repetitions 3
measure bench_methods eval.efficiency.methods --threads 1 --repetitions 5
measure stages eval.efficiency.stages --repetitions 10
measure reuse eval.benchmarks.reuse --videos 2 --tower-layers 2 --layers 3 --repetitions 3
measure readers eval.efficiency.readers --seconds 10 --frames 8 32 128
measure reading_memory eval.efficiency.reading_memory
"$python" -m eval.report.readme
