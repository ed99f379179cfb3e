#!/usr/bin/env bash
# DenseNet-161 in two stages, the classifier first and then everything, with images of the rare class again and changed more. SCRATCH=1 also trains
# the same network in one go without weights from elsewhere, and compares.
#
#   experiments/densenet161.sh CHEST_XRAY COVID3 [OUT]
#
# Its weights come from COVID3/train without the patients of the test set; then it learns from those training images of CHEST_XRAY whose patients
# are in neither. `radiograd weights get densenet161` and INIT=densenet161 take the published ImageNet weights instead.
#
# DEVICE=cpu, gpu or gpu:N chooses where; SIZE, PRETRAIN_EPOCHS, EPOCHS and SEEDS other numbers than 64, 2, 7 and 1. ALL=1 learns from all training images.
source "$(dirname "$0")/lib.sh"
xray=${1:?usage: $0 CHEST_XRAY COVID3 [OUT]} covid=${2:?usage: $0 CHEST_XRAY COVID3 [OUT]} out=${3:-runs/densenet161}
common=(--size "${SIZE:-64}" --batch 32 --set split_seed=0)
# As in the DenseNet project: images of the rare class again and changed more, the classifier first and then everything.
stages=(--config "$root/experiments/densenet161.toml" --epochs "${EPOCHS:-7}")
few=(--exclude-patients "$covid/train" --exclude-patients "$xray/test")
[ -z "${ALL:-}" ] || few=()
init=${INIT:-$out/pretrained}
# Published weights are of three channels, and of ImageNet's mean.
grey=()
[ -z "${INIT:-}" ] || [ -e "$INIT" ] || grey=(--grey sum --set normalize=imagenet)
if [ -z "${INIT:-}" ]; then
    train "$out/pretrained" --data "$covid" --exclude-patients "$xray/test" --model densenet161 --epochs "${PRETRAIN_EPOCHS:-2}" \
        --augment light "${common[@]}"
fi
for seed in $(seq 0 $((${SEEDS:-1} - 1))); do
    train "$out/stages-seed$seed" "${stages[@]}" --data "$xray" --init "$init" "${grey[@]}" --seed "$seed" "${few[@]}" "${common[@]}"
    [ -z "${SCRATCH:-}" ] || train "$out/scratch-seed$seed" "${stages[@]}" --set stages=[] --data "$xray" --seed "$seed" "${few[@]}" "${common[@]}"
done
"$radiograd" compare "$out"/*-seed* --split test --out "$out/compare.html" \
    --note "Published for DenseNet-161 with weights from ImageNet, the classifier trained first and then everything, on all training images: test accuracy 0.92."
echo "sample images with their probabilities: $out/stages-seed0/report.html"
