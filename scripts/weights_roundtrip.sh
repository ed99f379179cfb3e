#!/usr/bin/env bash
# Weights between Radiograd, PyTorch and torchvision, both ways:
#
#   scripts/weights_roundtrip.sh [BINARY]
#
# BINARY is target/release/radiograd where none is named. Makes a Python environment of its own and installs torch, torchvision,
# safetensors, numpy and pillow from PyPI there, then runs weights_roundtrip.py: networks trained here are loaded strictly there, and give the same logits; weights saved there are read here, with the same logits, from .safetensors, from .pth, and
# from the .pth of before PyTorch 1.6. Needs python3 with venv, and PyPI.
#
#   RADIOGRAD_TORCH_PYTHON  a python that has all five already
#   RADIOGRAD_DEVICE        cpu where none is named; gpu runs the shaders
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
binary=${1:-$here/target/release/radiograd}
[ -x "$binary" ] || { echo "error: $binary: no such program; build it with cargo build --release" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${RADIOGRAD_TORCH_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install --quiet --disable-pip-version-check torch torchvision safetensors numpy pillow
fi
export NODEVICE_SELECT=1
"$python" "$here/scripts/weights_roundtrip.py" "$binary" "$work" "${RADIOGRAD_DEVICE:-cpu}"
