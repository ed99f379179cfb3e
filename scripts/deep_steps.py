#!/usr/bin/env python3
"""Training steps of deep networks at 224x224, in Radiograd and in PyTorch, in one run: seconds, memory, time until the first step.
`scripts/deep_steps.sh` calls it; the table goes to standard output.

    deep_steps.py RADIOGRAD [--device gpu] [--runs 5] [--only resnet34]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

WORK = [("resnet34", 8), ("densenet161", 4)]
SIZE = 224
WARM_UP = 1

PEER = """
import json, sys, time
import torch, torchvision
name, batch, size, runs, warm = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(0)
net = getattr(torchvision.models, name)(num_classes=2).train()
adam = torch.optim.Adam(net.parameters(), lr=1e-4)
x, y = torch.randn(batch, 3, size, size), torch.randint(0, 2, (batch,))
seconds = []
for _ in range(warm + runs):
    start = time.perf_counter()
    adam.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    adam.step()
    loss.item()
    seconds.append(time.perf_counter() - start)
print(json.dumps(dict(version=torch.__version__, seconds=seconds)))
"""


def child(command, env=None):
    """Standard output of a command, and the most memory that it held at once in MiB."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"error: {' '.join(command[:6])} failed:\n{said.decode(errors='replace')[-2000:]}")
        out.seek(0)
        return out.read().decode(), used.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description="Training steps of deep networks, beside PyTorch")
    p.add_argument("radiograd", help="the program")
    p.add_argument("--device", default="gpu", help="gpu, gpu:N or cpu")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--only", metavar="NAME")
    args = p.parse_args()

    print(f"{args.runs} steps each, medians; {time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores")
    print("| network, batch | program | step | least | most | first step, nothing cached | first step, second start | most memory of the process | peak on the device |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, batch in WORK:
        if args.only not in (None, name):
            continue

        def row(program, seconds, first, second, rss, device, batch=batch, name=name):
            numbers = [statistics.median(seconds), min(seconds), max(seconds)]
            cells = [f"{n:.2f} s" for n in numbers] + [first, second, f"{rss:.0f} MiB", device]
            print(f"| {name}, {batch} | {program} | " + " | ".join(cells) + " |", flush=True)
            return numbers[0]

        out, rss = child([sys.executable, "-c", PEER, name, str(batch), str(SIZE), str(args.runs), str(WARM_UP)])
        peer = json.loads(out)
        seconds = peer["seconds"]
        theirs = row(f"PyTorch {peer['version']}, CPU", seconds[WARM_UP:], f"{seconds[0]:.1f} s", "", rss, "")
        for more in ([], ["--recompute"]):
            with tempfile.TemporaryDirectory() as cache:
                caches = dict(RADIOGRAD_CACHE=f"{cache}/r", MESA_SHADER_CACHE_DIR=f"{cache}/mesa", XDG_CACHE_HOME=cache)
                command = [args.radiograd, "bench", "step", "--device", args.device, "--model", name, "--size", str(SIZE)]
                command += ["--channels", "3", "--batch", str(batch), "--no-tune", "--json", "--quiet", *more]
                # The first start compiles, the second finds what the first one left.
                out, _ = child([*command, "--runs", "1", "--seconds", "0"], caches)
                cold = json.loads(out)["results"][0]
                # One run alone goes without the two that warm up.
                seconds = "0" if args.runs == 1 else "600"
                out, rss = child([*command, "--runs", str(args.runs), "--seconds", seconds], caches)
            report = json.loads(out)
            result, step = report["results"][0], report["results"][0]["step"]
            memory = result["memory"]
            peak = f"{memory['peak'] / 2**20:.0f} MiB" if memory else ""
            first = [f"{r['first_step_seconds']:.1f} s" for r in (cold, result)]
            ours = row(
                f"Radiograd, {report['device']['name']}{', recomputed' if more else ''}",
                [step["min"], step["median"], step["max"]], *first, rss, peak,
            )
            print(f"{name}{' '.join(more)}: {ours / theirs:.2f} times PyTorch's step", file=sys.stderr)


if __name__ == "__main__":
    main()
