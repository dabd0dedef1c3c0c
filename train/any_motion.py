"""Train the forecaster that comes with the project: ``python -m train.any_motion [--data-root DIR] [--out DIR]``.

Learns from the starter set, and from the recordings in ``--motion`` (what ``train.data.open_motion`` writes; some
subjects of it are held out) and ``--data-root`` (what ``train.data.cmu_to_h36m`` writes).
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import torch

from posekernels.cli import run_cli

from .data import open_motion
from .data.h36m import load_h36m
from .data.motion import load_starter
from .job import Job, Result
from .place import Place
from .recipes import Recipe
from .recipes.any_camera import detectors_joints, motions, shares


class AnyMotion(Job):
    name, about, model = "any_motion", __doc__.splitlines()[0], "any_motion"

    def add_data_arguments(self, group) -> None:
        group.add_argument("--motion", metavar="DIR", help="free motion beside the starter set")
        group.add_argument("--data-root", metavar="DIR", help="CMU's text set beside the starter set")

    def load(self, options: Namespace) -> SimpleNamespace:
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

        return SimpleNamespace(
            name=" and ".join(names),
            train=lifted([r for found in train.values() for r in found]),
            shares=shares(train.values()),
            test=lifted(test),
        )

    def amount(self, recipe: Recipe) -> str:
        return f"{len(recipe.data.train)} recordings"

    def test(self, recipe: Recipe, place: Place, step: int | None) -> Result:
        report = recipe.evaluate(place)
        return Result(report.table(f"held-out motion of {recipe.data.name}"), {"unit": "mm", **asdict(report)})


JOB = AnyMotion()
main = JOB.run

if __name__ == "__main__":
    run_cli(JOB.cli)
