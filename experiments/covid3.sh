#!/usr/bin/env bash
# Three classes (COVID-19, normal, pneumonia): AlexNet against ResNet-18, and a network of ours that is smaller than both, on the same budget of epochs.
#
#   experiments/covid3.sh COVID3 [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where; SIZE, EPOCHS and SEEDS other numbers than 64, 5 and 1; OURS another chain of layers.
source "$(dirname "$0")/lib.sh"
data=${1:?usage: $0 COVID3 [OUT]} out=${2:-runs/covid3}
# A stem that halves the image, and three residual blocks of 64, 128 and 256 channels: a tenth of ResNet-18's weights. Of two networks tried, the one
# with the lower validation loss.
ours=${OURS:-conv32k5s2-bn-relu-pool-[conv64-bn-relu-conv64-bn]+[conv64k1-bn]-relu-pool-[conv128-bn-relu-conv128-bn]+[conv128k1-bn]-relu-pool-[conv256-bn-relu-conv256-bn]+[conv256k1-bn]-relu-gap-flatten-dropout0.2-dense3}
common=(--data "$data" --size "${SIZE:-64}" --epochs "${EPOCHS:-5}" --batch 32 --augment light --set split_seed=0)
for seed in $(seq 0 $((${SEEDS:-1} - 1))); do
    # AlexNet has no batch-norm and takes smaller steps.
    train "$out/alexnet-seed$seed" --model alexnet --lr 3e-4 --seed "$seed" "${common[@]}"
    train "$out/resnet18-seed$seed" --model resnet18 --lr 1e-3 --seed "$seed" "${common[@]}"
    train "$out/ours-seed$seed" --model "$ours" --lr 1e-3 --seed "$seed" "${common[@]}"
done
"$radiograd" compare "$out"/alexnet-seed* "$out"/resnet18-seed* "$out"/ours-seed* --split test --out "$out/compare.html" \
    --note "Published test accuracy of AlexNet on a set of this kind: 0.61." \
    --note "The classes differ in more than the illness: the COVID-19 films are of adults and from another archive than the children's films of the other two. A network can tell the archive by its borders, letters and contrast, or the patient's age by the bones. So accuracy on COVID-19 is no measure of how well the illness is seen, and the accuracy over all classes gains by it; normal against pneumonia, one archive, is the honest part."
