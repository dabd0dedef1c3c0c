"""What is made of result files: ``python -m bench.report [FILE.json ...]``.

A run adds its rows to ``NAME.json`` unit by unit, as they are measured. This command makes NAME.md, NAME.csv and the
pictures of them anew and, when no file is named, fills the measured tables of ``README.md`` and ``bench/README.md``.
``--check`` looks instead whether committed rows support what is claimed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from bench import claims, growth
from bench.results import Results, committed
from bench.suite import Row
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside


def present(results: Results, pictures: bool = True) -> list[Path]:
    """Write NAME.md, NAME.csv and the pictures of the rows of NAME.json; returns their paths."""
    paths = [results.path.with_suffix(suffix) for suffix in (".md", ".csv", ".png")]
    number = {time: i for i, time in enumerate(sorted(results.runs), 1)}
    with write_aside(paths[0]) as path:
        path.write_text(
            f"{results.conditions()}\n\nEvery row was checked against float64 before it was timed (no error is given "
            f"where dropout or the peer's own random numbers leave nothing to compare).\n\n"
            f"{table(results.rows, number)}\n"
        )
    with write_aside(paths[1]) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, Row("", "", "", "", "").dict().keys())
        writer.writeheader()
        writer.writerows(r.dict() for r in results.rows)
    for kinds, path in (
        (("inference", "training"), paths[2]),
        (("forward", "forward+backward"), results.path.with_name(f"{results.path.stem}-ops.png")),
    ):
        rows = [r for r in results.rows if r.pass_ in kinds and r.vs_eager and r.contender != "eager"]
        if rows and pictures:
            plot(rows, next(iter(results.runs.values())), path)
            paths += [path] if path not in paths else []
    return [p for p in paths if p.is_file()]


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
    parser = Parser(prog="python -m bench.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.json", help="default: all in bench/results")
    parser.add_argument(
        "--check", action="store_true", help="whether the rows support what is claimed; exit code 1 if not"
    )
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
    for result in results:
        for path in present(result) + growth.draw_all(result):
            print(f"wrote {path}")
    if not args.files:
        for path in claims.fill_pages(results):
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_cli(main)
