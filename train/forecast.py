"""What ``train.cmu``, ``train.pw3d`` and, for forecasters, ``train.h36m`` share: options, the table, the picture.

Errors are in millimetres, at the frame, over the whole skeleton as published: joints that cannot be wrong count with 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from posekernels._cli import Parser
from posekernels._files import write_aside
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.models.published.pkd import family
from posekernels.people import pictures

from . import recipes
from .data.forecasting import CMU, EVALUATED, OBSERVED, PW3D, SAMPLINGS, ForecastData, Layout
from .evaluate import Report
from .loop import Interrupted, fit, prepare
from .options import add_training_arguments, earlier, take_over
from .place import run_place
from .recipes.pkd import network_forecast, published_options, repeat_last, report_of
from .render import check_place
from .run_folder import open_folder

DEFAULT_MODEL = "pkd"
DATASETS = {  # what the published programs do on each: iterations, when the rate drops, evaluation, distiller blocks
    "h36m": {"iter": 40_000, "drop": 30_000, "every": 500, "distill_layer_num": 12},
    "cmu": {"iter": 10_000, "drop": 5_000, "every": 100, "distill_layer_num": 6},
    "pw3d": {"iter": 10_000, "drop": 5_000, "every": 100, "distill_layer_num": 6},
}
FOLDERS = {
    "h36m": "folder with S1/walking_1.txt ... (exponential maps), or data_3d_h36m.npz",
    "cmu": "folder with train/walking/walking_1.txt ... and test",
    "pw3d": "folder with train/*.pkl and test (sequenceFiles)",
}


def named(argv: list[str] | None) -> str | None:
    """The model that a command line asks for, by name or by the checkpoint it goes on from; None where it does not."""
    first, stored = earlier(argv)
    if first.source and not stored:
        with contextlib.suppress(CheckpointError):  # of another network, which the lifters' program may know
            stored = published_options(first.source)
    return first.model or stored.get("model")


def parse(argv: list[str] | None, dataset: str, doc: str) -> tuple[Namespace, type[recipes.Recipe]]:
    """Options, those of the model included; what a checkpoint says of its network stands in for what is not given."""
    first, stored = earlier(argv)
    if first.source and not stored:
        stored = published_options(first.source)
    recipe = recipes.find(first.model or stored.get("model", DEFAULT_MODEL), "motion")

    parser = Parser(prog=f"python -m train.{dataset}", description=doc.splitlines()[0])
    models = ", ".join(recipes.names("motion"))
    parser.add_argument("--model", default=recipe.name, metavar="NAME", help=f"one of {models}")
    group = parser.add_argument_group("data")
    group.add_argument("--data-root", metavar="DIR", help=FOLDERS[dataset])
    group.add_argument("-a", "--actions", default="*", help="comma list")
    group.add_argument("--skip-bad", action="store_true", help="leave unusable files out, and list them")
    if dataset == "cmu":
        group.add_argument("--true-time", action="store_true", help="24 frames per second, true millimetres")
        group.add_argument("--drop-rest-pose", action="store_true", help="without row 0, a synthetic rest pose")
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        help="test windows: all (PKD's program), or the field's 256 (siMLPe's, on Human3.6M) or 8 an action",
    )
    group.add_argument("--averaged", action="store_true", help="errors averaged up to a frame, not at the frame")
    add_training_arguments(parser)
    group = parser.add_argument_group("instead of training")
    group.add_argument(
        "--evaluate", "--model-pth", metavar="CHECKPOINT", help="test a checkpoint, ours or a published one"
    )
    group = parser.add_argument_group("pictures")
    group.add_argument("--render", metavar="FILE", help="history, truth and forecast as FILE.gif, .mp4 or .html")
    group.add_argument("--viz-action", metavar="NAME", help="default: the first test clip's")
    group.add_argument("--viz-start", type=int, default=0, metavar="N", help="first observed frame")
    recipe.add_arguments(parser.add_argument_group(f"--model {recipe.name}"))
    take_over(parser, recipe, stored, bool(first.resume))
    options = parser.parse_args(argv)
    options.joints = stored.get("joints") if first.evaluate else None
    for name, value in (recipe.defaults(starter=options.data_root is None) | DATASETS[dataset]).items():
        if getattr(options, name, None) is None:
            setattr(options, name, recipe.defaults(options.data_root is None).get(name, value))
    if options.sampling is None:
        options.sampling = "256" if (dataset, recipe.name) == ("h36m", "simlpe") and options.data_root else "all"
    return options, recipe


def load_data(options: Namespace, dataset: str) -> ForecastData:
    """The files of ``--data-root``, or the starter set."""
    if options.data_root is None:
        from .data.motion import load_starter_motion

        return load_starter_motion()
    if dataset == "h36m":
        from .data.h36m_expmap import load_h36m_expmap

        return load_h36m_expmap(options.data_root, options.actions, options.skip_bad)
    if dataset == "cmu":
        from .data.cmu_text import load_cmu

        choices = options.true_time, options.drop_rest_pose
        return load_cmu(options.data_root, options.actions, options.skip_bad, *choices)
    from .data.pw3d import load_pw3d

    return load_pw3d(options.data_root, options.skip_bad)


# -- the table -------------------------------------------------------------------------------------------------------
def table(title: str, report: Report, others: dict[str, Report], layout: Layout, most_rows: int = 20) -> str:
    """Lines for a terminal: one per action (if not too many), the figures over all, and those of ``others``.

    Frames stand above the milliseconds, which are nominal on most data sets.
    """
    columns, decimals = list(report.figures), layout.decimals
    rows = report.rows if len(report.rows) <= most_rows else {}
    width = max(map(len, [*rows, *others, "future frame"])) + 2

    def line(name: str, values: dict[str, float]) -> str:
        return f"{name:<{width}}" + "".join(f"{values[c]:>9.{decimals}f}" for c in columns)

    rule = "-" * (width + 9 * len(columns))
    lines = [title, f"{'future frame':<{width}}" + "".join(f"{f:>9}" for f in layout.reported)]
    lines += [f"{'mm at ms':<{width}}" + "".join(f"{c:>9}" for c in columns), rule]
    lines += [line(name, values) for name, values in rows.items()]
    lines += [rule] if rows else []
    return "\n".join(lines + [line(name, other.figures) for name, other in {"all": report, **others}.items()])


def reports(recipe, place) -> tuple[Report, dict[str, Report]]:
    """(the network's, {name: report} of what stands beside it): the same on the joints that move, and the baseline."""
    layout, averaged = recipe.data.layout, recipe.options.averaged
    with torch.no_grad():
        errors, repeated = recipe.errors(place), recipe.errors(place, repeat_last)
    beside = {"all, used joints only": report_of(errors, layout, averaged, used=True)}
    beside["repeat the last frame"] = report_of(repeated, layout, averaged)
    return report_of(errors, layout, averaged), beside


def save_reports(path: Path, data: ForecastData, options: Namespace, report: Report, beside: dict, step) -> None:
    content = {"data": data.name, "unit": "mm", "sampling": options.sampling, "iterations": step, "notes": data.notes}
    content |= {"averaged_up_to_frame": options.averaged, "rows": report.rows, "figures": report.figures}
    content |= {name: other.figures for name, other in beside.items()}
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


# -- the picture -----------------------------------------------------------------------------------------------------
def render(recipe, path: Path) -> Path:
    """A test window: what was seen and what came, beside the forecast, which starts where the history ends."""
    data, options = recipe.data, recipe.options
    clips = [c for c in data.test if options.viz_action in (None, c.action)]
    if not clips:
        there = ", ".join(sorted({c.action for c in data.test}))
        raise ValueError(f"--viz-action: no {options.viz_action!r} (there are: {there})")
    start, length = options.viz_start, OBSERVED + EVALUATED
    if not 0 <= start <= len(clips[0].positions) - length:
        raise ValueError(f"--viz-start must be 0 to {len(clips[0].positions) - length} for {clips[0]}, got {start}")
    window = torch.from_numpy(np.array(clips[0].positions[None, start : start + length], np.float32))
    forecast = forecast_window(recipe, window)
    shown = {}
    for title, future in (("History, then truth", window[:, OBSERVED:]), ("History, then forecast", forecast)):
        points = torch.cat((window[:, :OBSERVED], future), 1)[0].numpy()
        shown[title] = np.stack((points[..., 0], -points[..., 2], points[..., 1]), -1) if data.axes == "y" else points
    floor = min(points[..., 2].min() for points in shown.values())
    skeleton = data.layout.skeleton
    panels = [pictures.Panel(t, p - (0, 0, floor), skeleton, pale="truth" in t) for t, p in shown.items()]
    title = f"{recipe.name}: {data.name}, {clips[0]}, {OBSERVED} frames seen, {EVALUATED} forecast"
    return pictures.save(path, panels, 1000 / data.layout.milliseconds, title=title, now=OBSERVED)


@torch.no_grad()
def forecast_window(recipe, window: torch.Tensor) -> torch.Tensor:
    """[1, 75, J, 3] -> forecast of the whole skeleton [1, 25, J, 3]; joints that no network sees stay put."""

    layout, seen = recipe.data.layout, window[:, :OBSERVED]
    predicted = network_forecast(recipe.model, **recipe.forecast_options())(seen[:, :, list(layout.used)], EVALUATED)
    return layout.restore(predicted.float().cpu(), repeat_last(seen, EVALUATED))


# -- the program -----------------------------------------------------------------------------------------------------
def main(argv: list[str] | None, dataset: str, doc: str) -> int:
    options, recipe_class = parse(argv, dataset, doc)
    first = int(os.environ.get("RANK", 0)) == 0
    if options.data_root is None and first:
        print("no --data-root: using the starter set, a little real motion that ships with the repository")
    check_place("--render", options.render, options.out)
    with run_place(options.device, options.precision) as place:
        data = load_data(options, dataset)
        if first:
            for line in (*data.notes, *(f"skipped: {s}" for s in data.skipped)):
                print(line)
        if options.joints not in (None, len(data.layout.used)):
            raise ValueError(
                f"--evaluate {options.evaluate}: a network of {options.joints} joints; {data.layout.name} has "
                f"{len(data.layout.used)}"
            )
        recipe = recipe_class(options, data)
        if options.render and Path(options.render).suffix not in pictures.SUFFIXES:
            raise ValueError(f"--render {options.render}: expected a name in {', '.join(pictures.SUFFIXES)}")
        recipe.test_windows()  # refuses before hours of training, not after
        folder, step = (Path(options.out) if options.out else None), None
        if options.evaluate:
            prepare(recipe, options, place)
            step = recipe.load_weights(options.evaluate)
            if first and not recipes.is_ours(checkpoint := read_checkpoint(options.evaluate)):
                print(f"{options.evaluate}: published {recipe.name} weights, blocks named {family(checkpoint)}")
            if folder and place.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = open_folder(options, place, f"{dataset}-{recipe.name}")
            if first:
                windows = sum(max(0, len(c.positions) - OBSERVED - 9) for c in data.train)
                print(
                    f"training {recipe.name} on {data.name}: {len(data.train)} clips, {windows} windows, "
                    f"{options.iter} iterations; on {place.device}, {place.precision}; everything goes to {folder}"
                )
            history = fit(recipe, options, place, folder)
            step = history[-1]["step"]
            recipe.load_weights(folder / "last.pt")
        recipe.model.eval()
        report, beside = reports(recipe, place)
        if first:
            count = sum(len(w) for w in recipe.test_windows().values())
            what = "averaged up to the frame" if options.averaged else "at the frame"
            when = f" after {step} iterations" if step is not None else ""
            nominal = " (nominal ms)" if data.layout in (CMU, PW3D) else ""
            title = (
                f"{data.name}: {count} test windows ({options.sampling}), --model {recipe.name}{when}, {what}{nominal}"
            )
            print(table(title, report, beside, data.layout))
            if folder:
                save_reports(folder / "evaluation.json", data, options, report, beside, step)
            if options.render:
                bare = folder is not None and Path(options.render).name == options.render
                print(f"wrote {render(recipe, folder / options.render if bare else Path(options.render))}")
    return 0


def cli(dataset: str, doc: str) -> int:
    """``main`` with the interruption of a training told in one line."""
    try:
        return main(None, dataset, doc)
    except Interrupted as stopped:
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"\n{stopped}", file=sys.stderr)
        return 130
