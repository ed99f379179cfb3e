#!/usr/bin/env bash
# What class weights, balancing and augmentation change on the official test set: cnn3 at 32x32, six epochs, three seeds each.
# Every setting sees the same images in training and validation; `compare` takes the mean of the seeds.
#
#   experiments/balance.sh CHEST_XRAY [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where; SEEDS, EPOCHS and SIZE another number of each.
source "$(dirname "$0")/lib.sh"
data=${1:?usage: $0 CHEST_XRAY [OUT]} out=${2:-runs/balance}
settings=(plain weights balanced oversample light strong both)
declare -A options=(
    [plain]="--class-weights none"
    [weights]="--class-weights balanced"
    [balanced]="--class-weights none --sampler balanced"
    # As the DenseNet project did it: images of the rare class again, and those changed more.
    [oversample]="--class-weights none --sampler oversample --augment light --augment-repeats strong"
    [light]="--class-weights none --augment light"
    [strong]="--class-weights none --augment strong"
    [both]="--class-weights none --sampler balanced --augment strong"
)
for name in "${settings[@]}"; do
    for seed in $(seq 0 $((${SEEDS:-3} - 1))); do
        # shellcheck disable=SC2086 # several options in one word
        train "$out/$name/seed$seed" --data "$data" --model cnn3 --size "${SIZE:-32}" --epochs "${EPOCHS:-6}" --seed "$seed" --set split_seed=0 ${options[$name]}
    done
done
"$radiograd" compare "${settings[@]/#/$out/}" --split test --out "$out/compare.html"
