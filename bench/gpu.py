"""``python -m bench.gpu``: the one command for a GPU machine.

Builds the kernels for its card, runs the tests on it (the CUDA kernels under compute-sanitizer too, where that is
installed), times every op and network, and writes to ``bench/results`` in at most ``--limit`` seconds: the rows as
``<card>-<date>.json``, the tables and pictures made from them, and how every step went as ``<card>-<date>-steps.json``.
Every step is a process of its own with a limit of its own: what fails or runs over is written down, and the rest still
runs. ``--dry-run`` lists the steps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import torch

from bench.cases import model_cases, op_cases
from bench.report import present
from bench.results import Results
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


@dataclass
class Step:
    """One process: ``seconds`` is its limit, ``expected`` what it should take; ``result`` the JUnit file it writes."""

    name: str
    command: list[str]
    seconds: float
    expected: float
    result: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


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


def steps(scratch: Path, architecture: str, out: Path, name: str) -> list[Step]:
    """All steps in the order of their worth, so that a limit cuts off the least.

    Args:
        scratch: a folder for what a step hands to the report of it.
        out, name: the rows go to ``out/name.json``.
    """
    python = sys.executable
    found = [
        Step(
            "build",
            [python, "setup.py", "build_ext", "--inplace"],
            seconds=200,
            expected=90,
            environment={"POSEKERNELS_CUDA_ARCHITECTURES": architecture},
        ),
        Step(
            "tests",
            # What runs the same without a GPU (the emulation, ahead-of-time compilation) is left to CI.
            [python, "-m", "pytest", "tests/ops", "tests/models", "-k", "not emulated and not aot", "-q"]
            + [f"--junitxml={scratch / 'tests.xml'}"],
            seconds=180,
            expected=90,
            result=scratch / "tests.xml",
        ),
    ]
    folder = golden_folder()
    if folder is not None:
        found.append(Step("golden", [python, "-m", "tests.golden", str(folder)], seconds=60, expected=20))
    bench = [python, "-m", "bench", "--device", "cuda", "--rows-only", "--out", str(out), "--name", name]
    found.append(Step("bench, a little of everything", [*bench, "--quick"], seconds=120, expected=60))
    sanitizer = compute_sanitizer()
    for tool in ("memcheck", "racecheck") if sanitizer else ():
        found.append(
            Step(
                f"compute-sanitizer {tool}",
                [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", python, "-m"]
                + ["pytest", "tests/ops/test_contract.py", "-k", "cuda and guarded", "-q"],
                seconds=60,
                expected=25,
                environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # else it sees one block in place of tensors
            )
        )
    # One process each: a kernel that fails takes its process's CUDA context with it. torch.compile and memory take
    # minutes: they are left to "python -m bench --device cuda", which has no limit.
    short, networks = ["--budget", "0.4", "--no-compile", "--no-memory"], {}
    for case in model_cases():  # "rie", "rie video": what is done with one network
        networks.setdefault(case.model.split()[0], []).append(case.model)
    for network, models in networks.items():
        command = [*bench, *(word for model in models for word in ("--model", model)), *short]
        found.append(Step(f"bench model {network}", command, seconds=60, expected=8))
    for op in dict.fromkeys(case.op for case in op_cases()):
        found.append(Step(f"bench op {op}", [*bench, "--op", op, *short], seconds=45, expected=7))
    return found


def _tests(path: Path) -> dict:
    """Counts and failures of a pytest run, off its JUnit file."""
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failures = []
    for case in suite.iter("testcase"):
        for kind in ("failure", "error"):
            node = case.find(kind)
            if node is not None:
                failures.append(f"{case.get('classname')}::{case.get('name')}: {(node.get('message') or '')[:300]}")
    return {k: int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")} | {"failed": failures}


def run(step: Step, limit: float) -> dict:
    """Run one step; its outcome, seconds, the end of what it printed, and counts of its tests."""
    start, log = time.monotonic(), None
    try:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            env=os.environ | step.environment,
            timeout=limit,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        outcome, log = "ok" if done.returncode == 0 else f"exit code {done.returncode}", done.stdout
    except subprocess.TimeoutExpired as error:
        outcome, log = f"stopped after {limit:.0f} s", error.stdout
    report = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
    if outcome != "ok" or step.name == "golden":
        report["log"] = (log or b"").decode(errors="replace").splitlines()[-60:]
    if step.result is not None and step.result.is_file():
        report["result"] = _tests(step.result)
    return report


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


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=570, help="seconds for everything (default 570)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file (default: bench/results)")
    parser.add_argument("--only", action="append", help="only steps whose name starts so (repeatable)")
    parser.add_argument("--dry-run", action="store_true", help="list the steps and stop; needs no GPU")
    args = parser.parse_args(argv)
    args.out = args.out.resolve()  # steps run in the checkout
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not args.dry_run:
        raise ValueError("no CUDA device here (--dry-run lists what would run)")
    architecture = "".join(map(str, torch.cuda.get_device_capability())) if has_gpu else "90"
    facts = machine() if has_gpu else {"device": "gpu", "date": datetime.date.today().isoformat()}
    name = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-") + f"-{facts['date']}"
    with tempfile.TemporaryDirectory() as folder:
        chosen = steps(Path(folder), architecture, args.out, name)
        if args.only:
            unmatched = [o for o in args.only if not any(s.name.startswith(o) for s in chosen)]
            if unmatched:
                raise ValueError(
                    f"--only {unmatched[0]}: no such step (there are: {', '.join(s.name for s in chosen)})"
                )
            chosen = [s for s in chosen if any(s.name.startswith(o) for o in args.only)]
        if args.dry_run:
            for s in chosen:
                print(
                    f"{s.name:<34} about {s.expected:>3.0f} s, at most {s.seconds:>3.0f} s   {' '.join(s.command[1:])}"
                )
            print(f"about {sum(s.expected for s in chosen):.0f} s; stopped at {args.limit:.0f} s, the last steps first")
            return 0
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"{name}-steps.json"
        end, document = time.monotonic() + args.limit, {"machine": facts, "steps": {}}
        for s in chosen:
            left = end - time.monotonic()
            if left < 10:
                document["steps"][s.name] = {"outcome": "no time left"}
            else:
                document["steps"][s.name] = run(s, min(s.seconds, left))
            report = document["steps"][s.name]
            print(f"{s.name:<34} {report['outcome']}  {report.get('seconds', '')}", flush=True)
            _write(path, document)  # after every step: a machine that is taken away leaves what it did
    rows = Results(args.out / f"{name}.json")
    for written in [path, *([rows.path, *present(rows)] if rows.rows else [])]:
        print(f"wrote {written}")
    return int(any(r["outcome"] != "ok" for r in document["steps"].values()))


if __name__ == "__main__":
    run_cli(main)
