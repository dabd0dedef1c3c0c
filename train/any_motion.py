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
from .recipes.any_camera import (
    clips_by_performer,
    detectors_joints,
    motions,
    recordings_by_performer,
    shares,
    straightened,
)


class AnyMotion(Job):
    name, about, model = "any_motion", __doc__.splitlines()[0], "any_motion"
    held_out = open_motion.HELD_OUT  # subjects that nothing is learnt from

    def add_data_arguments(self, group) -> None:
        group.add_argument("--motion", metavar="DIR", help="free motion beside the starter set")
        group.add_argument("--data-root", metavar="DIR", help="CMU's text set beside the starter set")

    def load(self, options: Namespace) -> SimpleNamespace:
        sets = [load_starter()] + ([load_h36m(options.data_root, "gt")] if options.data_root else [])
        names = [s.name for s in sets]
        performers = {(s.name, n): motions(clips) for s in sets for n, clips in clips_by_performer(s.train).items()}
        test = [motion for s in sets for motion in motions(s.test)]
        if options.motion:
            names.append("open motion")
            free = open_motion.load(options.motion)
            test += [r.points for r in free if r.subject in self.held_out]
            performers |= recordings_by_performer(r for r in free if r.subject not in self.held_out)
        train = straightened(performers)

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
