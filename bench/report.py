"""Result files, and what is made of them: ``python -m bench.report [FILE.json ...]``.

A run adds its rows to ``NAME.json`` unit by unit, as they are measured. This command makes NAME.md, NAME.csv and the
pictures of them anew and, when no file is named, fills the measured tables of ``bench/README.md``. ``--check`` looks
instead whether committed rows support what is claimed, ``--speed`` prints the speed tables of README.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import torch

import posekernels
from bench.suite import Row
from posekernels._cli import Parser, run_cli
from posekernels._files import write_aside

FOLDER = Path(__file__).parent / "results"
SAME = ("device", "threads")  # of all runs in one file: else its rows could not be compared


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
    for package in ("triton", "onnxruntime"):
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
                if run[fact] != facts[fact]:
                    raise ValueError(
                        f"{self.path}: its rows were measured with {fact} {run[fact]}, these with {facts[fact]}; "
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

    def present(self) -> list[Path]:
        """Write NAME.md, NAME.csv and the pictures of these rows; returns their paths."""
        paths = [self.path.with_suffix(suffix) for suffix in (".md", ".csv", ".png")]
        number = {time: i for i, time in enumerate(sorted(self.runs), 1)}
        with write_aside(paths[0]) as path:
            path.write_text(
                f"{self.conditions()}\n\nEvery row was checked against float64 before it was timed (no error is given "
                f"where dropout or the peer's own random numbers leave nothing to compare).\n\n"
                f"{table(self.rows, number)}\n"
            )
        with write_aside(paths[1]) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, Row("", "", "", "", "").dict().keys())
            writer.writeheader()
            writer.writerows(r.dict() for r in self.rows)
        for kinds, path in (
            (("inference", "training"), paths[2]),
            (("forward", "forward+backward"), self.path.with_name(f"{self.path.stem}-ops.png")),
        ):
            rows = [r for r in self.rows if r.pass_ in kinds and r.vs_eager and r.contender != "eager"]
            if rows:
                plot(rows, next(iter(self.runs.values())), path)
                paths += [path] if path not in paths else []
        return [p for p in paths if p.is_file()]


def committed(folder: Path = FOLDER) -> list[Results]:
    """The result files in a folder, those without rows left out; the newest first."""
    found = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and {"runs", "rows"} <= document.keys():
            found.append(Results(path))
    return found


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else format(value, digits)


COLUMNS = "what size pass dtype with error us~(p10-p90) host~us GFLOP/s GB/s of~peak vs~eager peak~MB run"


def table(rows: list[Row], number: dict[str, int]) -> str:
    """Markdown; a time is the median and, in brackets, the 10th to 90th percentile."""
    head = [c.replace("~", " ") for c in COLUMNS.split()]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for r in rows:
        timed = r.median_us is not None
        time = f"{r.median_us:,.1f} ({r.low_us:,.1f}-{r.high_us:,.1f})" if timed else f"rejected: {r.rejected}"
        cells = [*r.group, r.contender, _number(r.error, ".1e"), time, _number(r.host_us, ".1f")]
        cells += [_number(r.gflops, ".1f"), _number(r.gbytes, ".1f"), _number(r.of_peak, ".0%")]
        cells += [_number(r.vs_eager, ".2f") + ("x" if r.vs_eager else ""), _number(r.peak_mb, ".1f")]
        lines.append(f"| {' | '.join(cells)} | {number.get(r.run, '')} |")
    return "\n".join(lines)


def plot(rows: list[Row], facts: dict, path: Path) -> None:
    """Bars of speed against eager (1.0), one group per unit; losses included."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({r.contender for r in rows})
    groups = list(dict.fromkeys(r.group for r in rows))
    height = 0.8 / len(names)
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.32 * len(groups)), layout="constrained")
    for i, name in enumerate(names):
        own = [(groups.index(r.group), r.vs_eager) for r in rows if r.contender == name]
        axis.barh([g + i * height for g, _ in own], [v for _, v in own], height, label=name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks([g + 0.4 - height / 2 for g in range(len(groups))], [" ".join(g) for g in groups], fontsize=7)
    axis.set_ylim(len(groups), -0.2)
    axis.set_xscale("log")
    axis.set_xlabel("times as fast as eager PyTorch (right is faster)")
    axis.set_title(f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}", fontsize=9)
    axis.legend(fontsize=8)
    with write_aside(path) as aside:
        figure.savefig(aside, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    from bench import claims, growth  # both read result files through this module

    parser = Parser(prog="python -m bench.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.json", help="default: all in bench/results")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="whether the rows support what is claimed; exit code 1 if not"
    )
    what.add_argument("--speed", action="store_true", help="print the speed tables of README.md")
    args: argparse.Namespace = parser.parse_args(argv)
    for path in args.files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
    results = [Results(path) for path in args.files] or committed()
    if args.check:
        problems = claims.problems(results)
        for line in problems:
            print(line)
        print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'} in {sum(len(r.rows) for r in results)} rows")
        return int(bool(problems))
    if args.speed:
        print(claims.speed_tables(results))
        return 0
    for result in results:
        for path in result.present() + growth.draw_all(result):
            print(f"wrote {path}")
    if not args.files:
        print(f"wrote {claims.fill_page(results)}")
    return 0


if __name__ == "__main__":
    run_cli(main)
