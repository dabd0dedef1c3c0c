"""Motion as lifting finds it, for forecasting: ``python -m train.lifted_motion OUT.npz --motion DIR``.

The recordings that ``train.any_motion`` learns from, half of them on other bodies, are filmed by cameras as people hold
them, seen with a detector's errors (``train.recipes.any_camera``), and go through what ``posekernels lift`` does. Kept
are the last second seen, as it was found, and the second that came after it, as it was. Beside the held-out subjects
those are left out that ways to train are compared on (``open_motion.CHOSEN_ON``).

``train.recipes.any_motion`` has the commands. Some 5,000 stretches take 4 minutes of one core.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posekernels.archive import write_npz
from posekernels.cli import Parser, run_cli
from posekernels.models.forecasting import FPS
from posekernels.people.commands.forecast import resampled
from posekernels.people.commands.lift import window
from posekernels.people.lifter import Lifter, lift_person, load_lifter
from posekernels.people.tracking import Track
from posekernels.people.world import facing, stand

from .any_motion import AnyMotion
from .data import open_motion
from .options import positive
from .recipes.any_camera import Draws, detected, turned
from .recipes.any_motion import Stretches

RATES = 25, 30, 50  # frames per second of the videos
SEEN, KEPT, AHEAD = 2.0, 1.0, 1.0  # seconds: lifted; kept of them; after them
SIZE, FOCAL = (1920, 1080), 1700.0
BATCH = 32
UNIT = 0.001  # metres, of what is written


class Recordings(AnyMotion):
    held_out = (*open_motion.HELD_OUT, *open_motion.CHOSEN_ON)


def filmed(world: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
    """[B, F, 17, 3] metres, z up, in the axes of cameras around it, and up in these [B, 3]."""
    turn = turned(draw)
    root = world[:, :, 0]
    middle = (root.amin(1) + root.amax(1)) / 2
    away = draw.log_uniform(1.8, 12) + (root - middle[:, None]).norm(dim=-1).amax(1)
    aside = draw.normal(2) * torch.tensor([0.15, 0.08])
    place = away[:, None] * torch.cat((aside, torch.ones(len(world), 1)), 1)
    return (world - middle[:, None, None]) @ turn[:, None].mT + place[:, None, None], turn[:, :, 2]


def lifted(pixels: np.ndarray, lifter: Lifter, fps: float) -> np.ndarray:
    """[F, 17, 2] as ``posekernels lift`` puts it in a world, [F, 17, 3] metres, z up."""
    track, how = Track(1, pixels, np.full(pixels.shape[:2], 0.9, np.float32)), {"focal": FOCAL, "fps": fps}
    person = lift_person(lifter, track, size=SIZE, smooth=window(0.25, fps), **how)
    stand([person], SIZE, smooth=window(0.5, fps), **how)
    return person.world


def stretches(
    recordings: list[np.ndarray], shares: list[float], lifter: Lifter, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Past [25, 17, 3] as it is found and future [25, 17, 3] as it was, metres, endlessly.

    The middle of the hips of the last frame seen is at 0 in both, and cameras look along y.
    """
    random = torch.Generator().manual_seed(seed)
    sizes = [(fps, round(SEEN * fps), round(AHEAD * fps)) for fps in RATES]
    sources = [Stretches(recordings, seen, ahead, BATCH, 1, seed, 0, 1, shares, fps) for fps, seen, ahead in sizes]
    kept, ahead = round(KEPT * FPS), round(AHEAD * FPS)
    while True:
        for (fps, seen, _), source in zip(sizes, sources):
            draw = Draws(random, BATCH)
            camera, up = filmed(source.people(draw), draw)
            image = camera[..., :2] / camera[..., 2:].clamp_min(0.4)
            pixels = (detected(image[:, :seen], draw) * FOCAL + torch.tensor(SIZE) / 2).numpy()
            for one, truth, upward in zip(pixels, camera.numpy(), up.numpy()):
                past = resampled(lifted(one, lifter, fps), fps, FPS, kept, seen - 1)
                truth = (truth[seen - 1 :] - truth[seen - 1, 0]) @ facing(upward).T
                future = resampled(truth, fps, FPS, ahead, len(truth) - 1)
                if np.isfinite(past).all():
                    yield past - past[-1, 0], future


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.lifted_motion", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT.npz", type=Path)
    job = Recordings()
    job.add_data_arguments(parser)
    parser.add_argument("--count", type=positive, default=5000, metavar="N", help="stretches (default: %(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="of the lifter (default: the project's)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    data = job.load(options)
    found = stretches(data.train, data.shares, load_lifter(None, options.weights), options.seed)
    past, future = (np.stack(part) for part in zip(*itertools.islice(found, options.count)))
    whole = {name: (part / UNIT).round().astype(np.int16) for name, part in (("past", past), ("future", future))}
    write_npz(options.out, **whole, unit=np.float32(UNIT))
    print(f"{options.out}: {options.count} stretches of people, lifted")
    return 0


if __name__ == "__main__":
    run_cli(main)
