#!/usr/bin/env bash
# Everything of RELIABILITY.md at its full length: kills, full disks, broken devices, random graphs, broken input, fuzzing, soaks. Takes some
# four hours on two cores without a GPU; one thing after another, because the soaks watch the clock. PARTS="kill disk" runs these alone.
# What each part printed lies in OUT (target/torture). The exit status is 1 where a part failed.
#
# Needs a Vulkan driver (scripts/test.sh installs one), root or a user namespace for the small disks of `disk`, cargo-fuzz for `fuzz`, cargo-deny for
# `isolation`.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:=target/torture}" "${PARTS:=kill disk device numbers graphs input isolation soak fuzz}"
export RADIOGRAD_REQUIRE_GPU=1 CARGO_TERM_COLOR=never
export RADIOGRAD_KILLS=${RADIOGRAD_KILLS:-50} RADIOGRAD_GRAPHS=${RADIOGRAD_GRAPHS:-1000}
export RADIOGRAD_SOAK_STEPS=${RADIOGRAD_SOAK_STEPS:-10000} RADIOGRAD_SOAK_CYCLES=${RADIOGRAD_SOAK_CYCLES:-300}
mkdir -p "$OUT"

tests() { cargo test --release --locked "$@" -- --nocapture --test-threads=1; }

part() {
    case $1 in
    kill) tests --test kill ;;
    disk) tests --test disk ;;
    device) RADIOGRAD_FAULTS=1 tests --test device_faults ;;
    numbers) tests --test numbers ;;
    graphs) tests --test random_graphs ;;
    input) RADIOGRAD_FUZZ_SECONDS=${RADIOGRAD_FUZZ_SECONDS:-300} tests --test fuzz_bounded --test broken_images --test bad_input --test weights_fuzz ;;
    isolation)
        tests --test isolation --test weights_download
        scripts/deny.sh
        ;;
    soak) tests --test soak ;;
    fuzz) scripts/fuzz.sh ;;
    *)
        echo "error: no part $1: kill, disk, device, numbers, graphs, input, isolation, soak or fuzz" >&2
        return 1
        ;;
    esac
}

failed=()
for name in $PARTS; do
    begin=$(date +%s)
    # A command of a condition runs on after an error within it, so that it gets a shell of its own.
    if (set -e; part "$name") >"$OUT/$name.log" 2>&1; then verdict=passed; else
        verdict=FAILED
        failed+=("$name")
    fi
    printf '%-10s %s, %d s: %s\n' "$name" "$verdict" $(($(date +%s) - begin)) "$OUT/$name.log"
done
[ ${#failed[@]} -eq 0 ] || {
    echo "failed: ${failed[*]}" >&2
    exit 1
}
