"""The job that ``train.h36m`` and ``train.humaneva`` share: train a 2D-to-3D lifter on a data set, and evaluate it."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from posekernels._cli import Parser
from posekernels._files import write_aside

from . import recipes
from .data.clips import LiftingData
from .evaluate import Report, evaluate_mean_pose
from .loop import Interrupted, fit, prepare
from .options import add_training_arguments, earlier, positive, take_over
from .place import run_place
from .render import add_arguments as add_render_arguments
from .render import check as check_render
from .render import check_place, render
from .run_folder import open_folder


@dataclass(frozen=True)
class Job:
    """One data set's command line.

    Args:
        name: its module under ``train``, and the beginning of the names of its run folders.
        about: the first line of ``--help``.
        model: default of ``--model``.
        add_data_arguments: adds the options that say what to read.
        load: options -> the data; without ``--data-root`` too, if it can do without.
        defaults: {model: options that this data set is usually trained with, in place of the model's own}.
        tasks: of the recipes that the program takes; another job than this one trains those of other tasks.
    """

    name: str
    about: str
    model: str
    add_data_arguments: Callable
    load: Callable[[Namespace], LiftingData]
    defaults: dict[str, dict] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("lifting",)


def add_sampling_arguments(group) -> None:
    """Which frames of a data set are used; the same for all of them."""
    group.add_argument("--downsample", type=positive, default=1, metavar="N", help="keep every N-th frame")
    group.add_argument("--subset", type=float, default=1.0, metavar="F", help="fraction of each training clip")
    group.add_argument("--every", type=positive, metavar="N", help="train on every N-th frame, test on all")


def parse(job: Job, argv: list[str] | None) -> tuple[Namespace, type[recipes.Recipe]]:
    """Options, those of the chosen model included; a checkpoint's own options stand in for what is not given."""
    first, stored = earlier(argv)
    recipe = recipes.find(first.model or stored.get("model", job.model), *job.tasks)

    parser = Parser(prog=f"python -m train.{job.name}", description=job.about)
    parser.add_argument(
        "--model", default=recipe.name, metavar="NAME", help=f"one of {', '.join(recipes.names(*job.tasks))}"
    )
    job.add_data_arguments(parser.add_argument_group("data"))
    add_training_arguments(parser)
    group = parser.add_argument_group("instead of training")
    group.add_argument("--evaluate", metavar="CHECKPOINT", help="test a checkpoint, ours or a published one")
    group.add_argument("--by-subject", action="store_true", help="a table for each test subject too")
    add_render_arguments(parser)
    mine = parser.add_argument_group(f"--model {recipe.name}")
    recipe.add_arguments(mine)
    parser.set_defaults(**job.defaults.get(recipe.name, {}))
    take_over(parser, recipe, stored, bool(first.resume))
    options = parser.parse_args(argv)
    for name, value in recipe.defaults(starter=options.data_root is None).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    return options, recipe


def print_report(report: Report, data: LiftingData, baseline: Report, options: Namespace) -> None:
    frames = sum(len(c.keypoints) for c in data.test)
    print(report.table(f"{data.name}: {len(data.test)} test clips, {frames} frames, --model {options.model}", baseline))
    if options.by_subject:
        for subject, alone in report.by_subject.items():
            print(alone.table(f"\n{data.name}, subject {subject}"))


def save_report(folder: Path, report: Report, data: LiftingData, baseline: Report) -> None:
    content = {"data": data.name, "unit": "mm", **asdict(report), "mean_pose": baseline.figures}
    with write_aside(folder / "evaluation.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")


def run(job: Job, argv: list[str] | None = None) -> int:
    """Everything ``python -m train.<job>`` does; returns the exit code."""
    options, recipe_class = parse(job, argv)
    first = is_first()
    for option, name in (("--render", options.render), ("--viz-export", options.viz_export)):
        check_place(option, name, options.out)
    with run_place(options.device, options.precision) as place:
        data = job.load(options)
        recipe = recipe_class(options, data)
        data = recipe.data  # the recipe may have changed what it is tested on
        drawn = options.render is not None
        if drawn or options.viz_export:
            check_render(data, options)
        folder = Path(options.out) if options.out else None
        if options.evaluate:
            prepare(recipe, options, place)
            recipe.load_weights(options.evaluate)
            if folder and place.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = open_folder(options, place, f"{job.name}-{recipe.name}")
            if first:
                print(
                    f"training {recipe.name} on {data.name}: {len(data.train)} clips, "
                    f"{sum(len(c.keypoints) for c in data.train)} frames; on {place.device}, {place.precision}"
                    + (f", {place.world} processes" if place.world > 1 else "")
                    + f"; everything goes to {folder}"
                )
            fit(recipe, options, place, folder)
        recipe.model.eval()
        with place.autocast():
            report = recipe.evaluate(place)
        baseline = Report.of(evaluate_mean_pose(data.train, data.test, place))
        if first:
            print_report(report, data, baseline, options)
            if folder:
                save_report(folder, report, data, baseline)
        if (drawn or options.viz_export) and first:
            for path in render(recipe, data, options, folder):
                print(f"wrote {path}")
    return 0


def cli(job: Job) -> int:
    """``run`` for ``run_cli``: an interrupted run says how to go on."""
    try:
        return run(job)
    except Interrupted as stopped:
        if is_first():
            print(f"\n{stopped}", file=sys.stderr)
        return 130


def is_first() -> bool:
    """Whether this is the process that prints, under torchrun."""
    return int(os.environ.get("RANK", 0)) == 0
