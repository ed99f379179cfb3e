#!/usr/bin/env bash
# Runs every test. The GPU tests need a Vulkan (or Metal, or D3D12) adapter; where none is found and apt is there, a software
# Vulkan driver is installed first. With RADIOGRAD_REQUIRE_GPU=1 a machine without any adapter fails instead of skipping.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without a session Mesa's device layer writes a line to stderr for each instance that a test opens.
export NODEVICE_SELECT=1

# With the tests, and not by `cargo build` first: their dependencies turn on more features of shared ones, so that the crate would be
# compiled twice.
cargo test --release --locked --no-run "$@"
[ -x target/release/radiograd ] || cargo build --release --locked
has_adapter() { ./target/release/radiograd devices --json 2>/dev/null | grep -q '"backend"'; }

if ! has_adapter && command -v apt-get >/dev/null; then
    echo "no GPU adapter was found: installing Mesa's software Vulkan driver"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -q && $sudo apt-get install -y -q mesa-vulkan-drivers || echo "the installation failed" >&2
fi

if has_adapter; then
    ./target/release/radiograd devices
    # From here on a GPU test that finds no adapter is a failure.
    export RADIOGRAD_REQUIRE_GPU=1
elif [ "${RADIOGRAD_REQUIRE_GPU:-0}" = 1 ]; then
    echo "error: no GPU adapter, and RADIOGRAD_REQUIRE_GPU=1: install a Vulkan driver (mesa-vulkan-drivers)" >&2
    exit 1
else
    echo "warning: no GPU adapter was found, the GPU tests will say that they were skipped" >&2
fi

cargo test --release --locked "$@"
