#!/usr/bin/env bash
# Kills a search ten times at random moments, finishes it, and counts: every trial must be there exactly once, and the table must
# be that of a search nobody disturbed.
#
#   scripts/search_kill_test.sh DATA [GRID.toml TRIALS]
#
# Without a grid it takes experiments/dense_216.toml. RADIOGRAD names the program, KILLS how often it is killed.
set -euo pipefail
cd "$(dirname "$0")/.."
radiograd=${RADIOGRAD:-./target/release/radiograd}
data=${1:?usage: $0 DATA [GRID.toml TRIALS]} grid=${2:-experiments/dense_216.toml} trials=${3:-216} kills=${KILLS:-10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
search=("$radiograd" search "$grid" --data "$data" --device cpu --quiet)

begin=$(date +%s.%N)
"${search[@]}" --out "$work/whole" >"$work/whole.txt"
seconds=$(echo "$(date +%s.%N) $begin" | awk '{ printf "%.1f", $1 - $2 }')
echo "undisturbed: $trials trials and the best one refitted in $seconds s"

journal=$work/killed/trials.jsonl
for kill in $(seq "$kills"); do
    "${search[@]}" --out "$work/killed" >"$work/killed.txt" 2>&1 &
    pid=$!
    # All kills together fall into about the time that the search takes.
    sleep "$(awk -v s="$seconds" -v n="$kills" -v r="$RANDOM" 'BEGIN { printf "%.3f", 0.2 + r / 32768 * 1.6 * s / n }')"
    if ! kill -9 "$pid" 2>/dev/null; then
        echo "the search had ended before kill $kill"
        break
    fi
    wait "$pid" 2>/dev/null || true
    echo "kill $kill: $(wc -l <"$journal" 2>/dev/null || echo 0) trials in the journal"
done
"${search[@]}" --out "$work/killed" >"$work/killed.txt"

lines=$(wc -l <"$journal")
distinct=$(grep -o '^{"id":"[0-9a-f]*"' "$journal" | sort -u | wc -l)
table=$(tail -n +2 "$work/killed/results.csv" | wc -l)
echo "journal: $lines lines, $distinct distinct trials; results.csv: $table trials; wanted: $trials"
[ "$lines" = "$trials" ] && [ "$distinct" = "$trials" ] && [ "$table" = "$trials" ]

# Wall times differ from run to run, nothing else may.
without_seconds() { awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "seconds") s = i } { $s = ""; print }' "$1"; }
diff <(without_seconds "$work/whole/results.csv") <(without_seconds "$work/killed/results.csv")
cmp "$work/whole/best/best.safetensors" "$work/killed/best/best.safetensors"
echo "passed: the table and the best weights are those of the undisturbed search"
