#!/usr/bin/env python3
"""PyTorch's side of the comparison: training steps and kernels, one JSON object a line. See README.md.

    torch_peer.py [--device cpu|cuda|mps] [--compile] [--work FILE] [--only NAME] [--runs N] [--seconds S] [--threads N]
"""

import argparse
import json
import math
import os
import re
import time

START = time.perf_counter()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

RATE = 1e-4  # the same as `radiograd bench step`
BATCHES = 4  # batches that the steps take in turn
WARM_UP = 2  # runs after the first that are not timed


def arguments():
    p = argparse.ArgumentParser(description="Training steps and kernels in PyTorch, one JSON object a line")
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    p.add_argument("--compile", action="store_true", help="torch.compile the network (steps only)")
    p.add_argument("--work", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "workloads.txt"))
    p.add_argument("--only", metavar="NAME", help="one workload")
    p.add_argument("--runs", type=int, default=30, help="most timed runs of each")
    p.add_argument("--seconds", type=float, default=5.0, help="no run starts after so many seconds, once there are three")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    return p.parse_args()


def workloads(path):
    """(kind, name, chain, sizes) for each line."""
    for line in open(path, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            kind, name, chain, sizes = line.split()
            yield kind, name, chain, [int(s) for s in sizes.split("x")]


def network(chain, c, h, w):
    """The chain of layers for images of c x h x w, from Radiograd's text of networks."""
    layers = []
    for text in chain.split("-"):
        conv = re.fullmatch(r"conv(\d+)(?:k(\d+))?(?:p(\d+))?", text)
        dense = re.fullmatch(r"dense(\d+)", text)
        if conv:
            k = int(conv[2] or 3)
            p = int(conv[3]) if conv[3] else (k - 1) // 2
            layers.append(nn.Conv2d(c, int(conv[1]), k, padding=p))
            c, h, w = int(conv[1]), h + 2 * p + 1 - k, w + 2 * p + 1 - k
        elif dense:
            layers.append(nn.Linear(c, int(dense[1])))
            c = int(dense[1])
        elif text == "pool":
            layers.append(nn.MaxPool2d(2))
            h, w = h // 2, w // 2
        elif text == "flatten":
            layers.append(nn.Flatten())
            c, h, w = c * h * w, 1, 1
        elif text == "relu":
            layers.append(nn.ReLU())
        elif text == "dropout":
            layers.append(nn.Dropout(0.5))
        else:
            raise SystemExit(f"error: {chain}: cannot read the layer {text!r}")
    return nn.Sequential(*layers)


class Bench:
    def __init__(self, args):
        self.args = args
        self.device = torch.device(args.device)
        self.framework = f"torch {args.device}" + (" compiled" if args.compile else "")

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def measure(self, name, direction, f, check, start=None):
        """Prints one line. `check` gives the loss, or the mean of the result, from what f gave last."""
        start = time.perf_counter() if start is None else start
        result = f()
        self.wait()
        first = time.perf_counter() - start
        for _ in range(WARM_UP):
            f()
        self.wait()
        seconds, begin = [], time.perf_counter()
        while True:
            run = time.perf_counter()
            result = f()
            self.wait()
            seconds.append(time.perf_counter() - run)
            spent = time.perf_counter() - begin >= self.args.seconds
            if len(seconds) >= self.args.runs or (spent and (len(seconds) >= 3 or len(seconds) == 1)):
                break
        value = float(check(result))
        line = dict(framework=self.framework, version=torch.__version__, name=name, direction=direction, first=first)
        print(json.dumps(dict(line, seconds=seconds, check=value if math.isfinite(value) else None)), flush=True)

    def normal(self, *shape):
        return torch.randn(*shape).to(self.device)

    def step(self, name, chain, sizes, start):
        c, h, w, batch = sizes
        net = network(chain, c, h, w).to(self.device).train()
        run = torch.compile(net) if self.args.compile else net
        adam = torch.optim.Adam(net.parameters(), lr=RATE)
        data = [(self.normal(batch, c, h, w), torch.randint(0, 2, (batch,)).to(self.device)) for _ in range(BATCHES)]
        number = 0

        def one():
            nonlocal number
            x, y = data[number % BATCHES]
            number += 1
            adam.zero_grad()
            loss = F.cross_entropy(run(x), y)
            loss.backward()
            adam.step()
            self.wait()
            return loss.item()

        self.measure(name, "step", one, lambda loss: loss, start)

    @torch.no_grad()
    def conv2d(self, name, sizes):
        c, h, w, batch = sizes
        x, weight, bias = self.normal(batch, c, h, w), self.normal(c, c, 3, 3), self.normal(c)
        dy = self.normal(batch, c, h, w)
        self.measure(name, "forward", lambda: F.conv2d(x, weight, bias, padding=1), torch.mean)
        for i, direction in enumerate(["input_grad", "weight_grad"]):
            mask = [i == 0, i == 1, False]

            def back(mask=mask):
                one = [1, 1]
                return torch.ops.aten.convolution_backward(dy, x, weight, [c], one, one, one, False, [0, 0], 1, mask)

            self.measure(name, direction, back, lambda grads, i=i: grads[i].mean())

    @torch.no_grad()
    def max_pool2d(self, name, sizes):
        c, h, w, batch = sizes
        x, dy = self.normal(batch, c, h, w), self.normal(batch, c, h // 2, w // 2)
        # Training needs the positions too.
        forward = lambda: F.max_pool2d(x, 2, return_indices=True)  # noqa: E731
        self.measure(name, "forward", forward, lambda result: result[0].mean())
        indices = forward()[1]
        two = [2, 2]

        def back():
            return torch.ops.aten.max_pool2d_with_indices_backward(dy, x, two, two, [0, 0], [1, 1], False, indices)

        self.measure(name, "input_grad", back, torch.mean)

    @torch.no_grad()
    def matmul(self, name, sizes):
        a, b = self.normal(*sizes * 2), self.normal(*sizes * 2)
        self.measure(name, "forward", lambda: a @ b, torch.mean)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # Full f32 everywhere: what the others compute.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bench, start = Bench(args), START
    for kind, name, chain, sizes in workloads(args.work):
        if args.only not in (None, name):
            continue
        if kind == "step":
            bench.step(name, chain, sizes, start)
        elif not args.compile:
            getattr(bench, kind)(name, sizes)
        start = time.perf_counter()


if __name__ == "__main__":
    main()
