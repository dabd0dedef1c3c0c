"""Train and evaluate a 2D-to-3D lifter: ``python -m train.h36m [--model NAME] [--data-root DIR] [--out DIR]``.

Without ``--data-root`` it uses the starter set, a few minutes of real motion that the repository carries.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from models.registry import read_checkpoint
from posekernels._cli import Parser, run_cli

from . import engine, recipes
from .data.clips import LiftingData
from .data.h36m import load_h36m
from .data.motion import load_starter
from .evaluate import Report, evaluate_mean_pose
from .render import add_arguments as add_render_arguments
from .render import check as check_render
from .render import render

DEFAULT_MODEL = "htnet"


def parse(argv: list[str] | None) -> tuple[Namespace, type[recipes.Recipe]]:
    """Options, those of the chosen model included; a checkpoint's own options stand in for what is not given."""
    early = Parser(add_help=False)
    early.add_argument("--model")
    early.add_argument("--evaluate")
    early.add_argument("-r", "--resume", nargs="?", const="last.pt")
    early.add_argument("--out")
    first, _ = early.parse_known_args(argv)
    if first.evaluate and first.resume:
        raise ValueError("--evaluate and --resume exclude each other: one tests a checkpoint, one goes on training")
    stored = {}
    source = first.evaluate or (Path(first.out) / first.resume if first.resume and first.out else None)
    if source is not None and Path(source).is_file():
        checkpoint = read_checkpoint(source)
        stored = checkpoint["options"] | {"model": checkpoint["model"]} if recipes.is_ours(checkpoint) else {}
    recipe = recipes.find(first.model or stored.get("model", DEFAULT_MODEL), "lifting")

    parser = Parser(prog="python -m train.h36m", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default=recipe.name, metavar="NAME", help=f"one of {', '.join(recipes.names('lifting'))}"
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-root", "--root_path", metavar="DIR", help="folder with data_3d_h36m.npz and the 2D files"
    )
    group.add_argument(
        "-k", "--keypoints", metavar="NAME", help="2D source: data_2d_h36m_NAME.npz (default: cpn_ft_h36m_dbb)"
    )
    group.add_argument("-a", "--actions", default="*", help="comma list of the beginnings of action names")
    group.add_argument("-str", "--subjects-train", default="S1,S5,S6,S7,S8", metavar="LIST")
    group.add_argument("-ste", "--subjects-test", default="S9,S11", metavar="LIST")
    group.add_argument("--downsample", type=engine.positive, default=1, metavar="N", help="keep every N-th frame")
    group.add_argument("--subset", type=float, default=1.0, metavar="F", help="fraction of each training video")
    group.add_argument("--every", type=engine.positive, metavar="N", help="train on every N-th frame, test on all")
    engine.add_arguments(parser)
    group = parser.add_argument_group("instead of training")
    group.add_argument("--evaluate", metavar="CHECKPOINT", help="test a checkpoint, ours or a published one")
    group.add_argument("--by-subject", action="store_true", help="a table for each test subject too")
    add_render_arguments(parser)
    mine = parser.add_argument_group(f"--model {recipe.name}")
    recipe.add_arguments(mine)
    if first.resume:
        keep = stored.keys() - {"out", "resume", "overwrite", "device", "progress", "render", "evaluate"}
        parser.set_defaults(**{k: stored[k] for k in keep})
    else:
        parser.set_defaults(**{k: stored[k] for k in recipe.architecture if k in stored})
    options = parser.parse_args(argv)
    for name, value in recipe.defaults(starter=options.data_root is None).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    return options, recipe


def load_data(options: Namespace) -> LiftingData:
    """The published files of ``--data-root``, or the starter set."""
    chosen = {"actions": options.actions, "downsample": options.downsample, "subset": options.subset}
    if options.data_root is None:
        return load_starter(options.keypoints or "gt", **chosen)
    return load_h36m(
        options.data_root,
        options.keypoints or "cpn_ft_h36m_dbb",
        options.subjects_train,
        options.subjects_test,
        **chosen,
    )


def print_report(report: Report, data: LiftingData, baseline: Report, options: Namespace) -> None:
    frames = sum(len(c.keypoints) for c in data.test)
    print(report.table(f"{data.name}: {len(data.test)} test clips, {frames} frames, --model {options.model}", baseline))
    if options.by_subject:
        for subject, alone in report.by_subject.items():
            print(alone.table(f"\n{data.name}, subject {subject}"))


def save_report(folder: Path, report: Report, data: LiftingData, baseline: Report) -> None:
    content = {"data": data.name, "unit": "mm", **asdict(report), "mean_pose": baseline.figures}
    with engine.write_aside(folder / "evaluation.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    options, recipe_class = parse(argv)
    first = int(os.environ.get("RANK", 0)) == 0
    if options.data_root is None and first:
        print("no --data-root: using the starter set, a little real motion that ships with the repository")
    with engine.run_place(options.device, options.precision) as place:
        data = load_data(options)
        recipe = recipe_class(options, data)
        if options.render or options.viz_export:
            check_render(data, options)
        folder = Path(options.out) if options.out else None
        if options.evaluate:
            engine.prepare(recipe, options, place)
            recipe.load_weights(options.evaluate)
            if folder and place.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = engine.open_folder(options, place, f"h36m-{recipe.name}")
            if first:
                print(
                    f"training {recipe.name} on {data.name}: {len(data.train)} clips, "
                    f"{sum(len(c.keypoints) for c in data.train)} frames; on {place.device}, {place.precision}"
                    + (f", {place.world} processes" if place.world > 1 else "")
                    + f"; everything goes to {folder}"
                )
            engine.fit(recipe, options, place, folder)
        recipe.model.eval()
        if not (options.evaluate and options.render):
            with place.autocast():
                report = recipe.evaluate(place)
            baseline = Report.of(evaluate_mean_pose(data.train, data.test, place))
            if first:
                print_report(report, data, baseline, options)
                if folder:
                    save_report(folder, report, data, baseline)
        if (options.render or options.viz_export) and first:
            for path in render(recipe, data, options, folder):
                print(f"wrote {path}")
    return 0


def cli() -> int:
    try:
        return main()
    except engine.Interrupted as stopped:
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"\n{stopped}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    run_cli(cli)
