"""``python -m bench.gpu``: the one command for a GPU machine, ten minutes that count.

In the order of worth: builds the kernels for its card, holds each against float64 on a small problem, times the
networks, runs the contract tests, sets the networks beside torch.compile (with CUDA graphs and without), times the ops
beside eager PyTorch, its own attention and cuBLAS, and runs the CUDA kernels under compute-sanitizer. All in TF32 and
in bfloat16, on both sides. What must be compiled first is compiled on all cores.

All that it finds lies under ``--out``, and is written as soon as it is known: the rows as ``<card>-<date>.json`` with
the tables made from them, how every step went as ``-steps.json``, the result of every test and kernel as
``-lines.jsonl``, what each step printed in the folder ``-logs``. A step is a process group with a limit, no longer
than what is left of ``--limit``: what fails or runs over is written down, and the rest still runs.

``--dry-run`` lists the steps. ``--rehearse`` runs every one of them at a small size on a machine without a card: the
compiled kernels in the executor of tests/ptx, the rest on the CPU.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.cases import model_cases, op_cases
from bench.report import present
from bench.results import Results
from posekernels import _dispatch
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PRECISIONS = ["tf32", "bfloat16"]
OPS_AT_ONCE = 4  # in a step: a process takes seconds to start
GRACE = 3.0  # seconds between asking a step to end and ending it
LAST_MOMENT = 10.0  # seconds: no step begins with less
MAIN = ("htnet", "pkd", "gcndiff", "rie", "strided_transformer", "mixste", "ws_anl")  # of the five systems
NOT_COMPILED = ("ws_anl",)  # torch.compile takes minutes


@dataclass
class Step:
    """One process: ``seconds`` is its limit, ``expected`` what it should take.

    Args:
        lines: the file of results that it adds to (``bench.gpu_jobs``).
        problem: () -> what is wrong although it exited with 0, or None.
        kept: () -> files that are copied beside its log.
    """

    name: str
    command: list[str]
    seconds: float
    expected: float
    environment: dict[str, str] = field(default_factory=dict)
    lines: Path | None = None
    problem: Callable[[], str | None] = lambda: None
    kept: Callable[[], list[Path]] = list


def golden_folder() -> Path | None:
    """Where golden cases lie: beside the checkout, or in it (a machine that only has the tree)."""
    for folder in (ROOT.parent / "shared" / "golden", ROOT / "golden"):
        if (folder / "fill.py").is_file():
            return folder
    return None


def compute_sanitizer() -> str | None:
    """Where the program lies: on the path, or in the toolkit."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(toolkit) if toolkit.is_file() else None)


def networks() -> dict[str, list[str]]:
    """What is timed, {network: what is done with it}; the five systems' first, and then the others all together."""
    found: dict[str, list[str]] = {name: [] for name in (*MAIN, "others")}
    for case in model_cases():  # "rie", "rie video"
        network = case.model.split()[0]
        found[network if network in MAIN else "others"].append(case.model)
    return found


def compared() -> dict[str, list[int]]:
    """{network: the batches at which it is set beside torch.compile}, its smallest and its largest."""
    cases = {case.model: case for case in model_cases()}
    return {name: [cases[name].batches[0], cases[name].batches[-1]] for name in MAIN if name not in NOT_COMPILED}


def ops() -> list[str]:
    """Those with GPU kernels."""
    return [n for n, kernels in _dispatch.OPS.items() if {"triton", "cuda"} & kernels.keys() and "_backward" not in n]


def not_built(record: Path) -> str | None:
    """Why there is no CUDA part, off the record of a build."""
    try:
        why = json.loads(record.read_text())["cuda"]
    except (OSError, ValueError, KeyError) as error:
        return f"no record of the build: {error}"
    return None if why is None else f"the CUDA part was not built: {why}"


