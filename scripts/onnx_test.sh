#!/usr/bin/env bash
# What `radiograd export` writes, in ONNX's own checker and in ONNX Runtime:
#
#   scripts/onnx_test.sh [BINARY]
#
# BINARY is target/release/radiograd where none is named. Makes a Python environment of its own and installs onnx, onnxruntime, numpy
# and Pillow from PyPI there. Trains cnn3, simple, resnet18, densenet121 and a chain with every kind of layer for one epoch on a small
# phantom set with the CPU executor, exports each, with and without the normalisation inside, and holds ONNX Runtime's logits of the
# test images against those of `radiograd eval --logits`: at most 1e-4 apart. Needs python3 with venv, and PyPI.
#
#   RADIOGRAD_ONNX_VENV  an environment that has these packages already, or where to make one to keep
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
binary=${1:-$here/target/release/radiograd}
[ -x "$binary" ] || { echo "error: $binary: no such program; build it with cargo build --release" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv=${RADIOGRAD_ONNX_VENV:-$work/venv}
if ! "$venv/bin/python" -c 'import onnx, onnxruntime, numpy, PIL' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check onnx onnxruntime numpy pillow
fi

size=40
everything=stem=conv6k3x5s2x1p1x2d1x2g1-bn-lrelu0.2-pool3s2p1-block=[conv6nb-bn-elu0.5-conv6k1]+-relu-2x[bn-tanh-conv2k1]++
everything=$everything-[conv4k2s2nb]+[conv4k4s2p1-bn]-sigmoid-dropout-avgpool3s1p1-conv8g2-softmax-adaptive3x4-adaptive6x8
everything=$everything-adaptive3x2-flatten-bn-dense9nb-dropout0.1-tanh-dense1zb
"$binary" data phantom "$work/phantom" --images 200 --size $size --quiet >/dev/null
for model in cnn3 simple resnet18 densenet121 "$everything"; do
    name=${model%%=*}
    run=$work/$name
    "$binary" train --quiet --device cpu --data "$work/phantom" --model "$model" --size $size --epochs 1 --batch 16 \
        --out "$run" >/dev/null
    "$binary" eval --quiet --device cpu --run "$run" --data "$work/phantom" --split test --logits "$run/logits.csv" >/dev/null
    "$binary" export --quiet --run "$run" --out "$run/plain.onnx" >/dev/null
    "$binary" export --quiet --run "$run" --pixels --out "$run/pixels.onnx" >/dev/null
    "$venv/bin/python" "$here/scripts/onnx_check.py" "$run" "$work/phantom"
done
"$venv/bin/python" -c 'import onnx, onnxruntime; print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: all agree")'
