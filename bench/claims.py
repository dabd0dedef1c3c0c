"""What the rows must support: the figures asked for, README's speed tables, and that ``auto`` never loses to eager."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import scaling
from bench.report import Results
from bench.suite import Row
from posekernels._dispatch import BACKENDS
from posekernels._files import write_aside

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "bench" / "README.md"
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
MAIN = tuple(NAMES)[:8]  # of the five systems, in README.md; bench/README.md has all of them
SHOWN = {"eager": "eager", "torch.compile": "`torch.compile`", "onnxruntime": "ONNX Runtime", "auto": "ours"}


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
    """Those that the pages speak of, a CPU's. A GPU's have their own page, and count where there are no others."""
    return [r for r in results if not r.on_gpu] or results


# -- the figures that were asked for --------------------------------
@dataclass
class Asked:
    """One figure; ``value`` is None where a row it needs was not measured."""

    issue: int
    what: str
    wanted: float
    value: Callable[[Rows], float | None]
    most: bool = False  # wanted at most, not at least
    unit: str = "x"

    def met(self, value: float) -> bool:
        return value <= self.wanted if self.most else value >= self.wanted


def faster(key: tuple[str, str, str], than: tuple[str, ...] = ("eager",), by: str = "auto", dtype: str = "float32"):
    """How many times as fast ``by`` is as the best of ``than`` (float32)."""

    def value(rows: Rows) -> float | None:
        mine = rows.time(*key, by, dtype)
        others = [t for t in (rows.time(*key, other) for other in than) if t]
        return min(others) / mine if mine and others else None

    return value


def memory(key: tuple[str, str, str]):
    """Our peak memory over eager's."""

    def value(rows: Rows) -> float | None:
        mine, eager = (rows.find(*key, c) for c in ("auto", "eager"))
        return mine.peak_mb / eager.peak_mb if mine and eager and mine.peak_mb and eager.peak_mb else None

    return value


def megabytes(key: tuple[str, str, str]):
    def value(rows: Rows) -> float | None:
        row = rows.find(*key, "auto")
        return row and row.peak_mb

    return value


def _networks(issue: int, what: str, wanted: dict[int, tuple[float, ...]], against: tuple[tuple[str, ...], ...]):
    """Figures of a network in inference: batch -> what is wanted against each of ``against``."""
    for batch, factors in wanted.items():
        for factor, than in zip(factors, against):
            label = "the best peer" if len(than) > 1 else SHOWN[than[0]]
            name = f"{NAMES[what]}, B={batch}: against {label}"
            yield Asked(issue, name, factor, faster((what, f"B={batch}", "inference"), than))


