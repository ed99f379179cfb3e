#!/usr/bin/env bash
# Training steps of resnet34 (batch 8) and densenet161 (batch 4) at 3x224x224, with and without --recompute, beside PyTorch on the same
# machine in the same run: seconds, memory, and the time until the first step with nothing cached and again with what that left.
#
#   scripts/deep_steps.sh [BINARY] [OPTION...]
#
# BINARY is target/release/radiograd where none is named; options go to deep_steps.py (--device, --runs, --only). Makes a Python
# environment of its own and installs torch and torchvision from PyPI there. The machine should be idle.
#
#   RADIOGRAD_TORCH_VENV  an environment that has these packages already, or where to make one to keep
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
binary=$here/target/release/radiograd
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    binary=$1
    shift
fi
[ -x "$binary" ] || { echo "error: $binary: no such program; build it with cargo build --release" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv=${RADIOGRAD_TORCH_VENV:-$work/venv}
if ! "$venv/bin/python" -c 'import torch, torchvision' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check torch torchvision
fi
"$venv/bin/python" "$here/scripts/deep_steps.py" "$binary" "$@"
