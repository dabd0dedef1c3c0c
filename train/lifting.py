"""The job that ``train.h36m`` and ``train.humaneva`` share: train a 2D-to-3D lifter on a data set, and evaluate it."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from posekernels.cli import Parser

from . import recipes
from .evaluate import Report, evaluate_mean_pose
from .job import Job, Result
from .options import positive
from .place import Place
from .render import add_arguments as add_render_arguments
from .render import check as check_render
from .render import check_place, check_video, render


def add_sampling_arguments(group) -> None:
    """Which frames of a data set are used; the same for all of them."""
    group.add_argument("--downsample", type=positive, default=1, metavar="N", help="keep every N-th frame")
    group.add_argument("--subset", type=float, default=1.0, metavar="F", help="fraction of each training clip")
    group.add_argument("--every", type=positive, metavar="N", help="train on every N-th frame, test on all")


def add_dataset_argument(group, own: str) -> None:
    """``--dataset`` of the published programs, which here are one for each data set.

    Args:
        own: the program's module.
    """
    programs = {"h36m": "h36m", "humaneva15": "humaneva", "3dhp": "mpi_inf_3dhp"}

    def check(text: str) -> str:
        if programs.get(text) != own:
            use = f"python -m train.{programs[text]}" if text in programs else f"one of {', '.join(programs)}"
            raise ArgumentTypeError(f"{text} is not what train.{own} reads; use {use}")
        return text

    group.add_argument("-d", "--dataset", type=check, metavar="NAME", help="published: the data set, by name")


class LiftingJob(Job):
    """Of a data set of clips, ``LiftingData``."""

    tasks = ("lifting",)

    def add_test_arguments(self, group) -> None:
        group.add_argument("--by-subject", action="store_true", help="a table for each test subject too")

    def add_picture_arguments(self, parser: Parser) -> None:
        add_render_arguments(parser)

    def settle(self, options: Namespace, recipe: type[recipes.Recipe], stored: dict) -> None:
        for option, name in (("--render", options.render), ("--viz-export", options.viz_export)):
            check_place(option, name, options.out)

    def check(self, recipe: recipes.Recipe) -> None:
        if self.drawn(recipe.options):
            _, frames = check_render(recipe.data, recipe.options)
            check_video(recipe.options, frames)

    @staticmethod
    def drawn(options: Namespace) -> bool:
        return options.render is not None or bool(options.viz_export)

    def amount(self, recipe: recipes.Recipe) -> str:
        return f"{super().amount(recipe)}, {sum(len(c.keypoints) for c in recipe.data.train)} frames"

    def test(self, recipe: recipes.Recipe, place: Place, step: int | None) -> Result:
        data = recipe.data
        report = recipe.report or recipe.evaluate(place)  # once: the test set may be half a million frames
        baseline = Report.of(evaluate_mean_pose(data.train, data.test, place))
        frames = sum(len(c.keypoints) for c in data.test)
        title = f"{data.name}: {len(data.test)} test clips, {frames} frames, --model {recipe.name}"
        tables = [report.table(title, baseline)]
        if recipe.options.by_subject:
            tables += [alone.table(f"\n{data.name}, subject {who}") for who, alone in report.by_subject.items()]
        content = {"data": data.name, "unit": "mm", **asdict(report), "mean_pose": baseline.figures}
        return Result("\n".join(tables), content)

    def draw(self, recipe: recipes.Recipe, folder: Path | None) -> Iterable[Path]:
        return render(recipe, recipe.data, recipe.options, folder) if self.drawn(recipe.options) else ()
