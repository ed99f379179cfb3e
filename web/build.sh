#!/bin/bash
# Builds the browser lab into web/dist: static files for any web server.
#
#   web/build.sh            small and fast, as it is published
#   web/build.sh --quick    without the last optimisations, to try something out
#
# Needs a toolchain for wasm32-unknown-unknown: rustup's, if it has that target or can fetch it; else Debian's packages
#   apt-get install rustc-web cargo-web rust-web-src
# where they are new enough (Debian 12 has 1.85, which is not), whose standard library is then compiled too, and a rust-lld or
# wasm-ld. wasm-bindgen-cli is installed by cargo, in the version that Cargo.lock has; wasm-opt (package binaryen, 117 or later;
# WASM_OPT names another) makes the result smaller where it is there.
set -euo pipefail
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target_dir
args=(--release --locked --target "$target")
if [ "${1:-}" = --quick ]; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
fi
say() { echo "build.sh: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

has_std() { [ -d "$("$1" --print sysroot)/lib/rustlib/$target/lib" ]; }

version=$(awk '$3 == "\"wasm-bindgen\"" { getline; gsub("\"", "", $3); print $3 }' Cargo.lock)
tools=$target_dir/tools
if ! [ "$("$tools/bin/wasm-bindgen" --version 2>/dev/null)" = "wasm-bindgen $version" ]; then
    say "installing wasm-bindgen-cli $version"
    install() { (unset "${!CARGO_PROFILE_@}"; cargo install wasm-bindgen-cli --version "$version" --root "$tools" --target-dir "$target_dir/wasm-bindgen-cli" "$@"); }
    # Its own lock file names versions that a mirror may not have.
    install --locked || install
fi

if has_std rustc || { command -v rustup >/dev/null && timeout 60 rustup target add "$target" >/dev/null 2>&1 && has_std rustc; }; then
    say "with $(rustc --version)"
    cargo build "${args[@]}"
elif [ -d /usr/lib/rustlib/src/rust/library ] || [ -d /usr/src/rustc-web ] || ls -d /usr/lib/rustlib/src/*/library >/dev/null 2>&1; then
    lld=$(command -v rust-lld wasm-ld | head -1 || true)
    if [ -z "$lld" ]; then
        lld=$(find "$(rustc --print sysroot 2>/dev/null || echo /nowhere)/lib/rustlib" -name rust-lld -type f 2>/dev/null | head -1)
    fi
    [ -n "$lld" ] || fail "no rust-lld and no wasm-ld: apt-get install lld"
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld
    need=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    have=$($RUSTC --version | cut -d ' ' -f 2)
    printf '%s\n' "$need" "$have" | sort -V -C || fail "Debian's rustc is $have, and this needs $need or later: run rustup target add $target, or take a later Debian"
    say "with $($RUSTC --version), its standard library compiled too, linked by $lld"
    /usr/bin/cargo build "${args[@]}" -Z build-std=std,panic_abort
else
    fail "no toolchain for $target: run rustup target add $target, or on Debian apt-get install rustc-web cargo-web rust-web-src"
fi

rm -rf dist.new
mkdir -p dist.new
"$tools/bin/wasm-bindgen" --target web --no-typescript --remove-name-section --remove-producers-section --out-dir dist.new --out-name radiograd "$target_dir/$target/release/radiograd_lab.wasm"
# The features that rustc itself uses by default. Version 108 wrote a file that no browser loads (tables of references), without a word.
wasm_opt=$(command -v "${WASM_OPT:-wasm-opt}" || true)
if [ "${1:-}" != --quick ]; then
    features=(--enable-bulk-memory --enable-sign-ext --enable-nontrapping-float-to-int --enable-mutable-globals --enable-reference-types --enable-multivalue)
    wasm_opt_version=$([ -z "$wasm_opt" ] || "$wasm_opt" --version | grep -o '[0-9]\+' | head -1)
    if [ "${wasm_opt_version:-0}" -lt 117 ]; then
        say "no wasm-opt of version 117 or later (WASM_OPT names one): the file stays as the compiler wrote it"
    else
        "$wasm_opt" -Os "${features[@]}" dist.new/radiograd_bg.wasm -o dist.new/smaller.wasm
        mv dist.new/smaller.wasm dist.new/radiograd_bg.wasm
    fi
fi
cp static/* dist.new/
# The view of `radiograd explain`: the very parts that the program joins, in its order.
explain=../src/report
mapfile -t parts < <(sed -n 's/^ *include_str!("\(templates\/explain\/[a-z]*\.js\)"),$/\1/p' $explain/explain.rs)
[ ${#parts[@]} -gt 0 ] || fail "src/report/explain.rs names no parts of the explain view"
{
    printf 'globalThis.radiogradExplain = (() => {\n"use strict";\n'
    (cd $explain && cat "${parts[@]}")
    printf 'return radiogradExplain;\n})();\n'
} >dist.new/explain.js
cp $explain/templates/explain/explain.css dist.new/
rm -rf dist
mv dist.new dist
bytes=$(cat dist/* | gzip -9 | wc -c)
say "web/dist is ready: $(cat dist/* | wc -c) bytes, $bytes compressed; serve it with any web server, for example python3 -m http.server -d web/dist"
