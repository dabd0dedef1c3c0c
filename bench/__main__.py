"""``python -m bench``: the kernels against eager, ``torch.compile`` and ONNX Runtime, each row checked first."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

import torch

from bench import against, conditions, data, plan
from bench.cases import model_cases, op_cases
from bench.measure import Device, peaks
from bench.memory import peak_mb
from bench.peers import SESSIONS
from bench.report import present
from bench.results import Results, machine
from bench.suite import COMPILED_GRAPH, PRECISIONS, Row, measured
from posekernels.checks import nearest
from posekernels.cli import Parser, run_cli

SHORT = {"bf16": "bfloat16", "fp16": "float16"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m bench", description=__doc__)
    parser.add_argument("--op", action="append", help="only this op (repeatable)")
    parser.add_argument("--model", action="append", help="only this network (repeatable)")
    parser.add_argument("--part", action="append", choices=plan.PARTS, help="only this part (repeatable)")
    parser.add_argument("--backend", action="append", help="only this backend (repeatable); default: all here")
    parser.add_argument("--batch", type=int, action="append", help="batches of the networks instead of each one's own")
    parser.add_argument(
        "--dtype",
        choices=[*PRECISIONS, *SHORT],
        action="append",
        help="only this precision (repeatable); default: float32 and what each case names",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, no torch.compile nor memory of ops: minutes"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--max-autotune", action="store_true", help="torch.compile in max-autotune mode too")
    parser.add_argument("--no-onnx", action="store_true", help="leave ONNX Runtime and OpenVINO out")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--busy", action="store_true", help="with a spinning program on every core beside")
    load.add_argument("--quota", type=float, metavar="SHARE", help="with SHARE processors' time, by a control group")
    parser.add_argument("--budget", type=float, help="seconds per unit, roughly (default 3; quick: 0.3)")
    parser.add_argument("--against", metavar="REV", help="compare with another commit, built in a folder of its own")
    parser.add_argument("--cmu", metavar="DIR", type=Path, help="time opening this CMU text set, parsed and cached")
    parser.add_argument("--out", type=Path, help="folder of the result file, NAME.json, .csv, .md and .png")
    parser.add_argument("--rows-only", action="store_true", help="no NAME.csv, .md and .png (python -m bench.report)")
    parser.add_argument("--name", help="NAME; rows already there stay, those measured again are replaced")
    parser.add_argument("--dry-run", action="store_true", help="list the units and about how long they take")
    parser.add_argument("--resume", default="0", help=argparse.SUPPRESS)  # of a run whose card was lost: UNIT[:WAY...]
    args = parser.parse_args(argv)
    for kind, known in {"op": {c.op for c in op_cases()}, "model": {c.model for c in model_cases()}}.items():
        for name in getattr(args, kind) or ():
            if name not in known:
                raise ValueError(
                    f"--{kind} {name}: no such benchmark{nearest(name, known)} (there are: {', '.join(sorted(known))})"
                )
    args.dtype = [SHORT.get(name, name) for name in args.dtype or ()]
    args.budget = args.budget or (0.3 if args.quick else 3.0)
    load = "-busy" if args.busy else "-quota" if args.quota is not None else ""
    args.name = args.name or ("cpu" if args.device == "cpu" else "gpu") + load
    return args


def ways_of(unit, args: argparse.Namespace) -> list[str]:
    """What one unit is computed with."""
    compiled = ["torch.compile", *([COMPILED_GRAPH] if args.device.startswith("cuda") else [])]
    compiled += ["max-autotune"] * args.max_autotune
    compiled = [] if args.quick or args.no_compile else compiled
    skipped = set(SESSIONS) if args.no_onnx or (args.quick and unit.what not in QUICK_ONNX) else set()
    return [w for w in unit.ways(args.backend or [], compiled) if w not in skipped]


QUICK_ONNX = ("htnet", "pkd")  # an export takes seconds


def show(row: Row) -> None:
    timed = f"{row.median_us:>12,.1f} us" if row.median_us else f"rejected: {row.rejected}"
    ratio = f"  {row.vs_eager:.2f}x eager" if row.vs_eager else ""
    held = f"  {row.peak_mb:,.1f} MB" if row.peak_mb is not None else ""
    print(f"{row.what:<22} {row.size:<34} {row.pass_:<17} {row.dtype:<9} {row.contender:<14} {timed}{ratio}{held}")
    sys.stdout.flush()


def resume_in_a_new_process(argv: list[str], number: int, without: set[str], rows: list[Row]) -> None:
    """Go on at a unit, in this process's place: after a bad access no kernel runs in it any more.

    Args:
        number, without: the unit whose kernel it was, and the ways of it that are known to fail.
        rows: of the unit.
    """
    failed = without | {row.contender for row in rows if row.rejected and row.contender not in without}
    if failed == without or any(row.median_us for row in rows):  # not clear whose fault it is
        number, failed = number + 1, set()
    print(f"the card is lost to this process: another goes on at unit {number + 1}", flush=True)
    given = list(argv)
    if "--resume" in given:
        del given[given.index("--resume") : given.index("--resume") + 2]
    given += ["--resume", ":".join([str(number), *sorted(failed)])]
    os.execv(sys.executable, [sys.executable, "-m", "bench", *given])


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with contextlib.ExitStack() as stack:
        load = ""
        if args.busy:
            load = stack.enter_context(conditions.busy())
        elif args.quota is not None:
            load = stack.enter_context(conditions.quota(args.quota))
        return run(args, argv, load)


def run(args: argparse.Namespace, argv: list[str] | None, load: str) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    units = plan.units(
        args.device,
        ops=args.op,
        networks=args.model,
        parts=args.part,
        precisions=args.dtype,
        batches=args.batch,
        quick=args.quick,
    )
    if args.cmu and not (args.op or args.model):
        units = []
    chosen = [(u, ways_of(u, args)) for u in units]
    memory = [not args.no_memory and not (args.quick and u.network is None) for u, _ in chosen]
    expected = [plan.seconds(u, w, args.budget, m) for (u, w), m in zip(chosen, memory)]
    if args.dry_run:
        for (unit, ways), seconds in zip(chosen, expected):
            print(f"{seconds:>6.1f} s  {unit}  ({', '.join(ways)})")
        print(f"{len(chosen)} units, about {plan.minutes(sum(expected))} on two cores")
        return 0
    facts = machine(args.device, ["python -m bench", *(sys.argv[1:] if argv is None else argv)]) | {"load": load}
    results = Results(args.out / f"{args.name}.json") if args.out else None
    if args.against:
        return against.compare(args.against, [u for u, _ in chosen], args.budget, args.out)
    start, device, peak = time.monotonic(), Device(args.device), {}

    def keep(rows: list[Row]) -> None:
        for row in rows:
            show(row)
        if results:
            results.add(rows, facts)

    if args.cmu:
        keep(data.cmu_rows(args.cmu))
    first, *failed = args.resume.split(":")
    for number, ((unit, ways), held) in enumerate(zip(chosen, memory)):
        if number < int(first):
            continue
        without = set(failed) if number == int(first) else set()
        precision = unit.precision
        if precision.name not in peak:
            with precision.applied():
                flops, copy = peak[precision.name] = peaks(device, precision.dtype)
            facts.setdefault("peaks", {})[precision.name] = [flops, copy]
            print(f"this machine: {flops / 1e9:,.0f} GFLOP/s in {precision.name}, copy {copy / 1e9:,.1f} GB/s")
        ways = [way for way in ways if way not in without]
        rows = measured(unit, ways, args.budget, peak[precision.name], peak_mb if held else None)
        keep(rows)
        if device.lost():
            resume_in_a_new_process(sys.argv[1:] if argv is None else argv, number, without, rows)
    print(f"{len(chosen)} units in {plan.minutes(time.monotonic() - start)}")
    if results and results.rows:
        for path in [results.path, *([] if args.rows_only else present(results))]:
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_cli(main)
