"""``python -m bench``: the kernels against eager, ``torch.compile`` and ONNX Runtime, each row checked first."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

import torch

from . import report
from .cases import model_cases, op_cases
from .measure import Device, peaks
from .suite import Row, model_rows, op_rows, training_rows

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--op", action="append", help="only this op (repeatable)")
    parser.add_argument("--model", action="append", help="only this network (repeatable)")
    parser.add_argument("--backend", action="append", help="only this backend (repeatable); default: all here")
    parser.add_argument("--batch", type=int, action="append", help="batches of the networks instead of each one's own")
    parser.add_argument("--dtype", choices=DTYPES, help="only this dtype; default: float32 and what each case names")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--quick", action="store_true", help="a few sizes, no torch.compile: minutes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--max-autotune", action="store_true", help="torch.compile in max-autotune mode too")
    parser.add_argument("--no-training", action="store_true", help="leave the training steps out")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds per case, roughly")
    parser.add_argument("--out", type=Path, help="write NAME.json, .csv, .md and .png here")
    parser.add_argument("--name", help="NAME of the files (default: bench-<date>)")
    args = parser.parse_args(argv)
    everything = {"op": {c.op for c in op_cases()}, "model": {c.model for c in model_cases()}}
    for kind, known in everything.items():
        for name in getattr(args, kind) or ():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                parser.error(f"--{kind} {name}: no such benchmark{hint} (there are: {', '.join(sorted(known))})")
    return args


def rows(args: argparse.Namespace):
    """Yield the rows that ``args`` asks for, case by case."""
    device = Device(args.device)
    peak = {}

    def peak_of(dtype):
        if dtype not in peak:
            peak[dtype] = peaks(device, dtype)
            flops, copy = peak[dtype]
            print(f"this machine: {flops / 1e9:,.0f} GFLOP/s in {dtype}, copy {copy / 1e9:,.1f} GB/s", file=sys.stderr)
        return peak[dtype]

    def dtypes(case):
        return [DTYPES[args.dtype]] if args.dtype else [torch.float32, *case.dtypes]

    compile_ = not (args.quick or args.no_compile)
    if args.op or not args.model:
        for case in op_cases():
            if (args.op and case.op not in args.op) or (args.quick and not case.quick):
                continue
            if case.gpu_only and not device.cuda:
                continue
            for dtype in dtypes(case):
                yield from op_rows(case, device, dtype, peak_of(dtype), args.backend, compile_, args.budget)
    if args.model or not args.op:
        ways = ["eager", *(args.backend or ["auto"]), *(["torch.compile"] if compile_ else []), "onnxruntime"]
        ways += ["max-autotune"] if args.max_autotune else []
        for case in model_cases():
            if args.model and case.model not in args.model:
                continue
            for batch in args.batch or (case.batches[:2] if args.quick else case.batches):
                for dtype in dtypes(case):
                    yield from model_rows(case, batch, device, dtype, peak_of(dtype), ways, args.budget)
            if not (args.no_training or args.quick):
                yield from training_rows(case, device, peak_of(torch.float32), ways, args.budget)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    done: list[Row] = []
    for row in rows(args):
        done.append(row)
        timed = f"{row.median_us:>12,.1f} us" if row.median_us else f"rejected: {row.rejected}"
        ratio = f"  {row.vs_eager:.2f}x eager" if row.vs_eager else ""
        print(
            f"{row.what:<20} {row.size:<34} {row.pass_:<17} {row.dtype:<9} {row.contender:<14} {timed}{ratio}",
            flush=True,
        )
    facts = report.machine(args.device)
    if args.out:
        for path in report.save(done, facts, args.out, args.name or f"bench-{facts['date']}"):
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
