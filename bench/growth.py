"""How cost grows: ``python -m bench.growth``. Ours and eager over batch, frames, hypotheses and denoising steps;
recordings over frames and people (``bench.recordings``).

Points are added to growth.json as they are measured; the picture of every curve is made from it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench import plan, recordings
from bench.cases import ModelCase, model_cases
from bench.measure import Device, peaks
from bench.models import diffpose, mixste, strided_transformer, ws_anl
from bench.results import FOLDER, Results, machine
from bench.suite import PRECISIONS, NetworkUnit, measured
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.models import create
from posekernels.models.ws_anl import WsAnl

MOST_FLOPS = 1.2e12  # larger points take eager PyTorch on two cores more than ten seconds a call


class Point(NetworkUnit):
    """One point of a curve."""

    pass_ = "growth"

    def __init__(self, case: ModelCase, batch: int, size: str, device: str):
        super().__init__(
            replace(case, checked=16 if case.unit == "B" and batch > 16 else None), batch, PRECISIONS["float32"], device
        )
        self.size = size


@dataclass
class Curve:
    """One axis: ``points`` of each network, as (network's case, batch, size for the table) of a value."""

    axis: str
    label: str
    values: tuple[int, ...]
    networks: dict[str, Callable[[int], tuple[ModelCase, int, str]]]


def _case(name: str) -> ModelCase:
    return next(c for c in model_cases() if c.model == name)


def _batch(name: str):
    return lambda B: (_case(name), B, f"B={B}")


def _frames(name: str, per_frame: float, per_pair: float, batch: int, **config):
    """A network of T frames: its operations are ``per_frame * T + per_pair * T^2`` a clip."""

    def of(T: int):
        case = ModelCase(
            name,
            make=lambda: create(name, frames=T, **config),
            inputs=lambda B: (torch.rand(B, T, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,),
            batches=(batch,),
            flops=lambda B: B * (per_frame * T + per_pair * T * T),
        )
        return case, batch, f"frames={T} B={batch}"

    return of


def _hypotheses(S: int):
    case = replace(
        _case("ws_anl 200 hypotheses"),
        model="ws_anl",
        make=lambda: WsAnl(create("htnet"), create("variance_gcn")),
        flops=lambda B: 2.0 * B * (2 * S * ws_anl.HTNET + 2 * ws_anl.MULTIPLY_ADDS["variance_gcn"]),
        run=lambda net, inputs: net(*inputs, S, seed=1),
    )
    return case, 1, f"hypotheses={S} B=1"


def _steps(batch: int):
    def of(S: int):
        case = replace(
            _case("gcndiff 50 steps"),
            model=f"gcndiff B={batch}",
            flops=lambda B: 2 * diffpose.DENOISER * B * S,
            run=lambda net, inputs: diffpose.chain(net, inputs, S),
            plain=lambda net, inputs: diffpose.loop(net, *inputs, S),
        )
        return case, batch, f"steps={S} B={batch}"

    return of


T = 243
CURVES = [
    Curve(
        "batch",
        "batch",
        (1, 4, 16, 64, 256, 1024),
        {name: _batch(name) for name in ("htnet", "pkd", "gcndiff", "rie", "strided_transformer")},
    ),
    Curve(
        "frames",
        "frames of a clip",
        (27, 81, 243, 351),
        {
            # MixSTE: attention over frames is 2 * 2 * T^2 * C of each of 17 joints in 8 layers, the rest goes with T.
            "mixste": _frames("mixste", 2 * mixste.MULTIPLY_ADDS / T - 8 * 4 * 17 * 512 * T, 8 * 4 * 17 * 512, batch=1),
            "strided_transformer": _frames(
                "strided_transformer", 2 * strided_transformer.MULTIPLY_ADDS / T - 3 * 4 * 256 * T, 3 * 4 * 256, batch=8
            ),
        },
    ),
    Curve("hypotheses", "hypotheses of a pose", (1, 10, 50, 200, 1000), {"ws_anl": _hypotheses}),
    Curve("steps", "denoising steps", (1, 5, 10, 25, 50, 100), {f"gcndiff B={b}": _steps(b) for b in (1, 64)}),
]


def points(curve: Curve, device: str) -> list[Point]:
    found = []
    for of in curve.networks.values():
        for value in curve.values:
            point = Point(*of(value), device)
            if point.flops <= MOST_FLOPS:
                found.append(point)
    return found


def draw(results: Results, curve: Curve, path: Path) -> bool:
    """Ours and eager over the axis, both axes logarithmic; False when nothing of it was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    names = {"batch": "B"}
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in results.rows:
        value = re.match(rf"{names.get(curve.axis, curve.axis)}=(\d+)", row.size)
        if value and row.what in curve.networks and row.pass_ == "growth" and row.median_us:
            lines.setdefault((row.what, row.contender), []).append((int(value[1]), row.median_us / 1e3))
    colours = {what: f"C{i}" for i, what in enumerate(curve.networks)}
    for (what, contender), dots in lines.items():
        style = {"eager": ":", "auto": "-"}.get(contender, "--")
        label = f"{what}, {'ours' if contender == 'auto' else contender}"
        axis.plot(*zip(*sorted(dots)), style, color=colours[what], marker=".", label=label)
    axis.set(xscale="log", yscale="log", xlabel=curve.label, ylabel="milliseconds of a call")
    values = sorted({value for dots in lines.values() for value, _ in dots})
    axis.set_xticks(values, map(str, values), minor=False)
    axis.set_xticks([], minor=True)
    facts = next(iter(results.runs.values()), None)
    if facts:
        axis.set_title(f"{facts['device']}, {facts['threads']} threads", fontsize=9)
    axis.grid(alpha=0.3)
    if lines:
        axis.legend(fontsize=7)
        with write_aside(path) as aside:
            figure.savefig(aside, dpi=120)
    plt.close(figure)
    return bool(lines)


def draw_all(results: Results) -> list[Path]:
    """The pictures of all curves that have points; returns their paths."""
    paths = {curve.axis: results.path.with_name(f"{results.path.stem}-{curve.axis}.png") for curve in CURVES}
    return [paths[curve.axis] for curve in CURVES if draw(results, curve, paths[curve.axis])]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.growth", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--curve", action="append", choices=[*(c.axis for c in CURVES), "recordings"], help="default: all"
    )
    parser.add_argument("--longest", type=int, default=7200, metavar="FRAMES", help="of recordings; 216000: two hours")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds per point, roughly (default 1)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: bench/results)")
    parser.add_argument("--name", default="growth", help="of the files (default: growth)")
    parser.add_argument("--dry-run", action="store_true", help="list the points and about how long they take")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    ways = ["eager", "auto"]
    chosen = [c for c in CURVES if args.curve is None or c.axis in args.curve]
    found = [p for c in chosen for p in points(c, args.device)]
    lengths = [point for point in recordings.POINTS if point[0] <= args.longest]
    if args.dry_run:
        expected = [plan.seconds(p, ways, args.budget, memory=False) for p in found]
        for point, seconds in zip(found, expected):
            print(f"{seconds:>6.1f} s  {point}")
        print(f"{len(found)} points, about {plan.minutes(sum(expected))} on two cores")
        return 0
    if args.curve is None or "recordings" in args.curve:
        rows = [recordings.measured(*point) for point in lengths]
        print(recordings.table(rows), flush=True)
        with write_aside(args.out / f"{args.name}-recordings.json") as aside:
            aside.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    facts = machine(args.device, ["python -m bench.growth", *(sys.argv[1:] if argv is None else argv)])
    results, peak = Results(args.out / f"{args.name}.json"), peaks(Device(args.device), torch.float32)
    for point in found:
        rows = measured(point, ways, args.budget, peak, None)
        results.add(rows, facts)
        shown = (f"{r.contender} {r.median_us / 1e3:,.2f} ms" if r.median_us else r.rejected for r in rows)
        print(f"{point.what:<22} {point.size:<22} {'  '.join(shown)}", flush=True)
    for path in draw_all(results):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_cli(main)
