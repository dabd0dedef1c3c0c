"""Many processes: ``python -m bench.scaling`` measures torchrun on two CPU ranks against one.

One thread and the same batch per rank, so that two ranks do twice the work; the gradients are summed by
DistributedDataParallel over gloo. Writes scaling.json. ``paper_table`` is the arithmetic for 8 and 64 GPUs: counts of
this code and named assumptions, nothing measured.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench import results
from bench.cases import ModelCase, model_cases
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.train.place import run_place

FILE = results.FOLDER / "scaling.json"
BATCHES = {"pkd": 32, "htnet": 64, "gcndiff": 32, "rie": 16, "strided_transformer": 4}  # per rank
# Assumptions of the arithmetic, from the vendor's data sheets: H100 SXM, NVLink within 8, one 400 Gb/s port per GPU.
TF32, SHARE = 494e12, 0.3  # FLOP/s of the matrix units, and the share of it that a step keeps busy
LINKS = {8: 450e9, 64: 50e9}  # bytes/s out of one GPU


def case_of(name: str) -> ModelCase:
    return next(c for c in model_cases() if c.model == name)


class Step(nn.Module):
    """The losses of one iteration as a module's forward, which is where DistributedDataParallel hooks in."""

    def __init__(self, case: ModelCase, net: nn.Module):
        super().__init__()
        self.net, self.case = net, case

    def forward(self, index: int, inputs):
        return self.case.losses[index](self.net, inputs)


def work(name: str, batch: int, iterations: int) -> dict:
    """One rank: median seconds of an iteration, and of summing the gradients alone."""
    torch.set_num_threads(1)
    case, world = case_of(name), int(os.environ.get("WORLD_SIZE", 1))
    with run_place("cpu") as place:
        torch.manual_seed(0)
        net = case.make().train()
        inputs = case.inputs(batch)
        step = Step(case, net)
        step = DistributedDataParallel(step, find_unused_parameters=True) if world > 1 else step
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
        seconds, gradients = [], torch.zeros(sum(p.numel() for p in net.parameters()))
        for _ in range(iterations + 2):
            place.gather(None)
            start = time.perf_counter()
            for index in range(len(case.losses)):
                optimizer.zero_grad(set_to_none=True)
                step(index, inputs).backward()
                optimizer.step()
            seconds.append(time.perf_counter() - start)
        sums = []
        for _ in range(10 if world > 1 else 0):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(gradients)
            sums.append(time.perf_counter() - start)
        own = {"iteration": statistics.median(seconds[2:]), "sum": statistics.median(sums) if sums else 0.0}
        return max(place.gather(own), key=lambda r: r["iteration"])


def launched(ranks: int, name: str, batch: int, iterations: int) -> dict:
    """``work`` on that many processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command += ["-m", "bench.scaling", "--rank-of", name, "--batch", str(batch), "--iterations", str(iterations)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"torchrun on {ranks} ranks: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return json.loads(out.read_text())


def measured_table() -> str:
    """Of the committed file."""
    if not FILE.is_file():
        return "Not measured yet: `python -m bench.scaling`."
    document = json.loads(FILE.read_text())
    head = "| network | batch per rank | 1 rank, s | 2 ranks, s | throughput | gradients, MB | summing them alone, s |"
    lines = [f"{document['machine']['device']}, one thread per rank, {document['machine']['time']}:", ""]
    lines += [head, "|" + "---|" * 7]
    for name, r in document["networks"].items():
        one, two = r["ranks"]["1"]["iteration"], r["ranks"]["2"]["iteration"]
        lines.append(
            f"| {name} | {r['batch']} | {one:.3f} | {two:.3f} | {2 * one / two:.2f}x | {r['megabytes']:.1f} | "
            f"{r['ranks']['2']['sum']:.4f} |"
        )
    return "\n".join(lines)


@functools.cache
def _parameters(name: str) -> int:
    return sum(p.numel() for p in case_of(name).make().parameters() if p.requires_grad)


def paper_table() -> str:
    """All-reduce bytes per step against step time, on paper."""
    head = "| network | batch per GPU | gradients, MB | step, ms "
    lines = [head + "".join(f"| {n} GPUs: bytes out of each, MB | time, ms | hidden by the step " for n in LINKS) + "|"]
    lines.append("|" + "---|" * (4 + 3 * len(LINKS)))
    for case in model_cases():
        if not case.training_batch:
            continue
        gradients, batch = 4 * _parameters(case.model) * len(case.losses), case.training_batch
        step = 3 * len(case.losses) * case.flops(batch) / (TF32 * SHARE)
        cells = [case.model, str(batch), f"{gradients / 1e6:.1f}", f"{1e3 * step:.2f}"]
        for n, link in LINKS.items():
            sent = 2 * (n - 1) / n * gradients
            cells += [f"{sent / 1e6:.1f}", f"{1e3 * sent / link:.2f}", "yes" if sent / link < step / 2 else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=BATCHES, help="only this network (repeatable)")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE.json")
    parser.add_argument("--batch", type=int, help="per rank, instead of each network's own")
    parser.add_argument("--rank-of", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rank_of:
        result = work(args.rank_of, args.batch, args.iterations)
        if os.environ.get("RANK", "0") == "0":
            args.out.write_text(json.dumps(result))
        return 0
    document = {"machine": results.machine("cpu", ["python -m bench.scaling"]), "networks": {}}
    document["machine"]["threads"] = "1 per rank"
    for name in args.model or BATCHES:
        batch = args.batch or BATCHES[name]
        ranks = {str(n): launched(n, name, batch, args.iterations) for n in (1, 2)}
        document["networks"][name] = {"batch": batch, "megabytes": 4 * _parameters(name) / 1e6, "ranks": ranks}
        one, two = ranks["1"]["iteration"], ranks["2"]["iteration"]
        print(f"{name}: {one:.3f} s on one rank, {two:.3f} s on two: {2 * one / two:.2f}x the throughput", flush=True)
        with write_aside(args.out) as path:
            path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
