#!/usr/bin/env bash
# A network of 2 convolutions and 3 dense layers (simple) against ResNet-34, and ResNet-34 that brings weights from elsewhere against one that
# does not: false negatives and false positives on the official test set.
#
#   experiments/simple_resnet34.sh CHEST_XRAY COVID3 [OUT]
#
# In full: both from scratch on all training images of CHEST_XRAY. With few: on those training images whose patients are neither in COVID3/train
# nor in the test set, ResNet-34 from scratch and from weights trained on COVID3/train, out of which the test set's patients are left. So no patient
# is on both sides. `radiograd weights get resnet34` and INIT=resnet34 take the published ImageNet weights instead.
#
# DEVICE=cpu, gpu or gpu:N chooses where; SIZE, EPOCHS, FEW_EPOCHS, PRETRAIN_EPOCHS and SEEDS other numbers than 64, 5, 8, 3 and 1.
source "$(dirname "$0")/lib.sh"
xray=${1:?usage: $0 CHEST_XRAY COVID3 [OUT]} covid=${2:?usage: $0 CHEST_XRAY COVID3 [OUT]} out=${3:-runs/simple_resnet34}
common=(--size "${SIZE:-64}" --batch 32 --augment light --set split_seed=0)
few=(--data "$xray" --exclude-patients "$covid/train" --exclude-patients "$xray/test" --epochs "${FEW_EPOCHS:-8}" "${common[@]}")
init=${INIT:-$out/pretrained}
# Published weights are of three channels, and of ImageNet's mean.
grey=()
[ -z "${INIT:-}" ] || [ -e "$INIT" ] || grey=(--grey sum --set normalize=imagenet)
if [ -z "${INIT:-}" ]; then
    train "$out/pretrained" --data "$covid" --exclude-patients "$xray/test" --model resnet34 --epochs "${PRETRAIN_EPOCHS:-3}" "${common[@]}"
fi
for seed in $(seq 0 $((${SEEDS:-1} - 1))); do
    for model in simple resnet34; do
        train "$out/full/$model-seed$seed" --data "$xray" --model $model --epochs "${EPOCHS:-5}" --seed "$seed" "${common[@]}"
        train "$out/few/$model-scratch-seed$seed" --model $model --seed "$seed" "${few[@]}"
    done
    train "$out/few/resnet34-pretrained-seed$seed" --model resnet34 --init "$init" "${grey[@]}" --lr 3e-4 --seed "$seed" "${few[@]}"
done
published=(
    --note "Published for the CNN of 2 convolutions and 3 dense layers: above 90 % validation accuracy after the third epoch; for ResNet-34: after the fifth."
    --note "Published for ResNet-34: 12 false negatives with weights from ImageNet, 22 without; that project's images were larger and its weights came from photographs."
)
"$radiograd" compare "$out"/full/* --split test "${published[@]}" --out "$out/full.html"
"$radiograd" compare "$out"/few/* --split test "${published[@]}" \
    --note "Few: the training images of chest_xray whose patients are neither in the set of the first training nor in the test set." --out "$out/few.html"
