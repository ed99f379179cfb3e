#!/usr/bin/env bash
# Fuzzes every target of fuzz/ with libFuzzer for SECONDS_EACH seconds (150), one after another, beginning with valid files that
# the tests make. TARGETS="npz image" chooses some. Needs cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler; the
# stable compiler will do, told to take the flags of the nightly one. What crashes stays in fuzz/artifacts, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${SECONDS_EACH:=150}" "${SANITIZER:=address}"
export RUSTC_BOOTSTRAP=1

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "error: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
RADIOGRAD_FUZZ_SEEDS=fuzz/corpus cargo test --release --locked --test fuzz_bounded -- --exact \
    seeds_lie_where_cargo_fuzz_looks
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in ${TARGETS:-$(cargo fuzz list)}; do
    # Images may take what their decoder's limit says; nothing else comes near a gigabyte.
    memory=1024
    [ "$target" = image ] && memory=2560
    echo "== $target"
    cargo fuzz run --sanitizer "$SANITIZER" -a "$target" -- -max_total_time="$SECONDS_EACH" -timeout=30 \
        -rss_limit_mb="$memory" -max_len=8192 -print_final_stats=1 >"$log" 2>&1 || status=1
    grep -E "^(stat::|Done|==|ERROR|SUMMARY|thread|artifact|Test unit)" "$log" || true
done
exit "$status"