EAGER, ONNX, BEST = ("eager",), ("onnxruntime",), ("eager", "torch.compile", "onnxruntime")
GRAPH = "B={} J=17 80->384 K=2 M gelu"
ASKED = [
    Asked(2, "`graph_conv` B=400, forward", 2.0, faster(("graph_conv", GRAPH.format(400), "forward"))),
    Asked(2, "`graph_conv` B=400, with backward", 1.5, faster(("graph_conv", GRAPH.format(400), "forward+backward"))),
    Asked(2, "`graph_conv` B=1, forward", 1.0, faster(("graph_conv", GRAPH.format(1), "forward"))),
    Asked(2, "HTNet, training iteration, B=256", 1.15, faster(("htnet", "B=256", "training"))),
    *_networks(3, "pkd", {b: (5.0, 1.5) for b in (1, 32, 256)}, (EAGER, BEST)),
    Asked(3, "PKD, training iteration, B=256", 3.0, faster(("pkd", "B=256", "training"))),
    Asked(3, "PKD, its memory over eager's", 1.0, memory(("pkd", "B=256", "training")), most=True),
    *_networks(4, "strided_transformer", {b: (2.5, 1.0) for b in (1, 8, 64)}, (EAGER, ONNX)),
    Asked(
        4,
        "Strided Transformer in bfloat16, B=64: against ONNX Runtime in float32",
        2.0,
        faster(("strided_transformer", "B=64", "inference"), ONNX, dtype="bfloat16"),
    ),
    Asked(4, "Strided Transformer, training iteration, B=64", 1.5, faster(("strided_transformer", "B=64", "training"))),
    Asked(
        4,
        "Strided Transformer, its memory over eager's",
        0.7,
        memory(("strided_transformer", "B=64", "training")),
        most=True,
    ),
    *_networks(5, "htnet", {1: (1.3,), 64: (1.05,), 400: (1.05,)}, (ONNX,)),
    Asked(
        5,
        "HTNet in bfloat16, B=400: against our float32",
        1.8,
        faster(("htnet", "B=400", "inference"), ("auto",), dtype="bfloat16"),
    ),
    *(
        Asked(
            5,
            f"`joint_attention` D={d}: against PyTorch's attention",
            2.0,
            faster(("joint_attention", f"B=4131 N=17 H=8 D={d}", "forward"), ("sdpa",)),
        )
        for d in (10, 24, 64)
    ),
    Asked(
        5,
        "`sample_hypotheses` B=512 S=200: against `torch.randn`",
        4.0,
        faster(("sample_hypotheses", "B=512 S=200", "forward"), ("torch.randn",)),
    ),
    Asked(
        5,
        "`procrustes` of 100,000 poses: against NumPy's SVD",
        20.0,
        faster(("procrustes", "B=500 S=200", "forward"), ("numpy svd",)),
    ),
    Asked(
        5,
        "WS-ANL evaluation, 512 poses x 200 hypotheses: memory",
        2000,
        megabytes(("ws_anl 200 hypotheses", "B=512", "inference")),
        most=True,
        unit=" MB",
    ),
    *_networks(6, "gcndiff 50 steps", {1: (6.0, 1.3), 1024: (4.0, 1.3)}, (EAGER, ONNX)),
    *_networks(6, "mixste", {1: (1.5, 1.0)}, (EAGER, ONNX)),
    Asked(
        6,
        "MixSTE in bfloat16: against our float32",
        2.0,
        faster(("mixste", "B=1", "inference"), ("auto",), dtype="bfloat16"),
    ),
    Asked(6, "MixSTE, its memory over eager's", 0.5, memory(("mixste", "B=1", "inference")), most=True),
    *_networks(7, "rie", {1: (3.0, 1.0), 8: (1.5, 1.0), 64: (1.25, 1.25)}, (EAGER, ONNX)),
    Asked(
        7,
        "RIE in bfloat16, B=1: against our float32",
        1.7,
        faster(("rie", "B=1", "inference"), ("auto",), dtype="bfloat16"),
    ),
    Asked(
        7,
        "RIE, every frame of a video: against 64 windows at a time",
        2.0,
        faster(("rie video", "frames=500", "inference")),
    ),
    Asked(7, "RIE, training iteration, B=128", 1.3, faster(("rie", "B=128", "training"))),
]


def _cache(rows: Rows) -> float | None:
    found = [r for (what, *_, way), r in rows.rows.items() if (what, way) == ("cmu data", "cache")]
    return found[0].vs_eager if found else None


ASKED.insert(11, Asked(3, "CMU training set from the cache: against parsing its text", 20.0, _cache))


def asked_table(rows: Rows) -> str:
    lines = ["| issue | figure | asked | measured | |", "|---|---|---|---|---|"]
    for asked in ASKED:
        value = asked.value(rows)
        digits = ".0f" if asked.unit == " MB" else ".2f" if asked.wanted < 10 else ".1f"
        shown = "not measured" if value is None else f"{value:,{digits}}{asked.unit}"
        met = "" if value is None else "met" if asked.met(value) else "**missed**"
        sign = "at most" if asked.most else "at least"
        lines.append(f"| {asked.issue} | {asked.what} | {sign} {asked.wanted:g}{asked.unit} | {shown} | {met} |")
    return "\n".join(lines)


# -- the measured tables of bench/README.md --------------------------------
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


