"""What the rows must support: the tables of the pages, and that ``auto`` never loses to eager.

README speaks of the best peer of each row only: what a user would pick.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench import scaling
from bench.results import Results
from bench.suite import Row
from posekernels._dispatch import BACKENDS
from posekernels.files import write_aside

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "bench" / "README.md"]
NOISE, RESOLVE_US = 1.03, 3  # two runs of one kernel differ by so much here; what finding an op's backend costs
CALL_US = 20  # what a call of an op costs in Python and dispatch, about: below it, counts say little
NAMES = {  # of networks in the pages' tables, in their order
    "pkd": "PKD, windows of 50 frames",
    "rie": "RIE, windows of 243 frames",
    "strided_transformer": "Strided Transformer, windows of 243 frames",
    "htnet": "HTNet, poses",
    "ws_anl 200 hypotheses": "WS-ANL, 200 hypotheses of each of",
    "mixste": "MixSTE, clips of 243 frames",
    "gcndiff 50 steps": "GCNdiff, 50 reverse steps, poses",
    "gcndiff": "GCNdiff, poses",
    "gcnpose": "GCNpose, poses",
    "simlpe": "siMLPe, windows of 50 frames",
    "mgcn_lw": "MGCN_lw, poses",
    "variance_gcn": "variance model, poses",
    "variance_linear": "linear variance model, poses",
    "strided_refine": "refine module, poses",
}
MAIN = tuple(NAMES)[:7]  # of the five systems, in README.md; bench/README.md has all of them
PEERS = {  # what a user could run instead
    "eager": "eager",
    "torch.compile": "`torch.compile`",
    "max-autotune": "`torch.compile`, max-autotune",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}


class Rows:
    """The rows of several result files; where two have one, the first file's."""

    def __init__(self, results: list[Results]):
        self.rows: dict[tuple[str, ...], Row] = {}
        for result in results:
            for row in result.rows:
                self.rows.setdefault((*row.group, row.contender), row)

    def find(self, what: str, size: str, pass_: str, contender: str, dtype: str = "float32") -> Row | None:
        return self.rows.get((what, size, pass_, dtype, contender))

    def time(self, *key: str) -> float | None:
        row = self.find(*key)
        return row and row.median_us


def claimed(results: list[Results]) -> list[Results]:
    """Those that the pages speak of, an idle CPU's. The others count where there are none."""
    return [r for r in results if not r.on_gpu and not r.load] or results


# -- the measured tables of the pages --------------------------------
def regime(flops: float, bytes_: float, peak: tuple[float, float]) -> tuple[float, str]:
    """(microseconds that the counts alone take at the machine's peaks, what binds)."""
    products, moves = 1e6 * flops / peak[0], 1e6 * bytes_ / peak[1]
    floor = max(products, moves)
    return floor, "launch" if floor < CALL_US else "arithmetic" if products > moves else "memory"


def regime_table(results: list[Results]) -> str:
    """Every op's forward pass in float32: counts, the floor they set, and what was measured."""
    lines = ["| op | size | MFLOP | MB | FLOP per byte | floor us | ours us | bound by |", "|" + "---|" * 8]
    for result in results:
        peaks = [r["peaks"]["float32"] for r in result.runs.values() if "float32" in r.get("peaks", {})]
        if not peaks:
            continue
        peak = tuple(max(p[i] for p in peaks) for i in (0, 1))
        lines.append(f"| *{result.path.stem}* | *{peak[0] / 1e9:.0f} GFLOP/s, {peak[1] / 1e9:.0f} GB/s* |" + " |" * 6)
        for row in result.rows:
            if row.group[2:] != ("forward", "float32") or row.contender != "auto" or not row.median_us:
                continue
            flops, bytes_ = row.gflops * 1e3 * row.median_us, row.gbytes * 1e3 * row.median_us
            floor, bound = regime(flops, bytes_, peak)
            lines.append(
                f"| `{row.what}` | {row.size} | {flops / 1e6:.2f} | {bytes_ / 1e6:.3f} | {flops / bytes_:.1f} | "
                f"{floor:,.1f} | {row.median_us:,.1f} | {bound} |"
            )
    return "\n".join(lines)


