#!/usr/bin/env bash
# Train the tiny model from scratch and write it into checkpoints/tiny: about two hours on two idle CPU cores.
#
#   bash scripts/train_tiny.sh                        # everything that is not done; stop and start again at any moment
#   bash scripts/train_tiny.sh --minutes 9            # a chunk, for a short loan of a GPU; the next call goes on
#   bash scripts/train_tiny.sh --stage tower          # one stage; tower and stills need nothing before them
#   OUT=/data/tiny CHECKPOINT=/data/tiny-checkpoint bash scripts/train_tiny.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out=${OUT:-outputs/tiny}
# glibc hands big tensors back to the system after every step otherwise
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=134217728 MALLOC_TOP_PAD_=134217728
"$python" -P -m eval.synthetic.training.run "$out" "$@"
if "$python" -P -m eval.synthetic.training.run "$out" --done; then
  "$python" -P -m eval.synthetic.training.export "$out" "${CHECKPOINT:-checkpoints/tiny}"
fi