def steps(out: Path, name: str, architecture: str, rehearse: bool = False) -> list[list[Step]]:
    """All steps in the order of their worth, so that a limit cuts off the least; those in one list run at once.

    Args:
        out, name: results go to ``out/name*``.
        architecture: of the card, "90" for sm_90.
        rehearse: each command at its smallest, on the CPU.
    """
    python, lines = sys.executable, out / f"{name}-lines.jsonl"

    def jobs(title: str, kind: str, names: list[str], seconds: float, expected: float, *options: str) -> Step:
        command = [python, "-m", "bench.gpu_jobs", kind, *names, "--out", str(lines), *options]
        return Step(title, [*command, *["--rehearse"] * rehearse], seconds, expected, lines=lines)

    def bench(title: str, seconds: float, expected: float, *words: str) -> Step:
        command = [python, "-m", "bench", "--device", "cpu" if rehearse else "cuda", "--rows-only", "--no-memory"]
        command += ["--no-onnx", "--out", str(out), "--name", name, "--budget", "0.02" if rehearse else "0.4"]
        precisions = ["float32"] if rehearse else PRECISIONS
        return Step(title, [*command, *(w for p in precisions for w in ("--dtype", p)), *words], seconds, expected)

    if rehearse:
        models, beside = {"variance_linear": ["variance_linear"]}, {"variance_linear": [1]}
        every = ["annotated_norm"]
        built = out / f"{name}-build"
        build = [python, "setup.py", "build_ext", "--build-lib", str(built)]
        environment = {"POSEKERNELS_BUILD": "off"}
    else:
        models, beside, every, built = networks(), compared(), ops(), ROOT
        build = [python, "setup.py", "build_ext", "--inplace"]
        environment = {"POSEKERNELS_CUDA": "on", "POSEKERNELS_CUDA_ARCHITECTURES": architecture}

    def logs_of_the_build() -> list[Path]:
        return [] if rehearse else sorted((ROOT / "build").glob("*/build.log"))

    building = Step(
        "build",
        build,
        seconds=240,
        expected=90,
        environment=environment,
        problem=lambda: not_built(built / "posekernels" / "_build.json"),
        kept=logs_of_the_build,
    )
    found = [[building, jobs("compile our kernels", "warm", list(models), 240, 60)]]
    found += [[jobs("check every kernel", "check", every, 90, 25)]]
    for network, names in models.items():
        own = [word for model in names for word in ("--model", model)]
        smallest = ["--batch", "1", "--part", "inference"] if rehearse else []
        found += [[bench(f"time {network}", 60, 10, *own, "--no-compile", *smallest)]]
    tests = [jobs("contract tests", "test", every, 120, 60)]
    golden = golden_folder()
    if golden is not None:
        tests += [Step("golden", [python, "-m", "tests.golden", str(golden), *["--help"] * rehearse], 60, 20)]
    if not rehearse:
        tests += [jobs("compile the peers", "warm", list(beside), 120, 60, "--compile", "--at-once", "4")]
        tests += [jobs("compile the ops", "warm-ops", every, 120, 60, "--at-once", "8")]
    found += [tests]
    for network, batches in beside.items():
        words = [word for batch in batches for word in ("--batch", str(batch))]
        words = ["--model", network, "--part", "inference", *words, *["--no-compile"] * rehearse]
        found += [[bench(f"{network} beside torch.compile", 60, 15, *words)]]
    timed = every if rehearse else list(dict.fromkeys(case.op for case in op_cases()))
    for first in range(0, len(timed), OPS_AT_ONCE):
        some = timed[first : first + OPS_AT_ONCE]
        words = [word for op in some for word in ("--op", op)]
        words += ["--quick", "--backend", "auto"] if rehearse else ["--no-compile"]
        found += [[bench(f"time ops: {', '.join(some)}", 60, 18, *words)]]
    sanitizer = compute_sanitizer()
    for tool in ("memcheck", "racecheck") if sanitizer else ():
        step = jobs(f"compute-sanitizer {tool}", "test", every, 60, 20)
        step.command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *step.command]
        step.environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # else it sees one block in place of tensors
        found += [[step]]
    return found


def _summary(path: Path, start: int) -> dict:
    """Of the lines that were added after ``start`` bytes: how many of each outcome, and what was not right."""
    with path.open() as file:
        file.seek(start)
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    counts = collections.Counter(line["outcome"] for line in lines)
    failed = [f"{line['what']}: {line.get('why', '')}" for line in lines if line["outcome"] == "failed"]
    refused = [f"{line['what']}: {line.get('why', '')}" for line in lines if line["outcome"] == "refused"]
    return {"results": dict(counts), "failed": failed, "refused": refused}


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.is_file() else 0


def _end(process: subprocess.Popen) -> None:
    """The whole process group, first asked and then told."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    process.wait()


def run(group: list[Step], limit: float, logs: Path) -> dict[str, dict]:
    """Run steps at once; of each its outcome, seconds, results, and the end of what it printed unless it was fine.

    Args:
        limit: seconds that are left, on top of each step's own.
        logs: the folder of what they print.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running, reports = {}, {}
    start = time.monotonic()
    for step in group:
        log = logs / (re.sub(r"[^a-z0-9]+", "-", step.name.lower()).strip("-")[:60] + ".log")
        with log.open("w") as file:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | step.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running[step.name] = step, process, log, _size(step.lines)

    def close(name: str, outcome: str) -> None:
        step, _, log, before = running.pop(name)
        report = reports[name] = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
        if _size(step.lines) > before:
            report |= _summary(step.lines, before)
        wrong = step.problem() if outcome == "ok" else None
        if wrong:
            report["outcome"] = wrong
        elif outcome == "ok" and report.get("failed"):
            report["outcome"] = f"{len(report['failed'])} failed"
        if report["outcome"] != "ok" or name == "golden":
            report["log"] = log.read_text(errors="replace").splitlines()[-60:]
        for file in step.kept():
            shutil.copy2(file, logs / f"{file.parent.name}-{file.name}")

    try:
        while running:
            for name, (step, process, _, _) in list(running.items()):
                code, most = process.poll(), min(step.seconds, limit)
                if code is not None:
                    _end(process)  # what it has left running
                    close(name, "ok" if code == 0 else f"exit code {code}")
                elif time.monotonic() - start > most:
                    _end(process)
                    close(name, f"stopped after {most:.0f} s")
            time.sleep(0.05)
    finally:
        for name, (_, process, _, _) in list(running.items()):
            _end(process)
            close(name, "interrupted")
    return reports


