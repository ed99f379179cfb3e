#!/usr/bin/env bash
# The best small network from scratch, under 1 million parameters: a search on held-out training images, the winner trained again and then
# with other seeds, each measured once on the official test set, and the mean of these networks over mirrored views.
#
#   experiments/best.sh chest_xray CHEST_XRAY [OUT]
#   experiments/best.sh pneumoniamnist PNEUMONIAMNIST.npz [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where; SEEDS another number of networks.
source "$(dirname "$0")/lib.sh"
set=${1:?usage: $0 chest_xray|pneumoniamnist DATA [OUT]} data=${2:?usage: $0 $1 DATA [OUT]} out=${3:-runs/best_$1}
grid=$root/experiments/best_$set.toml
[ -f "$grid" ] || { echo "error: $grid is missing: give chest_xray or pneumoniamnist" >&2; exit 1; }
"$radiograd" search "$grid" --data "$data" --out "$out/search" --device "$device"
runs=("$out/search/best")
for seed in $(seq 1 $((${SEEDS:-5} - 1))); do
    train "$out/seed$seed" --config "$out/search/best/config.toml" --seed "$seed" --set split_seed=0
    runs+=("$out/seed$seed")
done
"$radiograd" compare "${runs[@]}" --split test --out "$out/compare.html"
echo "the mean of the networks, each on the image and its mirror, at the usual threshold and at the one with the best balance in validation:"
"$radiograd" eval "${runs[@]/#/--run=}" --tta hflip --youden --temperature --device "$device" --split test
