#!/usr/bin/env bash
# The best small network from scratch, under 1 million parameters: a search on held-out training images, then the winner for more
# epochs with five seeds, each measured once on the official test set, and the mean of the five networks over mirrored views.
#
#   experiments/best.sh chest_xray CHEST_XRAY [OUT]
#   experiments/best.sh pneumoniamnist PNEUMONIAMNIST.npz [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where; SEEDS and EPOCHS another number of either.
source "$(dirname "$0")/lib.sh"
set=${1:?usage: $0 chest_xray|pneumoniamnist DATA [OUT]} data=${2:?usage: $0 $1 DATA [OUT]} out=${3:-runs/best_$1}
grid=$root/experiments/best_$set.toml
[ -f "$grid" ] || { echo "error: $grid is missing: give chest_xray or pneumoniamnist" >&2; exit 1; }
"$radiograd" search "$grid" --data "$data" --out "$out/search" --device "$device"
runs=()
for seed in $(seq 0 $((${SEEDS:-5} - 1))); do
    train "$out/seeds/seed$seed" --config "$out/search/best/config.toml" --epochs "${EPOCHS:-16}" --seed "$seed" --set split_seed=0
    runs+=(--run "$out/seeds/seed$seed")
done
"$radiograd" compare "$out"/seeds/seed* --split test --out "$out/compare.html"
echo "the mean of the networks, each on the image and its mirror, at the usual threshold and at the one with the best balance in validation:"
"$radiograd" eval "${runs[@]}" --tta hflip --youden --temperature --device "$device" --split test
