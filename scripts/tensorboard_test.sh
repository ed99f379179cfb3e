#!/usr/bin/env bash
# The event files of `train --tensorboard` in the real TensorBoard:
#
#   scripts/tensorboard_test.sh [BINARY]
#
# BINARY is target/release/radiograd where none is named. Makes a Python environment of its own and installs tensorboard from PyPI
# there, trains cnn1 on the phantom set for 2 epochs and goes on to 3, reads the events with TensorBoard's own EventAccumulator,
# starts the server and asks it for the same scalars over HTTP. Needs python3 with venv, and PyPI.
#
#   RADIOGRAD_TENSORBOARD_VENV  an environment that has tensorboard already, or where to make one to keep
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
binary=${1:-$here/target/release/radiograd}
[ -x "$binary" ] || { echo "error: $binary: no such program; build it with cargo build --release" >&2; exit 1; }
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

venv=${RADIOGRAD_TENSORBOARD_VENV:-$work/venv}
if ! "$venv/bin/python" -c 'import tensorboard' 2>/dev/null; then
    python3 -m venv "$venv"
    # TensorBoard asks setuptools for pkg_resources, which its newest versions no longer have.
    "$venv/bin/pip" install --quiet --disable-pip-version-check tensorboard 'setuptools<81'
fi
export NODEVICE_SELECT=1
train() { "$binary" train --quiet --device cpu --data phantom --model cnn1 --size 32 --out "$work/run" "$@" >/dev/null; }
train --epochs 2 --tensorboard
cp "$work/run/metrics.jsonl" "$work/two.jsonl"
train --epochs 3 --tensorboard --resume

"$venv/bin/python" -m tensorboard.main --logdir "$work/run" --host 127.0.0.1 --port 0 >"$work/server.log" 2>&1 &
server=$!
"$venv/bin/python" - "$work" <<'PY'
import json, math, pathlib, re, sys, time, urllib.parse, urllib.request
from importlib.metadata import version
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

work = pathlib.Path(sys.argv[1])
run = work / "run"
epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
assert len(epochs) == 3, epochs
assert len(list((run / "tensorboard").iterdir())) == 2, "one file for each start"
tags = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "val_accuracy",
    "learning_rate": "learning_rate",
    "seconds": "seconds",
}


def same(points, key, where):
    steps = [step for step, _ in points]
    assert steps == [1, 2, 3], f"{where}: steps {steps}"
    for (step, value), row in zip(points, epochs):
        # Event files hold float32.
        assert math.isclose(value, row[key], rel_tol=1e-6, abs_tol=1e-30), f"{where}: epoch {step}: {value} against {row[key]}"


events = EventAccumulator(str(run / "tensorboard"))
events.Reload()
assert sorted(events.Tags()["scalars"]) == sorted(tags), events.Tags()
for tag, key in tags.items():
    same([(e.step, e.value) for e in events.Scalars(tag)], key, f"EventAccumulator, {tag}")

base = None
for _ in range(120):
    found = re.search(r"http://127\.0\.0\.1:\d+", (work / "server.log").read_text())
    if found:
        base = found.group(0)
        break
    time.sleep(0.5)
assert base, "the server did not start: " + (work / "server.log").read_text()


def get(path):
    with urllib.request.urlopen(f"{base}/{path}", timeout=30) as answer:
        return json.load(answer)


listed = {}
for _ in range(120):
    listed = get("data/plugin/scalars/tags")
    if listed.get("tensorboard") and len(listed["tensorboard"]) == len(tags):
        break
    time.sleep(0.5)
assert sorted(listed.get("tensorboard", {})) == sorted(tags), listed
for tag, key in tags.items():
    query = urllib.parse.urlencode({"tag": tag, "run": "tensorboard"})
    same([(step, value) for _, step, value in get(f"data/plugin/scalars/scalars?{query}")], key, f"HTTP, {tag}")
print(f"TensorBoard {version('tensorboard')}: {len(tags)} scalars of 3 epochs, read from the files and served over HTTP, are those of metrics.jsonl")
PY
