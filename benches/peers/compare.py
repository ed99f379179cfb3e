#!/usr/bin/env python3
"""Runs Radiograd and its peers in turn and writes one table. Started by compare.sh; see README.md."""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = HERE / "workloads.txt"
# A command that takes longer than this counts as failed.
LIMIT = 900
# The workload whose first step is also timed with nothing cached.
COLD = "cnn3-28"
# Above this share of the machine's CPU time taken by other programs, a measurement is listed as disturbed.
DISTURBED = 0.05
WORDS = {"step": "step", "forward": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}


def arguments():
    p = argparse.ArgumentParser(description="Radiograd and its peers, in turn, in one run")
    p.add_argument("--rounds", type=int, default=2, help="times that each workload goes round all frameworks")
    p.add_argument("--runs", type=int, default=10, help="most timed runs of each, in a round")
    p.add_argument("--seconds", type=float, default=5, help="no run starts after so many seconds, once there are three")
    p.add_argument("--only", action="append", metavar="NAME", help="only this workload (may be repeated)")
    p.add_argument("--skip", action="append", default=[], metavar="FRAMEWORK", help="leave this framework out, by its column")
    p.add_argument("--no-cold", action="store_true", help="do not time first steps with empty caches")
    p.add_argument("--prefix", default="", metavar="COMMAND", help="put before each measurement, such as `taskset -c 0-1`")
    p.add_argument("--prebuilt", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=ROOT / "benches" / "results", metavar="FOLDER")
    return p.parse_args()


class Workload:
    """A line of workloads.txt."""

    def __init__(self, line):
        self.kind, self.name, self.chain, sizes = line.split()
        self.sizes = [int(s) for s in sizes.split("x")]

    def directions(self):
        return {
            "step": ["step"],
            "conv2d": ["forward", "input_grad", "weight_grad"],
            "max_pool2d": ["forward", "input_grad"],
            "matmul": ["forward"],
        }[self.kind]

    def words(self):
        if self.kind == "matmul":
            return f"matmul {self.sizes[0]}"
        c, h, w, batch = self.sizes
        shape = f"{c}x{h}x{w}, batch {batch}"
        if self.kind == "step":
            return f"{self.name.split('-')[0]} {shape}"
        return f"conv 3x3 {c}->{c}, {shape}" if self.kind == "conv2d" else f"max-pool 2x2, {shape}"


class Radiograd:
    def __init__(self, device):
        self.side, self.name = device, f"Radiograd {device}"
        self.program = os.environ["RADIOGRAD"]
        self.version, self.adapter = "", ""

    def command(self, work, args):
        budget = ["--runs", str(args.runs), "--seconds", str(int(args.seconds))]
        if work.kind == "step":
            c, h, w, batch = work.sizes
            what = ["step", "--model", work.chain, "--size", f"{h}x{w}", "--channels", str(c), "--batch", str(batch)]
        else:
            what = ["kernels", "--shapes", self.shapes(work)]
        return [self.program, "bench", *what, *budget, "--device", self.side, "--json"]

    @staticmethod
    def shapes(work):
        """The line for `radiograd bench kernels --shapes`."""
        if work.kind == "matmul":
            return "matmul " + " ".join(f"{name}={work.sizes[0]}" for name in "mkn")
        c, h, w, batch = work.sizes
        window = f"o={c} k=3 stride=1 pad=1 bias=1" if work.kind == "conv2d" else "k=2 stride=2 pad=0"
        return f"{work.kind} n={batch} c={c} h={h} w={w} {window}"

    def read(self, text, work):
        document = json.loads(text)
        self.adapter = document["device"]["name"]
        for r in document["results"]:
            if work.kind == "step":
                yield dict(direction="step", first=r["first_step_seconds"], median=r["step"]["median"], check=r["loss"])
            elif r["chosen"]:
                # The bench compares each kernel with the CPU; a wrong one makes it fail.
                yield dict(direction=r["direction"], first=None, median=r["times"]["median"], check=r["error"])


class Peer:
    """A program that prints one object a line, as the peers of this folder do."""

    def __init__(self, name, side, command, installed):
        self.name, self.side, self.start, self.installed = name, side, command, installed
        self.version = ""

    def command(self, work, args):
        budget = ["--runs", str(args.runs), "--seconds", str(args.seconds)]
        return [*self.start, "--work", str(WORK), "--only", work.name, *budget]

    def read(self, text, _):
        for line in text.splitlines():
            r = json.loads(line)
            self.version = r["version"]
            yield dict(direction=r["direction"], first=r["first"], median=statistics.median(r["seconds"]), check=r["check"])


