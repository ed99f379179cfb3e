#!/usr/bin/env bash
# Holds all five networks against torchvision's values, on the CPU executor and on the GPU where there is one. `cargo test` runs
# resnet18 and densenet121 alone. Names as arguments choose others: scripts/model_cases.sh alexnet resnet34
set -euo pipefail
cd "$(dirname "$0")/.."

models=all
if [ "$#" -gt 0 ]; then
    models=$(IFS=,; echo "$*")
fi
RADIOGRAD_MODELS="$models" cargo test --release --locked --test model_cases -- --test-threads 1
