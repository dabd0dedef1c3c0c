"""Train the forecaster that comes with the project: ``python -m train.any_motion [--data-root DIR] [--out DIR]``.

Learns from the starter set, and from the recordings in ``--motion`` (what ``train.data.open_motion`` writes; some
subjects of it are held out) and ``--data-root`` (what ``train.data.cmu_to_h36m`` writes).
"""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import torch

from posekernels._cli import Parser, run_cli
from posekernels._files import write_aside

from .data import open_motion
from .data.h36m import load_h36m
from .data.motion import load_starter
from .loop import fit, prepare
from .options import add_training_arguments, earlier, take_over
from .place import run_place
from .recipes.any_camera import detectors_joints, motions, shares
from .recipes.any_motion import AnyMotionRecipe
from .run_folder import open_folder


def parse(argv: list[str] | None) -> Namespace:
    """Options; those of a checkpoint stand in for what is not given."""
    first, stored = earlier(argv)
    parser = Parser(prog="python -m train.any_motion", description=__doc__.splitlines()[0])
    parser.add_argument("--motion", metavar="DIR", help="free motion beside the starter set")
    parser.add_argument("--data-root", metavar="DIR", help="CMU's text set beside the starter set")
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="test a checkpoint instead of training")
    add_training_arguments(parser)
    AnyMotionRecipe.add_arguments(parser.add_argument_group("network"))
    take_over(parser, AnyMotionRecipe, stored, bool(first.resume))
    options = parser.parse_args(argv)
    for name, value in AnyMotionRecipe.defaults(starter=options.data_root is None).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    AnyMotionRecipe.name = "any_motion"
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    sets = [load_starter()] + ([load_h36m(options.data_root, "gt")] if options.data_root else [])
    names = [s.name for s in sets]
    train = {s.name: motions(s.train) for s in sets}
    test = [motion for s in sets for motion in motions(s.test)]
    if options.motion:
        names.append("open motion")
        for recording in open_motion.load(options.motion):
            held_out = recording.subject in open_motion.HELD_OUT
            (test if held_out else train.setdefault(recording.set, [])).append(recording.points)

    def lifted(recordings: list[np.ndarray]) -> list[np.ndarray]:
        return [detectors_joints(torch.from_numpy(np.ascontiguousarray(r)).float()).numpy() for r in recordings]

    data = SimpleNamespace(
        train=lifted([r for found in train.values() for r in found]), shares=shares(train.values()), test=lifted(test)
    )
    with run_place(options.device, options.precision) as place:
        recipe = AnyMotionRecipe(options, data)
        folder = None
        if options.evaluate:
            prepare(recipe, options, place)
            recipe.load_weights(options.evaluate)
        else:
            folder = open_folder(options, place, "any_motion")
            fit(recipe, options, place, folder)
        recipe.model.eval()
        report = recipe.evaluate(place)
        print(report.table(f"held-out motion of {' and '.join(names)}"))
        if folder and place.rank == 0:
            with write_aside(folder / "evaluation.json") as path:
                path.write_text(json.dumps({"unit": "mm", **asdict(report)}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
