#!/usr/bin/env bash
# One, two and three convolution layers on chest X-rays: five seeds at 64x64, one at 128x128.
#
#   experiments/depth.sh CHEST_XRAY [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where; SEEDS another number of seeds.
source "$(dirname "$0")/lib.sh"
data=${1:?usage: $0 CHEST_XRAY [OUT]} out=${2:-runs/depth}
study() { "$radiograd" study depth --data "$data" --device "$device" --epochs 6 "$@"; }
[ -f "$out/64/study.json" ] || study --size 64 --seeds "${SEEDS:-5}" --out "$out/64"
[ -f "$out/128/study.json" ] || study --size 128 --out "$out/128"
echo "reports: $out/64/report.html and $out/128/report.html"
