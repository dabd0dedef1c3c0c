"""``python -m bench --against REV``: this checkout and another commit, turn by turn in two processes.

The other commit is checked out and built in a temporary folder; the benchmark itself is this checkout's in both, so
that both do the same. What the other commit cannot run is said in its row.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import posekernels
from bench import plan
from bench.measure import SETTLE, Device, spread
from bench.results import Results, machine
from bench.suite import Row, Unit, prepare

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ("csrc", "CMakeLists.txt", "setup.py", "pyproject.toml")  # what a build depends on


def _git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--against: git {command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def checked_out(commit: str, folder: Path) -> None:
    """``commit``, built, with this checkout's benchmark; its ``folder`` is a worktree of this repository."""
    _git("worktree", "add", "--detach", str(folder), commit)
    shutil.rmtree(folder / "bench", ignore_errors=True)
    shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    if not _git("diff", "--name-only", commit, "--", *NATIVE):  # nothing to build anew
        for library in (ROOT / "posekernels").glob("_native*.so"):
            shutil.copy2(library, folder / "posekernels")
        return
    cuda = {} if torch.cuda.is_available() else {"POSEKERNELS_CUDA": "off"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=os.environ | cuda, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--against: {commit} does not build: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


class Worker:
    """A process in one checkout that prepares units and times one turn when asked."""

    def __init__(self, folder: Path, device: str):
        command = [sys.executable, "-m", "bench.against", device, str(torch.get_num_threads())]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def ask(self, **request) -> dict:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise ValueError(f"--against: a worker ended: {lines[-1] if lines else 'it said nothing'}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def turns(workers: dict[str, Worker], unit: Unit, budget: float, repeats: int = 15) -> dict[str, Row]:
    """A row per checkout."""
    rows = {}
    for name, worker in workers.items():
        rows[name] = Row(*unit.group, name)
        ready = worker.ask(prepare=unit.group)
        rows[name].error, rows[name].rejected = ready["error"], ready["rejected"]
    if any(r.rejected for r in rows.values()):
        return rows
    seconds = {name: worker.ask(loops=1)["seconds"] for name, worker in workers.items()}
    loops = max(1, min(1000, int(2e-3 / max(seconds.values()))))
    rounds = max(3, min(repeats, int(budget / (2 * loops * sum(seconds.values()) + 2 * SETTLE))))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(SETTLE)
            answer = worker.ask(loops=loops)
            samples[name].append((answer["seconds"], answer["host"]))
    for name, row in rows.items():
        t = spread(samples[name])
        row.median_us, row.low_us, row.high_us, row.host_us = (1e6 * v for v in (t.median, t.low, t.high, t.host))
        row.gflops = unit.flops / t.median / 1e9
    return rows


def compare(rev: str, units: list[Unit], budget: float, out: Path | None) -> int:
    """Print, and keep as ``against-<commit>.json``, how this checkout's ``auto`` compares with that of ``rev``."""
    commit = _git("rev-parse", "--short", "--verify", f"{rev}^{{commit}}")
    facts = machine(units[0].device if units else "cpu", ["python -m bench --against", commit])
    results = Results(out / f"against-{commit}.json") if out else None
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there"
        try:
            checked_out(commit, there)
            device = units[0].device if units else "cpu"
            workers = {"auto": Worker(ROOT, device), f"auto {commit}": Worker(there, device)}
            print(f"{'':<72} {'here us':>12} {commit + ' us':>12}  here is")
            for unit in units:
                rows = turns(workers, unit, budget)
                here, other = rows.values()
                if here.median_us and other.median_us:
                    figures = f"{here.median_us:>12,.1f} {other.median_us:>12,.1f}  "
                    figures += f"{other.median_us / here.median_us:.2f}x as fast"
                else:
                    figures = f"rejected: {here.rejected or f'{commit}: {other.rejected}'}"
                print(f"{unit!s:<72} {figures}", flush=True)
                if results:
                    results.add(list(rows.values()), facts)
            for worker in workers.values():
                worker.close()
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(there)], capture_output=True)
    return 0


def work(device: str) -> None:
    """The worker: one line of JSON in, one out."""
    calls, unit, place = {}, None, Device(device)
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            calls.clear()
            answer = {"error": None, "rejected": ""}
            try:
                unit = plan.find(tuple(request["prepare"]), device)
                with unit.precision.applied():
                    rows, calls = prepare(unit, ["auto"])
                answer = {"error": rows["auto"].error, "rejected": rows["auto"].rejected}
            except (ValueError, TypeError, AttributeError, ImportError, posekernels.BackendError) as error:
                answer["rejected"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            with unit.precision.applied():
                loops = request["loops"]
                for _ in range(min(loops, 8)):
                    calls["auto"]()
                answer = dict(zip(("seconds", "host"), place.sample(calls["auto"], loops)))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    work(sys.argv[1])
