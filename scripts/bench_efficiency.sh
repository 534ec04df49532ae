#!/usr/bin/env bash
# The paper's efficiency figure, measured: time to first token by stage and decoding, into results/<device>/, the figure
# beside it, and the README's efficiency section. With a GPU LLaVA-OneVision-7B (32 frames) and LLaVA-Video-7B (64), a few
# minutes; without one the 0.5B model on 8 frames, about ten minutes on 2 cores. Random weights of the true size, no download;
# nothing else should run on the machine.
#
#   bash scripts/bench_efficiency.sh
#   bash scripts/bench_efficiency.sh latency               # a part: latency, decode, video (LLaVA-Video-7B) or figure
#   bash scripts/bench_efficiency.sh --repetitions 20      # arguments go to eval.efficiency.latency
#   bash scripts/bench_efficiency.sh --checkpoint DIR      # real weights, of the model that is measured
set -euo pipefail
parts='latency decode video figure'
case "${1:-}" in
  latency | decode | video | figure) parts=$1; shift ;;
  '' | -*) ;;
  *) echo "error: there is no part $1; bash scripts/bench_efficiency.sh [latency|decode|video|figure] [ARGUMENTS]" >&2; exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/device.sh"
ways() { # ways GEOMETRY FOLDER "NAMES" ARGUMENTS...
  local files=()
  for name in $3; do files+=("configs/$2/$name.yaml"); done
  record "latency_$1" eval.efficiency.latency --geometry "$1" --configs "${files[@]}" "${@:4}"
}
latency() {
  local paper="vanilla fastv pdrop visionzip_r20 prunevid_r20 holitom_r25 holitom_r15 holitom_without_inner_r10 holitom_r10"
  if [ "$device" = cpu ]; then
    ways llava-onevision-0.5b llava_onevision_0.5b "vanilla holitom_r10" --frames 8 --new-tokens 8 "$@"
  else
    ways llava-onevision-7b llava_onevision_7b "$paper" --new-tokens 16 "$@"
  fi
}
decode() { # all tokens against HoliTom
  local size=7b how=(--device cuda --frames 32)
  if [ "$device" = cpu ]; then size=0.5b how=(--frames 8 --new-tokens 32 --repetitions 3); fi
  record bench_decode eval.efficiency.decode --geometry "llava-onevision-$size" \
    --configs "configs/llava_onevision_$size/holitom_r10.yaml" "${how[@]}"
}
video() { # decoding in the library's own way alone
  if [ "$device" = cpu ]; then return; fi
  if [ "$parts" != video ] && [[ " $* " = *" --checkpoint "* ]]; then return; fi # of one model, and this would need another
  ways llava-video-7b llava_video_7b "vanilla fastv visionzip_r15 prunevid_r15 holitom_r15" --new-tokens 16 --decoding "$@"
}
figure() {
  local found=("$results"/latency_*.json)
  if [ -n "$(lacks matplotlib)" ]; then
    echo "left out: the figure, for $python lacks matplotlib; elsewhere: python -m eval.report.figures.latency ${found[*]} -o latency.png" >&2
  else
    "$python" -m eval.report.figures.latency "${found[@]}" -o "$results/latency.png"
  fi
  if [ -z "${RESULTS:-}" ]; then "$python" -m eval.report.readme; fi
}
for part in $parts; do
  case $part in
    latency | video) "$part" "$@" ;;
    *) "$part" ;;
  esac
done
