#!/usr/bin/env bash
# Everything that is to be known of one GPU, in one go and in under 9 minutes, from a program that is already built:
#
#   scripts/gpu_report.sh BINARY OUTDIR [REFERENCE_CASES]
#
# BINARY is target/release/radiograd; REFERENCE_CASES the built tests/reference_cases (target/release/deps/reference_cases-*).
# First proof, then time: the adapters, `gradcheck` (a failure ends the report), the reference cases, the ladder of kernels, the
# training steps, and PyTorch on the same work where python3 has torch. Writes OUTDIR/ADAPTER-DATE.md with every command, and
# the documents behind its tables beside it. Nothing is built and nothing is downloaded.
#
#   RADIOGRAD_REPORT_SECONDS  all of the time that it may take [520]; less shortens every part in proportion
#   RADIOGRAD_REPORT_DEVICE   --device of every command [gpu]
set -uo pipefail

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: scripts/gpu_report.sh BINARY OUTDIR [REFERENCE_CASES]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
binary=$1 out=$2 cases=${3:-}
limit=${RADIOGRAD_REPORT_SECONDS:-520}
device=${RADIOGRAD_REPORT_DEVICE:-gpu}
case $limit in
    '' | *[!0-9]*) echo "error: RADIOGRAD_REPORT_SECONDS=$limit: give a whole number of seconds" >&2; exit 2 ;;
esac
[ -x "$binary" ] || { echo "error: $binary: no such program; build it with cargo build --release" >&2; exit 1; }
[ -z "$cases" ] || [ -x "$cases" ] || { echo "error: $cases: no such program; cargo test --release --no-run builds it" >&2; exit 1; }
mkdir -p "$out" || exit 1
python=$(command -v python3 || true)
torch_peer=$here/benches/peers/torch_peer.py
# On Linux without a session Mesa's device layer writes to stderr.
export NODEVICE_SELECT=1

report=$out/report.md.part
: >"$report" || exit 1
say() { printf '%s\n' "$*" >>"$report"; }

# part CAP FILE COMMAND...: runs a command for at most CAP 520ths of the time and at most what is left of it; its output goes
# to OUTDIR/FILE. Afterwards rc is its exit status: 124 where it was stopped, 125 where no time was left.
part() {
    local cap=$(($1 * limit / 520)) file=$out/$2 left=$((limit - SECONDS - 2)) begin=$SECONDS
    shift 2
    [ "$cap" -ge 2 ] || cap=2
    [ "$cap" -le "$left" ] || cap=$left
    say "" '```sh' "$(printf '%q ' "$@")" '```' ""
    if [ "$cap" -lt 1 ]; then
        rc=125
        say "Not run: the $limit s were spent."
        return
    fi
    echo "$((limit - SECONDS)) s left: $*" >&2
    timeout -k 5 "$cap" "$@" >"$file" 2>"$file.err" </dev/null
    rc=$?
    case $rc in
        0) say "Done in $((SECONDS - begin)) s." ;;
        124 | 137) say "**Stopped after $cap s, not finished.**" ;;
        *) say "**Failed with exit status $rc:** $(tail -n 1 "$file.err")" ;;
    esac
    [ -s "$file.err" ] || rm -f "$file.err"
}

# What a command printed, as it stands.
quote() { say "" '```' "$(cat "$out/$1" 2>/dev/null)" '```'; }

# Documents as tables; without python3 the documents themselves.
tables() {
    if [ -n "$python" ]; then
        say "" "$("$python" "$here/scripts/gpu_report.py" "$@" 2>&1)"
    else
        say "" "No python3 to make tables of: $*"
    fi
}

line=$(timeout 60 "$binary" graph --model mlp --size 8 --device "$device" 2>"$out/open.err" | head -n 1)
adapter=${line#device: }
adapter=${adapter%: asked for*}
if [ -z "$adapter" ] || [ "$adapter" = "$line" ]; then
    echo "error: no adapter opens with --device $device: $(tail -n 1 "$out/open.err")" >&2
    rm -f "$report"
    exit 1
fi
rm -f "$out/open.err"
# The name up to its driver, as a file name.
slug=$(printf '%s' "${adapter%% (*}" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-*//; s/-*$//' | tr 'A-Z' 'a-z')
final=$out/${slug:-adapter}-$(date -u +%Y-%m-%d).md
finish() {
    say "" "The report took $SECONDS s."
    mv -f "$report" "$final" && echo "$final"
}

say "# ${adapter%% (*}" "" "- adapter, driver: $adapter" "- program: $("$binary" --version)" \
    "- date: $(date -u '+%Y-%m-%d %H:%M UTC')" \
    "- host: $(nproc) cores, $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)" \
    "- command: \`RADIOGRAD_REPORT_SECONDS=$limit scripts/gpu_report.sh\`; every command below was run by it, in this order"

say "" "## Adapters"
part 30 devices.txt "$binary" devices
quote devices.txt

say "" "## Proof"
part 170 gradcheck.txt "$binary" gradcheck --device "$device"
quote gradcheck.txt
if [ "$rc" != 0 ] && [ "$rc" != 124 ] && [ "$rc" != 125 ] && [ "$rc" != 137 ]; then
    say "" "The kernels are wrong on this adapter: nothing is timed."
    finish
    echo "error: gradcheck failed on $adapter: no times are taken of wrong kernels; see $final" >&2
    exit 1
fi
if [ -n "$cases" ]; then
    RADIOGRAD_REQUIRE_GPU=1 part 40 cases.txt "$cases"
    quote cases.txt
fi

say "" "## Kernels"
part 110 kernels.json "$binary" bench kernels --ladder --json --device "$device" --runs 10 --seconds 1 --svg "$out/kernels.svg"
[ "$rc" = 0 ] && tables kernels "$out/kernels.json"

say "" "## Training steps"
steps=()
step() {
    local name=$1
    shift
    part 20 "step-$name.json" "$binary" bench step "$@" --device "$device" --seconds 3 --json
    [ "$rc" = 0 ] && steps+=("$out/step-$name.json")
}
step cnn1-128 --model cnn1 --size 128 --batch 32
step cnn2-128 --model cnn2 --size 128 --batch 32
step cnn3-128 --model cnn3 --size 128 --batch 32
step cnn3-28 --model cnn3 --size 28 --batch 64
step simple-224 --model simple --size 224 --channels 3 --batch 32
[ ${#steps[@]} -gt 0 ] && tables steps "${steps[@]}"

say "" "## PyTorch on the same work"
if [ -z "$python" ] || ! timeout 60 "$python" -c 'import torch' 2>/dev/null; then
    say "" "Not run: python3 has no torch here."
elif [ ! -f "$torch_peer" ]; then
    say "" "Not run: benches/peers/torch_peer.py is not here."
else
    kind=$(timeout 60 "$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    peers=()
    part 45 torch.jsonl "$python" "$torch_peer" --device "$kind" --seconds 2
    [ -s "$out/torch.jsonl" ] && peers+=("$out/torch.jsonl")
    part 90 torch-compiled.jsonl "$python" "$torch_peer" --device "$kind" --seconds 2 --compile
    [ -s "$out/torch-compiled.jsonl" ] && peers+=("$out/torch-compiled.jsonl")
    [ ${#peers[@]} -gt 0 ] && tables peers "${steps[@]}" "${peers[@]}"
fi
finish