def machine() -> dict:
    """The card, its driver and the versions."""
    properties = torch.cuda.get_device_properties(0)
    facts = {
        "date": datetime.date.today().isoformat(),
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    try:
        facts["triton"] = __import__("triton").__version__
    except ImportError:
        facts["triton"] = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        facts["driver, clock, power"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return facts


def _write(path: Path, document: dict) -> None:
    with write_aside(path) as aside:
        aside.write_text(json.dumps(document, indent=1) + "\n")


def _only(groups: list[list[Step]], wanted: list[str]) -> list[list[Step]]:
    names = [step.name for group in groups for step in group]
    for one in wanted:
        if not any(name.startswith(one) for name in names):
            raise ValueError(f"--only {one}: no such step (there are: {', '.join(names)})")
    kept = [[step for step in group if any(step.name.startswith(one) for one in wanted)] for group in groups]
    return [group for group in kept if group]


def _list(groups: list[list[Step]], limit: float) -> None:
    for group in groups:
        for step in group:
            at_once = "with the one above, " if step is not group[0] else ""
            times = f"{at_once}about {step.expected:.0f} s, at most {step.seconds:.0f} s"
            print(f"{step.name:<34} {times:<40}   {' '.join(step.command[1:])}")
    expected = sum(max(step.expected for step in group) for group in groups)
    print(f"about {expected:.0f} s; stopped at {limit:.0f} s, the last steps first")


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=540, help="seconds for everything (default 540)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of all results (default: bench/results)")
    parser.add_argument("--only", action="append", help="only steps whose name starts so (repeatable)")
    parser.add_argument("--dry-run", action="store_true", help="list the steps and stop; needs no GPU")
    parser.add_argument("--rehearse", action="store_true", help="every step at a small size; needs no GPU")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    args.out = args.out.resolve()  # steps run in the checkout
    has_gpu = torch.cuda.is_available() and not args.rehearse
    if not (has_gpu or args.dry_run or args.rehearse):
        raise ValueError("no CUDA device here (--dry-run lists what would run, --rehearse runs it at a small size)")
    if args.rehearse and args.out == RESULTS:
        raise ValueError("--rehearse: name a folder for its files with --out; bench/results is for figures of a card")
    architecture = "".join(map(str, torch.cuda.get_device_capability())) if has_gpu else "90"
    device = "rehearsal" if args.rehearse else "gpu"
    facts = machine() if has_gpu else {"device": device, "date": datetime.date.today().isoformat()}
    name = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-") + f"-{facts['date']}"
    groups = steps(args.out, name, architecture, args.rehearse)
    if args.only:
        groups = _only(groups, args.only)
    if args.dry_run:
        _list(groups, args.limit)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    path, rows = args.out / f"{name}-steps.json", args.out / f"{name}.json"
    document = {"machine": facts, "steps": {}}
    signal.signal(signal.SIGTERM, _interrupt)
    written = [path]
    for group in groups:
        left = begin + args.limit - time.monotonic()
        try:
            if left < LAST_MOMENT:
                document["steps"] |= {step.name: {"outcome": "no time left"} for step in group}
            else:
                document["steps"] |= run(group, left, args.out / f"{name}-logs")
        except KeyboardInterrupt:
            document["steps"] |= {step.name: {"outcome": "interrupted"} for step in group}
            break
        finally:  # after every step: a machine that is taken away leaves what it did
            for step in group:
                report = document["steps"].get(step.name, {"outcome": "interrupted"})
                print(f"{step.name:<34} {report['outcome']}  {report.get('seconds', '')}", flush=True)
            _write(path, document)
        if rows.is_file():
            written = [path, rows, *present(Results(rows), pictures=group is groups[-1])]
    for file in written:
        print(f"wrote {file}")
    return int(any(r["outcome"] != "ok" for r in document["steps"].values()))


if __name__ == "__main__":
    run_cli(main)
