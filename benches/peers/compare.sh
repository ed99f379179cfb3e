#!/usr/bin/env bash
# Radiograd beside Burn, candle and PyTorch: the same steps and kernels, in turn, in one run, in one table.
#   benches/peers/compare.sh [--build] [options of compare.py: --help]
# --build compiles the peers first (some 25 minutes on two cores); without it, whatever is installed takes part.
# RADIOGRAD names a prebuilt program; else this tree's is built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ ${1:-} == --build ]]; then
    shift
    # One by one: together, Cargo would build each with the features of the other.
    (cd "$here" && cargo build --release --locked -p peer-burn && cargo build --release --locked -p peer-candle)
    [[ -x $here/.venv/bin/python ]] || "$here/setup.sh"
fi
if [[ -n ${RADIOGRAD:-} ]]; then
    set -- --prebuilt "$@"
else
    (cd "$here/../.." && cargo build --release --locked --bin radiograd)
    RADIOGRAD=$here/../../target/release/radiograd
fi
RADIOGRAD=$(realpath "$RADIOGRAD") exec python3 "$here/compare.py" "$@"
