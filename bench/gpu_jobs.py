"""What the steps of ``bench.gpu`` run on a card: jobs, each in a process of its own, several at once.

``python -m bench.gpu_jobs KIND NAME... --out FILE.jsonl`` runs one job of this kind for each name:

- ``warm``: the networks of a file of bench/models once at each size that is timed, so that Triton has compiled its
  kernels, and with ``--compile`` torch.compile its own; ``warm-ops``: the same of an op.
- ``check``: an op's kernels in every precision, held against float64 as the contract does (tests/ops/table.py), then
  the first use by ``auto``, whose verdict is kept for the steps that follow.
- ``test``: tests/ops/test_contract.py of an op.

Every result is a line of FILE as soon as there is one: what, outcome (ok, refused, failed, skipped), seconds, why. A
kernel that takes the card from its process ends that job alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

KINDS = ("warm", "warm-ops", "check", "test")
DTYPES = {"float32": "ieee", "tf32": "tf32", "bfloat16": "ieee", "float16": "ieee"}  # and how float32 is multiplied


def add_line(out: Path, what: str, outcome: str, seconds: float, why: str = "") -> None:
    """One result; a short write to the end of a file is not mixed with another process's."""
    line = {"what": what, "outcome": outcome, "seconds": round(seconds, 2), **({"why": why[:300]} if why else {})}
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{what:<60} {outcome:<8} {seconds:6.1f} s  {why[:200]}", flush=True)


def record(out: Path, what: str, call: Callable[[], object]) -> bool:
    """Whether ``call`` was right or refused: whatever it raises becomes a line."""
    from posekernels import BackendError

    start, outcome, why = time.monotonic(), "ok", ""
    try:
        said = call()
        why = said if isinstance(said, str) else ""
    except BackendError as error:
        outcome, why = "refused", str(error).splitlines()[0]
    except Exception as error:
        outcome, why = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    add_line(out, what, outcome, time.monotonic() - start, why)
    return outcome != "failed"


def lost(out: Path, name: str, device: str) -> bool:
    """Whether this process has lost the card, which is then a line of its own."""
    from bench.measure import Device

    gone = Device(device).lost()
    if gone:
        add_line(out, f"{name}, what was left", "skipped", 0, "the card is lost to this process")
    return gone


def _device(rehearse: bool):
    """The card; in a rehearsal the tests' own, which runs compiled kernels on a CPU."""
    if not rehearse:
        return contextlib.nullcontext()
    from tests.ptx.device import gpu

    return gpu()


def check(op: str, out: Path, rehearse: bool) -> None:
    from unittest import mock

    import torch

    from bench.measure import Device
    from posekernels import _dispatch, _first_use
    from posekernels.testing import BUDGET, TF32_BUDGET
    from tests.ops import table

    device = "cpu" if rehearse else "cuda"
    problem = table.OPS[op].make(table.Choices())

    def contract(backend: str, name: str) -> None:
        dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(table, "device_of", lambda backend: device))
            torch.backends.cuda.matmul.fp32_precision = DTYPES[name]
            stack.callback(setattr, torch.backends.cuda.matmul, "fp32_precision", "ieee")
            if name == "tf32":
                stack.enter_context(mock.patch.dict(BUDGET, {torch.float32: TF32_BUDGET}))
            table.check(table.OPS[op], problem, backend, dtype, gradients=name != "float16")
        Device(device).synchronize()

    def first_use(name: str) -> str:
        """What ``auto`` thinks of the kernels it would take."""
        before = dict(_first_use._verdicts())
        tensors = {n: None if t is None else t.to(device) for n, t in problem.tensors.items()}
        tensors = table.with_floats(tensors, lambda t: t.to(getattr(torch, name)))
        for _ in _dispatch.OPS[op]:  # a backend that is wrong is passed over, and the next one tried
            table.run(problem, tensors, "auto", True)
        found = {k: v for k, v in _first_use._verdicts().items() if k not in before}
        wrong = [f"{k}: {v}" for k, v in found.items() if v != _first_use.GOOD]
        if wrong:
            raise AssertionError("; ".join(wrong))
        return f"{len(found)} good"

    with _device(rehearse):
        for backend in [b for b in ("cuda", "triton") if b in _dispatch.OPS[op]]:
            for name in ("float32",) if rehearse else DTYPES:
                fine = record(out, f"{op} {backend} {name}", lambda b=backend, n=name: contract(b, n))
                if not fine and lost(out, op, device):
                    return
        for name in () if rehearse else ("float32", "bfloat16"):
            record(out, f"{op} auto {name}", lambda n=name: first_use(n))


