"""Error of DiffPose's refined pose against the number of steps and hypotheses, from one of our own runs:

    python -m bench.diffpose_steps RUN/best.pt [--out FOLDER]

Writes diffpose_steps.json and diffpose_steps.png: MPJPE on the test clips of the run's data for 1 to 50 deterministic
steps, and for 1 to 20 hypotheses with the noise of DDPM: their mean, and the best of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import torch

from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.models.diffpose import Sampling
from posekernels.train import h36m
from posekernels.train.evaluate import target_of
from posekernels.train.loop import prepare
from posekernels.train.place import run_place

STEPS = (1, 2, 3, 5, 8, 12, 25)
HYPOTHESES = (1, 2, 5, 10, 20)
LIMITS = (12, 25)


def error_mm(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[...]: the mean distance over joints, millimetres."""
    return 1000 * (predicted - target).norm(dim=-1).mean(-1)


def measure(checkpoint: str) -> dict:
    """The figures of one run of ``python -m train.h36m --model diffpose``."""
    options, recipe_class = h36m.JOB.parse(["--evaluate", checkpoint])
    if recipe_class.name != "diffpose":
        raise ValueError(f"{checkpoint}: a run of --model {recipe_class.name}, expected diffpose")
    with run_place("auto") as place:
        data = h36m.JOB.load(options)
        recipe = recipe_class(options, data)
        prepare(recipe, options, place)
        recipe.load_weights(checkpoint)
        recipe.model.eval()
        frames = sum(len(c.keypoints) for c in data.test)
        result = {"data": data.name, "setting": options.setting, "test_frames": frames, "unit": "mm"}
        targets = [torch.from_numpy(target_of(c)).to(place.device) for c in data.test]

        def figure(sampling: Sampling, reduce) -> float:
            total = 0.0
            for number, (clip, target) in enumerate(zip(data.test, targets)):
                hypotheses = recipe.estimates(clip, sampling, seed=1000 + number)[1]
                total += reduce(hypotheses, target).sum().item()
            return total / frames

        def mean(hypotheses, target):
            return error_mm(hypotheses.mean(0), target)

        def best(hypotheses, target):
            return error_mm(hypotheses, target).min(0).values

        before = sum(error_mm(recipe.estimates(c)[0], t).sum().item() for c, t in zip(data.test, targets))
        result["before"] = before / frames
        result["steps"] = {
            limit: {s: figure(Sampling(steps=s, limit=limit), mean) for s in STEPS if s <= limit} for limit in LIMITS
        }
        noisy = {r: Sampling(steps=5, limit=25, eta=1.0, hypotheses=r) for r in HYPOTHESES}
        result["hypotheses"] = {
            "mean": {r: figure(s, mean) for r, s in noisy.items()},
            "best": {r: figure(s, best) for r, s in noisy.items()},
        }
    return result


def draw(result: dict, path: Path) -> None:
    """Two panels: error against steps, error against hypotheses."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for limit, values in result["steps"].items():
        left.plot(*np.array(list(values.items()), float).T, marker="o", label=f"spread over {limit} timesteps")
    left.set(xlabel="denoising steps", ylabel="MPJPE, mm", title="deterministic steps")
    for name, values in result["hypotheses"].items():
        label = {"mean": "their mean", "best": "the best of them"}[name]
        right.plot(*np.array(list(values.items()), float).T, marker="o", label=label)
    right.set(xlabel="hypotheses", title="5 steps with DDPM's noise")
    for axis in (left, right):
        axis.axhline(result["before"], color="grey", linestyle="--", label="before refinement")
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    figure.suptitle(f"DiffPose, {result['setting']} setting, {result['data']}, {result['test_frames']} test frames")
    figure.tight_layout()
    with write_aside(path) as aside:
        figure.savefig(aside, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.diffpose_steps", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="FOLDER")
    options = parser.parse_args(argv)
    result = measure(options.checkpoint)
    options.out.mkdir(parents=True, exist_ok=True)
    with write_aside(options.out / "diffpose_steps.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out / "diffpose_steps.png")
    print(f"before refinement {result['before']:.1f} mm; wrote {options.out / 'diffpose_steps.png'}")
    return 0


if __name__ == "__main__":
    run_cli(main)
