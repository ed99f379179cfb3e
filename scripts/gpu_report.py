"""Markdown tables for scripts/gpu_report.sh: `gpu_report.py kernels|steps|peers FILE...`, from the JSON of `radiograd bench`
(`step-NAME.json`, `kernels.json`) and the lines of benches/peers/torch_peer.py (`*.jsonl`)."""

import json
import os
import statistics
import sys


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def seconds(s):
    if s is None:
        return "-"
    for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if s * scale >= 1 or unit == "us":
            return f"{s * scale:.3g} {unit}"


def giga(x):
    return "-" if x is None else f"{x * 1e-9:.4g}"


def median(times):
    return times["median"] if times else None


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def step_name(path):
    return os.path.basename(path).removeprefix("step-").removesuffix(".json")


def kernels(paths):
    """Every scalar of a result that is there: the columns are the document's own."""
    for path in paths:
        document = load(path)
        results = document["results"]
        for key, value in document.items():
            if key not in ("device", "results"):
                print(f"- {key}: `{json.dumps(value)}`")
        drop = {"flops", "bytes", "correct", "gpu_timestamps"}
        heads = [k for k, v in results[0].items() if not isinstance(v, (list, dict)) and k not in drop] if results else []
        rows = []
        for r in results:
            cells = [f"{v:.4g}" if isinstance(v, float) else v for v in (r.get(h) for h in heads)]
            rows.append(cells + [seconds(median(r.get("times"))), f"{r['times']['spread']:.0%}" if r.get("times") else "-"])
        print(table(heads + ["median", "spread"], rows))


def steps(paths):
    heads = ["step", "median", "device", "host", "upload", "encode", "submit", "read back", "images/s", "GFLOP/s"]
    heads += ["first step", "peak memory, MiB", "peak / bound", "loss"]
    rows = []
    for path in paths:
        for r in load(path)["results"]:
            parts, memory = r.get("host_parts") or {}, r.get("memory")
            row = [step_name(path), seconds(r["step"]["median"]), seconds(median(r.get("device")))]
            row += [seconds(median(r.get("host")))] + [seconds(parts.get(p)) for p in ("upload", "encode", "submit")]
            row += [seconds(r["read_back"]["median"]), f"{r['images_per_second']:.0f}", giga(r["flops_per_second"])]
            row += [seconds(r["first_step_seconds"])]
            row += [f"{memory['peak'] / 2**20:.1f}", f"{memory['ratio']:.3f}"] if memory else ["-", "-"]
            rows.append(row + [f"{r['loss']:.4f}"])
    print(table(heads, rows))


def peers(paths):
    """A row for each work of PyTorch's, with our step of the same name beside it."""
    own = {step_name(p): load(p)["results"][0] for p in paths if p.endswith(".json")}
    rows = []
    for path in (p for p in paths if p.endswith(".jsonl")):
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.startswith("{")]
        for r in lines:
            theirs, ours = statistics.median(r["seconds"]), None
            if r["direction"] == "step" and r["name"] in own:
                ours = own[r["name"]]["step"]["median"]
            ratio = f"{theirs / ours:.2f}" if ours else "-"
            framework = f"{r['framework']} {r['version']}"
            rows.append([r["name"], r["direction"], framework, seconds(theirs), seconds(ours), ratio])
    print(table(["work", "direction", "peer", "peer's median", "radiograd's median", "peer / radiograd"], rows))


if __name__ == "__main__":
    {"kernels": kernels, "steps": steps, "peers": peers}[sys.argv[1]](sys.argv[2:])
