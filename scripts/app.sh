#!/usr/bin/env bash
# Ask about a video with and without compression, in a browser on this machine alone: http://127.0.0.1:7860
#
#   bash scripts/app.sh
#   bash scripts/app.sh --checkpoint DIR --port 8000
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$here" # relative paths are the caller's; -P keeps a folder called eval there from hiding ours
exec "$python" -P -m eval.demo.app "$@"
