#!/bin/bash
# Drives the browser lab in headless Chromium with software WebGPU: training against the program, drops, links, keyboard,
# accessibility, sizes and times. Pictures of both themes land in web/test/shots, to be looked at.
#
#   scripts/lab_test.sh [PROGRAM]      PROGRAM: radiograd, target/release/radiograd when absent
#
# Needs web/dist (web/build.sh), Node.js with npm, and Chromium (CHROMIUM, else /usr/bin/chromium). LAB_CASES="size train" runs these cases
# alone. RADIOGRAD_DATA names a folder with real images, without which the .npz case is left out. No part of scripts/test.sh, which
# needs no browser.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-${CARGO_TARGET_DIR:-target}/release/radiograd}
[ -x "$program" ] || { echo "lab_test.sh: no program $program: run cargo build --release" >&2; exit 1; }
[ -f web/dist/index.html ] || { echo "lab_test.sh: no web/dist: run web/build.sh" >&2; exit 1; }
program=$(realpath "$program")
(cd web/test && npm ci --no-audit --no-fund --silent)
exec node web/test/lab.mjs web/dist "$program" web/test/shots
