# What the experiments share: the program, where it computes, and runs that are there already.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
radiograd=${RADIOGRAD:-$root/target/release/radiograd}
device=${DEVICE:-auto}
[ -x "$radiograd" ] || { echo "error: $radiograd is missing: cargo build --release, or name it in RADIOGRAD" >&2; exit 1; }

# train RUN OPTION...: trains into RUN; one that is finished stays, one that was broken off goes on.
train() {
    local run=$1
    shift
    [ -f "$run/result.json" ] && { echo "$run is finished"; return; }
    local resume=()
    [ -f "$run/last.safetensors" ] && resume=(--resume)
    mkdir -p "$(dirname "$run")"
    "$radiograd" train --device "$device" --quiet --out "$run" "${resume[@]}" "$@" >/dev/null
    echo "$run"
}
