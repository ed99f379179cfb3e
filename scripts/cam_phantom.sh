#!/usr/bin/env bash
# Where Grad-CAM points: trains a cnn3 on the phantom set (4 epochs at 64x64, some minutes on two cores) and counts, over 100
# correctly classified images with opacities, how often the map's maximum lies inside one. An argument names a run that is there already.
#
#   scripts/cam_phantom.sh [RUN]
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-}
if [ -z "$run" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    run=$folder/cnn3
    cargo run --release --locked --quiet -- train --device cpu --data phantom --model cnn3 --size 64 --epochs 4 --out "$run"
fi
RADIOGRAD_PHANTOM_RUN=$(realpath "$run") cargo test --release --locked --test explain_phantom -- --nocapture