def warm(name: str, out: Path, rehearse: bool, ops: bool, compile: bool) -> None:
    import torch

    from bench import plan
    from bench.gpu import PRECISIONS, compared, networks
    from bench.measure import Device
    from bench.suite import COMPILED_GRAPH

    os.environ["POSEKERNELS_SELF_CHECK"] = "0"  # the kernels themselves
    device = "cpu" if rehearse else "cuda"
    if rehearse:
        units = plan.units(device, networks=[name], precisions=["float32"], batches=[1])[:1]
    elif ops:
        units = plan.units(device, ops=[name], precisions=PRECISIONS)
    elif compile:
        units = plan.units(
            device, networks=[name], parts=["inference"], precisions=PRECISIONS, batches=compared()[name]
        )
    else:
        units = plan.units(device, networks=networks()[name], precisions=PRECISIONS)
    ways = ["torch.compile", COMPILED_GRAPH] if compile else ["triton" if ops or rehearse else "auto"]

    def once(unit, way) -> None:
        with unit.precision.applied():
            unit.build(way)()
            Device(device).synchronize()

    with _device(rehearse):
        for unit in units:
            for way in ways:
                if not record(out, f"{unit}  {way}", lambda u=unit, w=way: once(u, w)) and lost(out, name, device):
                    return
            if not rehearse:
                torch.cuda.empty_cache()


def test(op: str, others: Iterable[str], out: Path) -> int:
    """The contract tests of an op; ``others`` whose names hold its name are not its."""
    longer = "".join(f" and not {name}" for name in others if op in name and name != op)
    command = [sys.executable, "-m", "pytest", "tests/ops/test_contract.py", "-q", "-p", "no:cacheprovider"]
    command += ["-k", f"{op}{longer} and (triton or cuda)", "--lines", str(out)]
    code = subprocess.run(command).returncode
    return 0 if code in (0, 1, 5) else code  # failures are lines; 5: no test of this op


def one(args: argparse.Namespace) -> int:
    """The job itself."""
    (name,) = args.name
    if args.kind == "test":
        return test(name, args.others, args.out)
    if args.kind == "check":
        check(name, args.out, args.rehearse)
    else:
        warm(name, args.out, args.rehearse, args.kind == "warm-ops", args.compile)
    return 0


def _stop(*_) -> None:
    raise SystemExit("stopped")


def all_of(args: argparse.Namespace) -> int:
    """Every job, ``--at-once`` of them together; what each printed, as it ends."""
    signal.signal(signal.SIGTERM, _stop)  # at a step's limit: what the jobs have printed so far is kept
    waiting, running, failed = list(args.name), {}, 0
    options = ["--out", str(args.out), *["--compile"] * args.compile, *["--rehearse"] * args.rehearse]

    def close(name: str, note: str = "") -> None:
        nonlocal failed
        process, file, start = running.pop(name)
        file.seek(0)
        text = file.read()
        if text.strip():
            print(text.rstrip(), flush=True)
        file.close()
        code = process.returncode
        if code or note:
            failed += 1
            add_line(args.out, f"{args.kind} {name}", "failed", time.monotonic() - start, note or f"exit code {code}")

    try:
        while waiting or running:
            while waiting and len(running) < args.at_once:
                name = waiting.pop(0)
                command = [sys.executable, "-m", "bench.gpu_jobs", args.kind, name, "--job", *options]
                command += ["--others", *args.name] if args.kind == "test" else []
                file = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
                running[name] = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT), file, time.monotonic()
            for name in [name for name, (process, _, _) in running.items() if process.poll() is not None]:
                close(name)
            time.sleep(0.05)
    finally:
        for name in list(running):
            running[name][0].kill()
            running[name][0].wait()
            close(name, "stopped at the limit of the step")
        for name in waiting:
            add_line(args.out, f"{args.kind} {name}", "skipped", 0, "no time left in the step")
    return int(failed > 0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_jobs", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="the results are added to this file, a line each")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="warm: torch.compile in place of our kernels")
    parser.add_argument("--rehearse", action="store_true", help="on the card of tests/ptx")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)  # this process is the job
    parser.add_argument("--others", nargs="*", default=(), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    return one(args) if args.job else all_of(args)


if __name__ == "__main__":
    sys.exit(main())