def training_table(rows: Rows) -> str:
    head = "| network | batch | eager, iterations per second | ours | | eager, peak MB | ours |"
    lines = [head, "|" + "---|" * 7]
    for (what, size, pass_, dtype, way), row in rows.rows.items():
        eager = rows.find(what, size, pass_, "eager", dtype)
        if pass_ == "training" and way == "auto" and row.median_us and eager and eager.median_us:
            held = [f"{r.peak_mb:,.0f}" if r.peak_mb is not None else "" for r in (eager, row)]
            rates = [f"{1e6 / r.median_us:.2f}" for r in (eager, row)]
            lines.append(f"| {what} | {size} | {rates[0]} | {rates[1]} | {row.vs_eager:.2f}x | {held[0]} | {held[1]} |")
    return "\n".join(lines)


def video_table(rows: Rows) -> str:
    """Frames per second of what works on videos."""
    lines = ["| what | eager, frames per second | ours | |", "|---|---|---|---|"]
    for (what, size, pass_, dtype, way), row in rows.rows.items():
        unit, _, count = size.partition("=")
        eager = rows.find(what, size, pass_, "eager", dtype)
        if (
            pass_ == "inference"
            and unit.startswith("frame")
            and way == "auto"
            and row.median_us
            and eager
            and eager.median_us
        ):
            rates = [1e6 * int(count) / r.median_us for r in (eager, row)]
            lines.append(f"| {what} | {rates[0]:,.0f} | {rates[1]:,.0f} | {row.vs_eager:.2f}x |")
    return "\n".join(lines)


def load_tables(results: list[Results]) -> str:
    """The networks while the machine has other work, against every peer."""
    found = [f"With {r.load}, {_threads(r)}:\n\n{speed_tables(Rows([r]), peak=False)}" for r in results if r.load]
    return "\n\n".join(found)


def _threads(result: Results) -> str:
    count = next(run["threads"] for run in result.runs.values())
    return f"{count} thread{'s' * (count != 1)}"


def page(results: list[Results], text: str) -> str:
    """``text`` with the tables between ``<!-- NAME -->`` and ``<!-- end -->`` made from the rows."""
    loaded, results = [r for r in results if r.load], claimed(results)
    rows = Rows(results)
    tables = {
        "regimes": lambda: regime_table(results),
        "best": lambda: best_table(rows),
        "speed": lambda: speed_tables(rows),
        "load": lambda: load_tables(loaded),
        "training": lambda: training_table(rows),
        "video": lambda: video_table(rows),
        "scaling": scaling.measured_table,
        "paper": scaling.paper_table,
    }

    def filled(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]()}\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(tables)}) -->\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


def fill_pages(results: list[Results]) -> list[Path]:
    for file in PAGES:
        with write_aside(file) as path:
            path.write_text(page(results, file.read_text()))
    return PAGES


# -- speed against what a user could run instead --------------------------------
def _milliseconds(us: float) -> str:
    ms = us / 1e3
    return f"{ms:.2f} ms" if ms < 4 else f"{ms:.1f} ms"


def _ours(rows: Rows, pass_: str, dtype: str, networks: tuple[str, ...]) -> list[Row]:
    """Our rows of some networks, in the pages' order, the smallest batch first."""
    ours = [row for key, row in rows.rows.items() if key[2:] == (pass_, dtype, "auto") and row.median_us]
    ours = [row for row in ours if row.what in networks]
    return sorted(ours, key=lambda row: (networks.index(row.what), int(row.size.partition("=")[2])))