def peers():
    built = HERE / "target" / "release"
    burn, candle, python = built / "peer-burn", built / "peer-candle", HERE / ".venv" / "bin" / "python"
    if not python.exists():
        python = Path(shutil.which("python3") or "python3")
    torch = [str(python), str(HERE / "torch_peer.py")]
    probe = "import torch; print('cpu', *['cuda'] * torch.cuda.is_available(), *['mps'] * torch.backends.mps.is_available())"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False).stdout.split()
    all_of_them = [
        Peer("Burn wgpu", "gpu", [str(burn), "--device", "wgpu"], burn.exists()),
        Peer("Burn flex", "cpu", [str(burn), "--device", "flex"], burn.exists()),
        Peer("candle", "cpu", [str(candle)], candle.exists()),
    ]
    for device in ["cpu", "cuda", "mps"]:
        side = "cpu" if device == "cpu" else "gpu"
        name = f"PyTorch {device}"
        all_of_them.append(Peer(name, side, [*torch, "--device", device], device in found))
        compiled = [*torch, "--device", device, "--compile"]
        all_of_them.append(Peer(f"{name} compiled", side, compiled, device in found))
    return [p for p in all_of_them if p.installed]


def environment(cache):
    """All caches in `cache`: tuning results, pipelines, Mesa's shaders."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MESA_SHADER_CACHE")}
    inductor = str(Path(cache) / "inductor")
    return clean | {"XDG_CACHE_HOME": str(cache), "TORCHINDUCTOR_CACHE_DIR": inductor, "NODEVICE_SELECT": "1"}


def busy():
    """CPU seconds that all programs, and that our children, have used so far; None where the system does not say."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError):
        return None
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    # user, nice, system, irq, softirq
    everybody = sum(fields[i] for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")
    return everybody, ours.ru_utime + ours.ru_stime


def measure(framework, work, args, cache):
    """The framework's figures by direction, the whole process's seconds, the share of the machine's CPU time that other
    programs took meanwhile, and what went wrong."""
    command = framework.command(work, args)
    # Burn keeps its tuning results in the target folder of the crate that it is started in, unless there is none.
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), busy()
        try:
            done = subprocess.run(
                shlex.split(args.prefix) + command,
                cwd=folder, env=environment(cache), capture_output=True, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {}, LIMIT, None, f"no end after {LIMIT} s"
        wall, after = time.perf_counter() - start, busy()
    others = None
    if before and after:
        others = (after[0] - before[0]) - (after[1] - before[1])
        others = max(0.0, others) / (wall * os.cpu_count())
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {}, wall, others, lines[-1] if lines else f"exit code {done.returncode}"
    figures = {r.pop("direction"): r for r in framework.read(done.stdout, work)}
    bad = [d for d, r in figures.items() if r["check"] is None or r["check"] != r["check"]]
    for direction in bad:
        del figures[direction]
    return figures, wall, others, f"not a finite result: {', '.join(bad)}" if bad else None


def shown(seconds):
    if seconds is None:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"


def main():
    args = arguments()
    lines = [x for x in WORK.read_text().splitlines() if x.strip() and not x.startswith("#")]
    works = [w for w in map(Workload, lines) if not args.only or w.name in args.only]
    unknown = set(args.only or []) - {w.name for w in works}
    if unknown:
        sys.exit(f"error: --only {', '.join(unknown)}: not in {WORK}")
    frameworks = [f for f in [Radiograd("gpu"), Radiograd("cpu"), *peers()] if f.name not in args.skip]
    cache = HERE / "target" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    samples, problems, cold = [], [], []
    for number in range(args.rounds):
        for work in works:
            for f in frameworks:
                if f.name.endswith("compiled") and work.kind != "step":
                    continue
                figures, wall, others, problem = measure(f, work, args, cache)
                if problem:
                    problems.append(f"{f.name}, {work.name}: {problem}")
                for direction, r in figures.items():
                    about = dict(framework=f.name, work=work.name, round=number, wall=wall, others=others)
                    samples.append(about | dict(direction=direction, **r))
                text = ", ".join(f"{WORDS[d]} {shown(r['median'])}" for d, r in figures.items())
                print(f"round {number + 1}: {work.name}: {f.name}: {text or problem} ({wall:.0f} s)", file=sys.stderr)
    if not args.no_cold:
        cold = first_steps(frameworks, args, lines)
    write(args, works, frameworks, samples, problems, cold)


def first_steps(frameworks, args, lines):
    """The first step with nothing cached, and again with what that left."""
    work = next(w for w in map(Workload, lines) if w.name == COLD)
    rows = []
    once = argparse.Namespace(**{**vars(args), "runs": 1, "seconds": 0})
    for f in frameworks:
        with tempfile.TemporaryDirectory() as cache:
            for state in ["nothing cached", "second start"]:
                figures, wall, others, problem = measure(f, work, once, cache)
                first = figures.get("step", {}).get("first")
                rows.append(dict(framework=f.name, state=state, first=first, wall=wall, others=others, problem=problem))
                print(f"{state}: {f.name}: first step {shown(first)}, process {shown(wall)}", file=sys.stderr)
    return rows


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def machine(frameworks, args):
    cpu = re.search(r"Model name:\s*(.*)", output("lscpu"))
    adapter = next((f.adapter for f in frameworks if isinstance(f, Radiograd) and f.side == "gpu"), "")
    changed = " with changes" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    versions = {f.name: f.version for f in frameworks if f.version}
    return dict(
        cpu=cpu[1] if cpu else platform.processor(),
        cores=os.cpu_count(),
        system=platform.system(),
        adapter=adapter or "none",
        radiograd="prebuilt" if args.prebuilt else output("git", "rev-parse", "--short", "HEAD") + changed,
        rustc=output("rustc", "--version"),
        versions=versions,
    )


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def write(args, works, frameworks, samples, problems, cold):
    m = machine(frameworks, args)

    def median(framework, work, direction):
        key = (framework, work, direction)
        found = [s["median"] for s in samples if (s["framework"], s["work"], s["direction"]) == key]
        return statistics.median(found) if found else None

    measured = [f for f in frameworks if any(s["framework"] == f.name for s in samples)]
    ours = [f for f in measured if isinstance(f, Radiograd)]
    # On a software adapter both executors of Radiograd run on the same cores as the CPU peers.
    software = "llvmpipe" in m["adapter"].lower() or "swiftshader" in m["adapter"].lower()
    pairs = [(p, r) for r in ours for p in measured if p not in ours and (p.side == r.side or (software and p.side == "cpu"))]
    head = ["workload"] + [f.name for f in measured] + [f"{p.name} / {r.name}" for p, r in pairs]
    rows = []
    for work in works:
        for direction in work.directions():
            row = [work.words() + ("" if direction == "step" else f", {WORDS[direction]}")]
            row += [shown(median(f.name, work.name, direction)) for f in measured]
            for p, r in pairs:
                a, b = median(p.name, work.name, direction), median(r.name, work.name, direction)
                row.append(f"{a / b:.2f}" if a and b else "-")
            rows.append(row)
    date = datetime.date.today().isoformat()
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    command = "benches/peers/compare.sh " + " ".join(shlex.quote(a) for a in sys.argv[1:] if a != "--prebuilt")
    text = [
        f"# Radiograd and its peers, {date}",
        "",
        f"- Machine: {m['cpu']}, {m['cores']} cores, {m['system']}; adapter: {m['adapter']}",
        f"- Radiograd {m['radiograd']}; {versions}; {m['rustc']}",
        f"- Command: `{command.strip()}`",
        f"- Each figure: the median of {args.rounds} rounds, and in each round the median of at most {args.runs} runs. "
        "In a round, each workload goes through all frameworks before the next one begins.",
        "- Ratios: the peer's time over Radiograd's; above 1, Radiograd is faster.",
        "",
        *table(head, rows),
    ]
    if cold:
        text += ["", f"First step of {COLD} (seconds from the program's start; the whole process for Radiograd too, "
                 "which includes the steps after the first):", ""]  # fmt: skip
        text += table(
            ["framework", "caches", "first step", "whole process"],
            [[c["framework"], c["state"], shown(c["first"]), shown(c["wall"])] for c in cold],
        )
    shares = sorted({(s["others"], s["framework"], s["work"], s["round"] + 1) for s in samples if s["others"] is not None})
    if shares:
        disturbed = [f"{f}, {w}, round {r}: {o:.0%}" for o, f, w, r in reversed(shares) if o > DISTURBED]
        middle = statistics.median(o for o, *_ in shares)
        text += ["", f"Other programs took {middle:.1%} of the machine's CPU time while a framework was measured (median)."]
        if disturbed:
            text += [f"More than {DISTURBED:.0%}, so not to be relied on:", "", *[f"- {d}" for d in disturbed]]
    if problems:
        text += ["", "Failed:", "", *[f"- {p}" for p in sorted(set(problems))]]
    slug = re.sub(r"[^a-z0-9]+", "-", m["adapter"].split(" (software")[0].lower()).strip("-")
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / f"peers-{slug}-{date}"
    document = dict(date=date, command=command, machine=m, samples=samples, cold=cold, problems=problems)
    for path, content in [(f"{stem}.md", "\n".join(text) + "\n"), (f"{stem}.json", json.dumps(document, indent=1) + "\n")]:
        Path(path + ".tmp").write_text(content, encoding="utf-8")
        os.replace(path + ".tmp", path)
    print("\n".join(text))
    print(f"written: {stem}.md and .json", file=sys.stderr)


if __name__ == "__main__":
    main()
