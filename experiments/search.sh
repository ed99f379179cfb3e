#!/usr/bin/env bash
# The two searches of 216 settings on PneumoniaMNIST, and 9 draws of the second one on chest X-rays at 64x64. The convolutions
# go by successive halving: all of them for one epoch, the best third for three, the best third of these for five.
#
#   experiments/search.sh PNEUMONIAMNIST.npz CHEST_XRAY [OUT]
#
# DEVICE=cpu, gpu or gpu:N chooses where. Stopped at any moment, it goes on with the same command.
source "$(dirname "$0")/lib.sh"
mnist=${1:?usage: $0 PNEUMONIAMNIST.npz CHEST_XRAY [OUT]} xray=${2:?usage: $0 PNEUMONIAMNIST.npz CHEST_XRAY [OUT]} out=${3:-runs/search}
"$radiograd" search "$root/experiments/dense_216.toml" --data "$mnist" --out "$out/dense" --device "$device"
"$radiograd" search "$root/experiments/conv_216.toml" --data "$mnist" --out "$out/conv" --device "$device" --method halving
"$radiograd" search "$root/experiments/conv_216.toml" --data "$xray" --out "$out/conv_xray" --device "$device" \
    --method halving --trials 9 --set size=64 --set epochs=3
