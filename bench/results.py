"""Result files: rows, and the runs that measured them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import torch

import posekernels
from bench.suite import Row
from posekernels.files import write_aside

FOLDER = Path(__file__).parent / "results"
SAME = ("device", "threads", "load")  # of all runs in one file: else its rows could not be compared


def machine(device: str, command: list[str] = ()) -> dict:
    """Where and when figures come from: processor or card, threads, versions, commit, command line."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    facts = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "posekernels": posekernels.__version__,
        "commit": _commit(),
        **({"cuda": torch.version.cuda} if device.startswith("cuda") else {}),
        "command": " ".join(Path(word).name if Path(word).is_absolute() else word for word in command),
    }
    for package in ("triton", "onnxruntime", "openvino"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _commit() -> str:
    """Of the checkout, with a + when it has changes of its own; "" outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        ask = {"capture_output": True, "text": True, "check": True}
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], **ask).stdout.strip()
        return head + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


class Results:
    """The rows of ``NAME.json``; each knows the run that measured it.

    Args:
        path: of the file; need not exist.
    Raises:
        ValueError: not a result file.
    """

    def __init__(self, path: Path):
        self.path, self.runs, self.rows = path, {}, []
        if path.is_file():
            try:
                document = json.loads(path.read_text())
                self.runs, self.rows = document["runs"], [Row(**r) for r in document["rows"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: not a result file of the benchmark ({error})") from error

    def add(self, rows: list[Row], facts: dict) -> None:
        """Put the rows of one unit in, in place of those they measure anew, and write the file.

        Raises:
            ValueError: the file's rows come from another machine, or from another number of threads.
        """
        self.__init__(self.path)  # another process may have added to it
        for run in self.runs.values():
            for fact in SAME:
                there, here = run.get(fact) or "none", facts.get(fact) or "none"
                if there != here:
                    raise ValueError(
                        f"{self.path}: its rows were measured with {fact} {there}, these with {here}; "
                        "give them another --name"
                    )
        self.runs[facts["time"]] = facts
        for row in rows:
            row.run = facts["time"]
            same = [i for i, r in enumerate(self.rows) if (r.group, r.contender) == (row.group, row.contender)]
            near = [i for i, r in enumerate(self.rows) if r.group == row.group]
            if same:
                self.rows[same[0]] = row
            else:
                self.rows.insert(near[-1] + 1 if near else len(self.rows), row)
        used = {r.run for r in self.rows}
        self.runs = {time: run for time, run in self.runs.items() if time in used}
        self.write()

    @property
    def on_gpu(self) -> bool:
        return any("cuda" in run for run in self.runs.values())

    @property
    def load(self) -> str:
        """What else the machine did (``bench.conditions``), in words; "" for nothing."""
        return next((run["load"] for run in self.runs.values() if run.get("load")), "")

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(self.path) as path:
            path.write_text(json.dumps({"runs": self.runs, "rows": [r.dict() for r in self.rows]}, indent=1) + "\n")

    def find(self, what: str, size: str, pass_: str, contender: str, dtype: str = "float32") -> Row | None:
        """A row that has a time or a memory, or None."""
        wanted = (what, size, pass_, dtype, contender)
        found = [r for r in self.rows if (*r.group, r.contender) == wanted]
        return found[0] if found else None

    def conditions(self) -> str:
        """One line per run: everything about it but its command."""
        lines = []
        for number, (time, run) in enumerate(sorted(self.runs.items()), 1):
            facts = ", ".join(f"{k} {v}" for k, v in run.items() if k not in ("command", "time", "peaks") and v)
            lines.append(f"- run {number}, {time}: {facts}")
        return "\n".join(lines)


def committed(folder: Path = FOLDER) -> list[Results]:
    """The result files in a folder, those without rows left out; the newest first."""
    found = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and {"runs", "rows"} <= document.keys():
            found.append(Results(path))
    return found
