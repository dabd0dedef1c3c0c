"""What ``train.cmu``, ``train.pw3d`` and, for forecasters, ``train.h36m`` share: options, the table, the picture.

Errors are in millimetres, at the frame, over the whole skeleton as published: joints that cannot be wrong count with 0.
"""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.cli import Parser
from posekernels.models.load import is_run, unwrap
from posekernels.models.published.pkd import family
from posekernels.people import pictures

from . import recipes
from .data.forecasting import CMU, EVALUATED, OBSERVED, PW3D, SAMPLINGS, ForecastData, Layout
from .evaluate import Report
from .job import Job, Result
from .options import earlier
from .place import is_first
from .recipes.pkd import network_forecast, published_options, repeat_last, report_of
from .render import check_place

DATASETS = {  # what the published programs do on each: iterations, when the rate drops, evaluation, distiller blocks
    "h36m": {"iter": 40_000, "drop": 30_000, "every": 500, "distill_layer_num": 12},
    "cmu": {"iter": 10_000, "drop": 5_000, "every": 100, "distill_layer_num": 6},
    "pw3d": {"iter": 10_000, "drop": 5_000, "every": 100, "distill_layer_num": 6},
}
WANTED = {
    "h36m": ("h36m", "h3.6m", "S1", "data_3d_h36m.npz"),
    "cmu": ("cmu_mocap",),
    "pw3d": ("3dpw", "sequenceFiles"),
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
    with torch.no_grad(), torch.autocast(place.device.type, enabled=False):
        errors, repeated = recipe.errors(place), recipe.errors(place, repeat_last)
    beside = {"all, used joints only": report_of(errors, layout, averaged, used=True)}
    beside["repeat the last frame"] = report_of(repeated, layout, averaged)
    return report_of(errors, layout, averaged), beside


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


# -- the job ---------------------------------------------------------------------------------------------------------
class ForecastJob(Job):
    model, tasks = "pkd", ("motion",)
    evaluate = ("--evaluate", "--model-pth")
    tested = "last.pt"  # as published: the table is of the last iteration
    without = "using the starter set, a little real motion that ships with the repository"

    def __init__(self, dataset: str, about: str):
        self.name, self.about, self.usual, self.wanted = dataset, about, DATASETS[dataset], WANTED[dataset]

    def published_options(self, path: Path) -> dict:
        return published_options(path)

    def add_data_arguments(self, group) -> None:
        group.add_argument("--data-root", metavar="DIR", help=FOLDERS[self.name])
        group.add_argument("-a", "--actions", default="*", help="comma list")
        group.add_argument("--skip-bad", action="store_true", help="leave unusable files out, and list them")
        if self.name == "cmu":
            group.add_argument("--true-time", action="store_true", help="24 frames per second, true millimetres")
            group.add_argument("--drop-rest-pose", action="store_true", help="without row 0, a synthetic rest pose")
        group.add_argument(
            "--sampling",
            choices=SAMPLINGS,
            help="test windows: all (PKD's program), or the field's 256 (siMLPe's, on Human3.6M) or 8 an action",
        )
        group.add_argument("--averaged", action="store_true", help="errors averaged up to a frame, not at the frame")

    def add_picture_arguments(self, parser: Parser) -> None:
        group = parser.add_argument_group("pictures")
        group.add_argument("--render", metavar="FILE", help="history, truth and forecast as FILE.gif, .mp4 or .html")
        group.add_argument("--viz-action", metavar="NAME", help="default: the first test clip's")
        group.add_argument("--viz-start", type=int, default=0, metavar="N", help="first observed frame")

    def settle(self, options: Namespace, recipe: type[recipes.Recipe], stored: dict) -> None:
        if self.name == "pw3d" and options.actions != "*":
            raise ValueError(f"--actions {options.actions}: the sequences of 3DPW have no actions to choose from")
        options.joints = stored.get("joints") if options.evaluate else None
        if options.sampling is None:
            options.sampling = "256" if (self.name, recipe.name) == ("h36m", "simlpe") and options.data_root else "all"
        check_place("--render", options.render, options.out)
        if options.render and Path(options.render).suffix not in pictures.SUFFIXES:
            raise ValueError(f"--render {options.render}: expected a name in {', '.join(pictures.SUFFIXES)}")

    def load(self, options: Namespace) -> ForecastData:
        """The files of ``--data-root``, or the starter set."""
        data = self.read(options)
        if is_first():
            for line in (*data.notes, *(f"skipped: {s}" for s in data.skipped)):
                print(line)
        if options.joints not in (None, len(data.layout.used)):
            raise ValueError(
                f"--evaluate {options.evaluate}: a network of {options.joints} joints; {data.layout.name} has "
                f"{len(data.layout.used)}"
            )
        return data

    def read(self, options: Namespace) -> ForecastData:
        if options.data_root is None:
            from .data.motion import load_starter_motion

            return load_starter_motion(options.actions)
        if self.name == "h36m":
            from .data.h36m_expmap import load_h36m_expmap

            return load_h36m_expmap(options.data_root, options.actions, options.skip_bad)
        if self.name == "cmu":
            from .data.cmu_text import load_cmu

            choices = options.true_time, options.drop_rest_pose
            return load_cmu(options.data_root, options.actions, options.skip_bad, *choices)
        from .data.pw3d import load_pw3d

        return load_pw3d(options.data_root, options.skip_bad)

    def check(self, recipe: recipes.Recipe) -> None:
        recipe.test_windows()  # refuses before hours of training, not after

    def amount(self, recipe: recipes.Recipe) -> str:
        windows = sum(max(0, len(c.positions) - OBSERVED - 9) for c in recipe.data.train)
        return f"{super().amount(recipe)}, {windows} windows, {recipe.options.iter} iterations"

    def test(self, recipe: recipes.Recipe, place, step: int | None) -> Result:
        data, options = recipe.data, recipe.options
        report, beside = reports(recipe, place)
        count = sum(len(w) for w in recipe.test_windows().values())
        what = "averaged up to the frame" if options.averaged else "at the frame"
        when = f" after {step} iterations" if step is not None else ""
        nominal = " (nominal ms)" if data.layout in (CMU, PW3D) else ""
        title = f"{data.name}: {count} test windows ({options.sampling}), --model {recipe.name}{when}, {what}{nominal}"
        content = {"data": data.name, "unit": "mm", "sampling": options.sampling, "iterations": step}
        content |= {"notes": data.notes, "averaged_up_to_frame": options.averaged}
        content |= {"rows": report.rows, "figures": report.figures}
        content |= {name: other.figures for name, other in beside.items()}
        text = table(title, report, beside, data.layout)
        if options.evaluate and not is_run(checkpoint := read_checkpoint(options.evaluate)):
            found = family(unwrap(checkpoint))
            text = f"{options.evaluate}: published {recipe.name} weights, blocks named {found}\n{text}"
        return Result(text, content)

    def draw(self, recipe: recipes.Recipe, folder: Path | None) -> Iterable[Path]:
        name = recipe.options.render
        if name:
            bare = folder is not None and Path(name).name == name
            yield render(recipe, folder / name if bare else Path(name))
