#!/usr/bin/env bash
# The paper's main table and ablations on the learned tiny model and rendered clips, into results/tiny/: JSON with
# provenance, tables.md, figures. An instrument, not evidence about the 7B model. About an hour on 2 cores; an interrupted
# run goes on where it stopped. The data set is written first, which takes a few minutes.
#
#   bash scripts/table_tiny.sh
#   bash scripts/table_tiny.sh --limit 20 --allow-dirty   # a rehearsal on 20 clips, into outputs/
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
results=results/tiny dirty=() options=()
for word in "$@"; do
  case $word in
    --allow-dirty) dirty+=("$word") ;;
    *) options+=("$word") ;;
  esac
  case $word in --limit*) results=outputs/results_tiny ;; esac # a part of the questions is no result
done
data=outputs/synthvid
"$python" -P -m eval.synthetic.world.dataset "$data"
measure() { # name, then the arguments of eval.synthetic.answers.table
  "$python" -P -m eval.instruments.record "$results/$1.json" "${dirty[@]}" -- \
    python -P -m eval.synthetic.answers.table "${@:2}" --data "$data" "${options[@]}"
}
measure main main
measure ablations ablations
measure long main --split long --frames 64 \
  --only vanilla {holitom_without_inner,holitom,uniform,random}_r{25,10}
"$python" -P -m eval.report.tables.tiny "$results"
# for the reviewer's page: every answer, and what became of one clip's tokens
if [ "$results" = results/tiny ]; then
  "$python" -P -m eval.report.page.keep_answers "$results" --answers outputs/tiny_answers --data "$data"
  maps=outputs/maps_tiny methods=(holitom_r15 visionzip_r15 fastvid_r15 prunevid_r15 fastv)
  configs=("${methods[@]/#/--config=configs/tiny/}")
  "$python" -P -m holitom.show "$data/test/clips/0000.mp4" "${configs[@]/%/.yaml}" -o "$maps"
  mkdir -p "$results/maps"
  for method in "${methods[@]}"; do cp "$maps/$method/record.npz" "$results/maps/$method.npz"; done
fi
