#!/usr/bin/env bash
# Answer a question about a video with all tokens and with HoliTom, and show what was kept.
#
#   bash scripts/demo.sh
#   bash scripts/demo.sh --video talk.mp4 --question "What is shown?" --checkpoint lmms-lab/llava-onevision-qwen2-0.5b-ov
#   bash scripts/demo.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$here"  # relative paths are the caller's; -P keeps a folder called eval there from hiding ours
exec "$python" -P -m eval.demo "$@"
