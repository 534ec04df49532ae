#!/usr/bin/env bash
# Make requirements.txt anew from requirements.in: the newest releases it allows, with all that they ask for, each at one
# version. Needs the package index; nothing else here calls it.
#
#   bash scripts/lock.sh                              # only what requirements.in now demands changes
#   bash scripts/lock.sh --upgrade                    # everything to the newest release
#   bash scripts/lock.sh --upgrade-package filelock
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$python" -m venv "$venv/lock"
"$venv/lock/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$venv/lock/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-emit-package torch --annotation-style line \
  --custom-compile-command "bash scripts/lock.sh" requirements.in -o requirements.txt "$@"
