#!/usr/bin/env bash
# Licences, banned crates and sources of all dependencies, by cargo-deny and deny.toml. Advisories need the database of RustSec, which
# is fetched over the network: ADVISORIES=1 asks for them too.
# `cargo test --test isolation licences` checks licences and sources without cargo-deny.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "error: cargo-deny is missing: cargo install cargo-deny --locked" >&2
    exit 1
fi
cargo deny --offline --locked check licenses bans sources
if [ "${ADVISORIES:-0}" = 1 ]; then
    cargo deny --locked check advisories
fi
