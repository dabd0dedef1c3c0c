"""The benchmark's table, JSON, CSV and picture."""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
from pathlib import Path

import torch

import posekernels

from .suite import Row


def machine(device: str) -> dict:
    """Where the figures come from: processor or card, threads, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    facts = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "posekernels": posekernels.__version__,
    }
    for package in ("triton", "onnxruntime"):
        try:
            facts[package] = __import__("importlib.metadata").metadata.version(package)
        except Exception:  # not installed: not part of the facts
            continue
    return facts


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else format(value, digits)


def table(rows: list[Row]) -> str:
    """Markdown; a time is the median and, in brackets, the 10th to 90th percentile."""
    head = (
        "| what | size | pass | dtype | with | error | us (p10-p90) | host us | GFLOP/s | GB/s | of peak | vs eager |"
    )
    lines = [head, "|" + "---|" * 12]
    for r in rows:
        time = f"{r.median_us:,.1f} ({r.low_us:,.1f}-{r.high_us:,.1f})" if r.median_us else f"rejected: {r.rejected}"
        cells = [
            r.what,
            r.size,
            r.pass_,
            r.dtype,
            r.contender,
            _number(r.error, ".1e"),
            time,
            _number(r.host_us, ".1f"),
        ]
        cells += [_number(r.gflops, ".1f"), _number(r.gbytes, ".1f"), _number(r.of_peak, ".0%")]
        cells += [_number(r.vs_eager, ".2f") + ("x" if r.vs_eager else "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    os.replace(aside, path)


def save(rows: list[Row], facts: dict, folder: Path, name: str) -> list[Path]:
    """Write NAME.json, NAME.csv, NAME.md and NAME.png into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "csv", "md", "png")]
    records = [r.dict() for r in rows]
    _write(paths[0], json.dumps({"machine": facts, "rows": records}, indent=1) + "\n")
    conditions = ", ".join(f"{k} {v}" for k, v in facts.items())
    _write(paths[2], f"{conditions}\n\nEvery row checked against float64 before it was timed.\n\n{table(rows)}\n")
    aside = paths[1].with_name(paths[1].name + ".part")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0].keys() if records else ["what"])
        writer.writeheader()
        writer.writerows(records)
    os.replace(aside, paths[1])
    plot(rows, facts, paths[3])
    return paths


def plot(rows: list[Row], facts: dict, path: Path) -> None:
    """Bars of speed against eager (1.0), one group per case; losses included."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    timed = [r for r in rows if r.vs_eager and r.contender != "eager"]
    if not timed:
        return
    names = sorted({r.contender for r in timed})
    groups = list(dict.fromkeys((r.what, r.size, r.pass_, r.dtype) for r in timed))
    height = 0.8 / len(names)
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.42 * len(groups)), layout="constrained")
    for i, name in enumerate(names):
        own = [(groups.index((r.what, r.size, r.pass_, r.dtype)), r.vs_eager) for r in timed if r.contender == name]
        axis.barh([g + i * height for g, _ in own], [v for _, v in own], height, label=name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks([g + 0.4 - height / 2 for g in range(len(groups))], [" ".join(g) for g in groups], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("times as fast as eager PyTorch (right is faster)")
    axis.set_title(f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}", fontsize=9)
    axis.legend(fontsize=8)
    aside = path.with_name(path.stem + ".part.png")
    figure.savefig(aside, dpi=110)
    plt.close(figure)
    os.replace(aside, path)
