#!/usr/bin/env bash
# The search under a real Slurm: installs Debian's packages, starts a cluster of this one machine, submits an array of four
# shards, kills one on the way and requeues it, joins the journals, and counts the trials. It needs root and apt, no systemd, and
# leaves nothing but the packages behind.
#
#   scripts/slurm/test.sh                                        a reduced grid on the phantom set, about two minutes
#   scripts/slurm/test.sh experiments/dense_216.toml DATA 216    a grid with its number of trials
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
radiograd=${RADIOGRAD:-$root/target/release/radiograd}
[ "$(id -u)" = 0 ] || { echo "error: run this as root: it starts Slurm's daemons" >&2; exit 1; }
[ -x "$radiograd" ] || { echo "error: $radiograd is missing: cargo build --release, or name it in RADIOGRAD" >&2; exit 1; }
if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurm-wlm munge
fi

work=$(mktemp -d)
chmod 755 "$work"
daemons=()
finish() {
    status=$?
    scancel --quiet --user root 2>/dev/null || true
    for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$status" != 0 ]; then
        tail -n 20 "$work"/*.log "$work"/*.out 2>/dev/null >&2 || true
        echo "error: the test failed with status $status; its files are in $work" >&2
    else
        rm -rf "$work"
    fi
}
trap finish EXIT

# Munge with a key and a socket of its own, so that a cluster that is there stays as it is.
mkdir -p "$work/munge" "$work/state" "$work/spool"
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chown -R munge "$work/munge"
chmod 711 "$work/munge"
chmod 400 "$work/munge/key"
setpriv --reuid=munge --regid=munge --clear-groups munged --foreground --socket="$work/munge/socket" \
    --key-file="$work/munge/key" --pid-file="$work/munge/pid" --seed-file="$work/munge/seed" \
    --log-file="$work/munge/log" >"$work/munged.log" 2>&1 &
daemons+=($!)

host=$(hostname -s)
cpus=$(nproc)
cat >"$work/slurm.conf" <<CONF
ClusterName=radiograd
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
JobRequeue=1
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$work/slurm.conf"
for _ in $(seq 50); do [ -S "$work/munge/socket" ] && break; sleep 0.1; done
slurmctld -D >"$work/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D >"$work/slurmd.log" 2>&1 &
daemons+=($!)
for _ in $(seq 60); do sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

grid=${1:-} data=${2:-} trials=${3:-}
if [ -z "$grid" ]; then
    grid=$work/grid.toml data=phantom trials=48
    cat >"$grid" <<'GRID'
[base]
size = 32
epochs = 8
model = "flatten-dense{units}-{activation}-dropout{dropout}-dense2"
[grid]
optimizer = ["adam", "sgd"]
lr = [0.001, 0.01]
[vars]
units = [12, 20]
activation = ["relu", "elu"]
dropout = [0.1, 0.25, 0.5]
GRID
else
    grid=$(realpath "$grid")
    [ "$data" = phantom ] || data=$(realpath "$data")
fi
out=$work/search
export RADIOGRAD=$radiograd
job=$(cd "$work" && sbatch --parsable --cpus-per-task=1 --output="$work/shard-%a.out" \
    "$root/scripts/slurm/search.sbatch" "$grid" "$data" "$out" --device cpu)
echo "array $job: four shards of $trials trials"

# One shard is killed hard in the middle of its work and then requeued.
victim=$out/trials-1-of-4.jsonl
for _ in $(seq 600); do [ "$(wc -l 2>/dev/null <"$victim" || echo 0)" -ge 2 ] && break; sleep 0.1; done
before=$(wc -l <"$victim")
[ "$before" -ge 2 ] || { echo "error: shard 1 has finished nothing" >&2; exit 1; }
scancel --signal=KILL --full "${job}_1"
for _ in $(seq 100); do [ -z "$(squeue --noheader --jobs="${job}_1" --states=RUNNING,COMPLETING 2>/dev/null)" ] && break; sleep 0.1; done
scontrol requeue "${job}_1"
echo "shard 1 was killed after $before trials and requeued"
if "$radiograd" search merge "$out" --quiet 2>"$work/merge.log"; then
    echo "error: a search with missing trials was merged" >&2
    exit 1
fi
cat "$work/merge.log"

for _ in $(seq 1800); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 1; done
scontrol show job "${job}_1" | grep -E "JobState|Restarts|ExitCode" | sed 's/^ */  /'
scontrol show job "${job}_1" | grep -q "Restarts=1" || { echo "error: shard 1 was not requeued" >&2; exit 1; }
"$radiograd" search merge "$out" --quiet | tail -n 3
lines=$(cat "$out"/trials-?-of-4.jsonl | wc -l)
distinct=$(cat "$out"/trials-?-of-4.jsonl | grep -o '"id":"[0-9a-f]*"' | sort -u | wc -l)
table=$(tail -n +2 "$out/results.csv" | wc -l)
echo "journals: $lines lines, $distinct distinct trials; results.csv: $table trials; wanted: $trials"
[ "$lines" = "$trials" ] && [ "$distinct" = "$trials" ] && [ "$table" = "$trials" ]
echo "passed"