def page(results: list[Results], text: str) -> str:
    """``text`` with the tables between ``<!-- NAME -->`` and ``<!-- end -->`` made from the rows."""
    results = claimed(results)
    rows = Rows(results)
    tables = {
        "asked": lambda: asked_table(rows),
        "regimes": lambda: regime_table(results),
        "speed": lambda: speed_tables(results, tuple(NAMES)),
        "training": lambda: training_table(rows),
        "video": lambda: video_table(rows),
        "scaling": scaling.measured_table,
        "paper": scaling.paper_table,
    }

    def filled(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]()}\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(tables)}) -->\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


def fill_page(results: list[Results]) -> Path:
    with write_aside(PAGE) as path:
        path.write_text(page(results, PAGE.read_text()))
    return PAGE


# -- the speed tables of README.md --------------------------------
def _milliseconds(us: float) -> str:
    ms = us / 1e3
    return f"{ms:.2f} ms" if ms < 4 else f"{ms:.1f} ms"


def speed_tables(results: list[Results], networks: tuple[str, ...] = MAIN) -> str:
    """Inference and training in float32, as README.md has them for ``MAIN``."""
    rows, tables = Rows(claimed(results)), []
    for pass_, others in (("inference", ("eager", "torch.compile", "onnxruntime")), ("training", ("eager",))):
        head = [f"{pass_}, float32", *(SHOWN[o] for o in others), "ours", *(f"× {SHOWN[o]}" for o in others)]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        ours = [row for key, row in rows.rows.items() if key[2:] == (pass_, "float32", "auto") and row.median_us]
        ours = [row for row in ours if row.what in networks]
        for row in sorted(ours, key=lambda row: (networks.index(row.what), int(row.size.partition("=")[2]))):
            what, size = row.what, row.size
            times = [rows.time(what, size, pass_, other) for other in others]
            cells = [f"{NAMES[what]}, {size}", *(_milliseconds(t) if t else "" for t in times)]
            cells += [f"**{_milliseconds(row.median_us)}**", *(f"{t / row.median_us:.1f}" if t else "" for t in times)]
            lines.append(f"| {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _same(shown: str, value: float | None) -> bool:
    """Whether ``shown`` is ``value`` rounded to as many digits."""
    number = shown.replace(",", "")
    digits = len(number.partition(".")[2])
    return value is not None and f"{value:.{digits}f}" == number


def speed_problems(rows: Rows, text: str) -> list[str]:
    """Figures in the tables of README's section on speed that no row has."""
    section = text.partition("\n## Speed\n")[2].partition("\n## ")[0]
    ways = {shown: way for way, shown in SHOWN.items()} | {"torch.compile": "torch.compile"}
    names, head, found = {shown: name for name, shown in NAMES.items()}, [], []
    for line in section.splitlines():
        cells = [c.strip().replace("**", "") for c in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not set(line) <= set("|-: ") and re.fullmatch(r"(inference|training), \w+", head[0]):
            pass_, dtype = head[0].split(", ")
            label, _, size = cells[0].rpartition(", ")
            what = names.get(label)
            for column, cell in zip(head[1:], cells[1:]):
                ratio, shown = column.startswith("× "), re.search(r"[\d,.]+", cell)
                way = ways.get(column.removeprefix("× "))
                value = rows.time(what, size, pass_, way, dtype) if what and way else None
                if value and ratio:
                    ours = rows.time(what, size, pass_, "auto", dtype)
                    value = value / ours if ours else None
                elif value:
                    value /= {"us": 1, "ms": 1e3, "s": 1e6}[cell.split()[-1]]
                if shown and not _same(shown[0], value):
                    have = "no such row" if value is None else f"the row has {value:.4g}"
                    found.append(f"README.md: {cells[0]}, {column}: {cell}, {have}")
    return found


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
    results = claimed(results)
    found = slower(results) + speed_problems(Rows(results), (ROOT / "README.md").read_text())
    if page(results, PAGE.read_text()) != PAGE.read_text():
        found.append("bench/README.md: its tables are not those of the rows; python -m bench.report fills them")
    return found
