#!/usr/bin/env bash
# Where Grad-CAM points: trains a cnn3 on the phantom set (scripts/cam_phantom.toml, two minutes on two cores) and counts, over 100
# correctly classified images with opacities, how often the map's maximum lies inside one. An argument names a run that is there already;
# SEED is the run's, 0 when absent.
#
#   scripts/cam_phantom.sh [RUN]
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-}
if [ -z "$run" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    run=$folder/cnn3
    cargo run --release --locked --quiet -- train --device cpu --config scripts/cam_phantom.toml --seed "${SEED:-0}" --out "$run"
fi
RADIOGRAD_PHANTOM_RUN=$(realpath "$run") cargo test --release --locked --test explain_phantom -- --nocapture