def peer_time(rows: Rows, row: Row, peer: str) -> float | None:
    """Microseconds of a peer in the run that measured ``row``: the machine's speed drifts between runs."""
    found = rows.find(*row.group[:3], peer, row.dtype)
    return found.median_us if found and found.run == row.run else None


def best_peer(rows: Rows, row: Row) -> tuple[str, float] | None:
    """(peer, microseconds) of the fastest that was right at the same size, in the same precision and run."""
    times = {peer: peer_time(rows, row, peer) for peer in PEERS}
    return min(((peer, us) for peer, us in times.items() if us), key=lambda found: found[1], default=None)


def best_table(rows: Rows) -> str:
    """README's table: the main networks at their smallest and middle batch, against the best peer."""
    lines = ["| float32 | ours | best peer | times as fast |", "|---|---|---|---|"]
    for what in MAIN:
        for row in _ours(rows, "inference", "float32", (what,))[:2]:
            found = best_peer(rows, row)
            if found:
                peer, us = found
                ratio = us / row.median_us
                times = f"**{ratio:.1f}**" if ratio >= 1 else f"{ratio:.2f}"
                shown = f"{PEERS[peer]}, {_milliseconds(us)}"
                lines.append(f"| {NAMES[what]}, {row.size} | {_milliseconds(row.median_us)} | {shown} | {times} |")
    return "\n".join(lines)


def speed_tables(rows: Rows, peak: bool = True) -> str:
    """Every network against every peer, in inference (with ``peak`` also by what the processor can) and training."""
    tables = []
    for pass_, dtype in (("inference", "float32"), ("inference", "bfloat16"), ("training", "float32")):
        ours = _ours(rows, pass_, dtype, tuple(NAMES))
        peers = [p for p in PEERS if any(peer_time(rows, row, p) for row in ours)]
        head = [f"{pass_}, {dtype}", *(PEERS[p] for p in peers), "ours", "× the best"]
        of_peak = peak and pass_ == "inference"
        head += ["of peak"] if of_peak else []
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for row in ours:
            times = [peer_time(rows, row, peer) for peer in peers]
            found = best_peer(rows, row)
            cells = [f"{NAMES[row.what]}, {row.size}", *(_milliseconds(t) if t else "" for t in times)]
            cells += [f"**{_milliseconds(row.median_us)}**", f"{found[1] / row.median_us:.2f}" if found else ""]
            cells += [f"{row.of_peak:.0%}" if row.of_peak else ""] if of_peak else []
            lines.append(f"| {' | '.join(cells)} |")
        if ours:
            tables.append("\n".join(lines))
    return "\n\n".join(tables)


def slower(results: list[Results]) -> list[str]:
    """Rows in which ``auto`` loses to eager by more than noise. An op that no kernel takes is eager itself."""
    found = []
    for result in results:
        kernels: dict[tuple[str, ...], bool] = {}  # of an op's unit: whether any ran
        for row in result.rows:
            if row.contender in BACKENDS:
                kernels[row.group] = kernels.get(row.group, False) or row.median_us is not None
        for row in result.rows:
            eager = result.find(*row.group[:3], "eager", row.dtype) if row.contender == "auto" else None
            slow = eager and eager.median_us and row.median_us and row.median_us > NOISE * eager.median_us + RESOLVE_US
            slow = slow and row.low_us > eager.median_us  # else it is as often faster: memory new to the process, say
            if slow and kernels.get(row.group, True):
                times = f"{row.median_us:,.1f} us, eager {eager.median_us:,.1f} us"
                found.append(f"{result.path.name}: {' '.join(row.group)}: auto takes {times}")
    return found


def problems(results: list[Results]) -> list[str]:
    """One line for each claim that the rows do not support."""
    found = slower(claimed(results))
    for file in PAGES:
        if page(results, file.read_text()) != file.read_text():
            name = file.relative_to(ROOT)
            found.append(f"{name}: its tables are not those of the rows; python -m bench.report fills them")
    return found
