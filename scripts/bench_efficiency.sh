#!/usr/bin/env bash
# The paper's efficiency figure, measured: time to first token by stage and decoding, into results/<device>/, the figure
# beside it, and the README's efficiency section. With a GPU LLaVA-OneVision-7B (32 frames) and LLaVA-Video-7B (64), a few
# minutes; without one the 0.5B model on 8 frames, about ten minutes on 2 cores. Random weights of the true size, no download;
# nothing else should run on the machine.
#
#   bash scripts/bench_efficiency.sh
#   bash scripts/bench_efficiency.sh --repetitions 20      # arguments go to eval.efficiency.latency
#   bash scripts/bench_efficiency.sh --checkpoint DIR      # real weights, of the model that is measured
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/device.sh"
latency() { # latency GEOMETRY FOLDER "NAMES" ARGUMENTS...
  local files=()
  for name in $3; do files+=("configs/$2/$name.yaml"); done
  record "latency_$1" eval.efficiency.latency --geometry "$1" --configs "${files[@]}" "${@:4}"
}
decode() { # decode GEOMETRY FOLDER ARGUMENTS...: the ways of decoding, all tokens against HoliTom
  record bench_decode eval.efficiency.decode --geometry "$1" --configs "configs/$2/holitom_r10.yaml" "${@:3}"
}
paper="vanilla fastv pdrop visionzip_r20 prunevid_r20 holitom_r25 holitom_r15 holitom_without_inner_r10 holitom_r10"
if [ "$device" != cpu ]; then
  latency llava-onevision-7b llava_onevision_7b "$paper" --new-tokens 16 "$@"
  decode llava-onevision-7b llava_onevision_7b --device cuda --frames 32
  case " $* " in
    *" --checkpoint "*) ;; # of one model, and the other would need another
    *) latency llava-video-7b llava_video_7b "vanilla fastv visionzip_r15 prunevid_r15 holitom_r15" --new-tokens 16 \
      --decoding "$@" ;; # the library's own way alone
  esac
else
  latency llava-onevision-0.5b llava_onevision_0.5b "vanilla holitom_r10" --frames 8 --new-tokens 8 "$@"
  decode llava-onevision-0.5b llava_onevision_0.5b --frames 8 --new-tokens 32 --repetitions 3
fi
"$python" -m eval.report.figures.latency "results/$device"/latency_*.json -o "results/$device/latency.png"
"$python" -m eval.report.readme
