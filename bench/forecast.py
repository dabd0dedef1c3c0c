"""How far off are forecasts of lifted people? ``python -m bench.forecast --motion DIR [--weights FILE ...]``.

Clips of the subjects that training leaves out (``train.data.open_motion``), made as those of ``bench.people``: two
seconds of a detector's keypoints go through all that ``posekernels lift`` does, the second after them is forecast as
``posekernels forecast`` does it, and compared with what the person did. Bodies are as captured, with knees that come to
be straight (``train.data.legs``).

Each row is mm, mean over 17 joints and clips, so many milliseconds after the last frame seen:

- joints: where they are, from the last middle of the hips on, so that a wrong pose and size count from the start.
- moved: how they have moved since the last frame seen.
- stay: joints, of the clips in which the hips come less than ``STAY`` metres far.

Beside the shipped weights, of lifted people and of joints of one's own, and those of ``--weights`` stand the pose that
stays as last seen, and one that goes on as in its last 0.2 seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posekernels import models
from posekernels.archive import DataError
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.people.commands.forecast import forecast
from posekernels.people.commands.lift import window
from posekernels.people.lifter import lift_person, load_lifter
from posekernels.people.tracking import Track
from posekernels.people.world import Lifted, facing, stand
from posekernels.train.data import open_motion
from posekernels.train.data.legs import straight_legs
from posekernels.train.recipes.any_camera import recordings_by_performer

from .people import FPS, Case, at, synthetic, table

SEEN, AHEAD = 2.0, 1.0  # seconds
APART = 8.0  # seconds from one clip to the next of a recording
STAY = 0.3  # metres
LAST = 0.2  # seconds that tell how fast joints go
MILLISECONDS = (80, 160, 320, 400, 560, 1000)
COLUMNS = tuple(f"{ms} ms" for ms in MILLISECONDS)


@dataclass(frozen=True)
class Clip:
    """A lifted person and what they did next.

    Args:
        lifted: up to the last frame seen.
        truth: [1 + T, 17, 3] metres, z up, from that frame on, the middle of the hips there at 0.
    """

    lifted: Lifted
    truth: np.ndarray

    @property
    def pose(self) -> np.ndarray:
        """[frames, 17, 3] of the world that was found; the middle of the hips at 0 in the last frame."""
        world = self.lifted.people[0].world.astype(np.float64)
        return world - world[-1:, :1]


def pieces(subjects: Sequence[str], folder: str, apart: float = APART) -> list[tuple[str, np.ndarray]]:
    """Names and stretches [T, 17, 3] of these subjects."""
    performers = recordings_by_performer(r for r in open_motion.load(folder) if r.subject in subjects)
    length, step = round((SEEN + AHEAD) * FPS), round(apart * FPS)
    found = []
    for (_, subject), recordings in performers.items():
        for recording in straight_legs(recordings):
            starts = range(0, len(recording) - length + 1, step)
            found += [(f"{subject} {len(found) + n}", recording[s : s + length]) for n, s in enumerate(starts)]
    return found


def lifted(case: Case, lifter) -> Clip | None:
    """What is seen of a case, lifted; None where the person is not seen in the end."""
    now = round(SEEN * case.fps)
    track = Track(1, case.track.points[:now], case.track.scores[:now])
    how = {"focal": case.focal, "fps": case.fps}
    person = lift_person(lifter, track, bridge=15, smooth=window(0.25, case.fps), size=case.size, **how)
    stand([person], case.size, smooth=window(0.5, case.fps), **how)
    if len(person.frames) < now or not np.isfinite(person.world).all():
        return None
    truth = (case.truth[now - 1 :] - case.truth[now - 1, 0]) @ facing(case.up).T
    return Clip(Lifted([person], case.fps, case.size, case.name, length=now), truth)


def stays(clip: Clip, times: np.ndarray) -> np.ndarray:
    """[N, 17, 3] of the pose last seen, whenever."""
    return np.repeat(clip.pose[-1:], len(times), 0)


def goes_on(clip: Clip, times: np.ndarray) -> np.ndarray:
    """[N, 17, 3] that many seconds after the last frame, as fast as in the last ``LAST`` seconds."""
    pose = clip.pose
    speed = (pose[-1] - pose[-1 - round(LAST * clip.lifted.fps)]) / LAST
    return pose[-1] + speed * times[:, None, None]


def forecast_by(net: torch.nn.Module) -> Callable[[Clip, np.ndarray], np.ndarray]:
    """[N, 17, 3] that many seconds after the last frame, as ``posekernels forecast`` has them."""

    def found(clip: Clip, times: np.ndarray) -> np.ndarray:
        done, now, _ = forecast(net, clip.lifted, AHEAD, net.about.fps)
        world = done.people[0].world[now - 1 :].astype(np.float64)
        return at(world - world[0, 0], times * clip.lifted.fps)

    return found


def figures(clips: list[Clip], way: Callable[[Clip, np.ndarray], np.ndarray]) -> dict[str, dict[str, float]]:
    """Millimetres by row and column."""
    times, rows = np.array(MILLISECONDS) / 1000, {"joints": [], "moved": [], "stay": []}
    for clip in clips:
        found, truth = way(clip, times), at(clip.truth, times * clip.lifted.fps)
        off = np.linalg.norm(found - truth, axis=-1).mean(-1) * 1000
        moved = (found - clip.pose[-1]) - (truth - clip.truth[0])
        rows["joints"].append(off)
        rows["moved"].append(np.linalg.norm(moved, axis=-1).mean(-1) * 1000)
        if np.linalg.norm(clip.truth[:, 0], axis=-1).max() < STAY:
            rows["stay"].append(off)
    return {name: dict(zip(COLUMNS, np.mean(found, 0).tolist())) for name, found in rows.items() if found}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.forecast", description=__doc__.split("\n\n")[0])
    parser.add_argument("--motion", required=True, metavar="DIR", help="what python -m train.data.open_motion wrote")
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE", help="beside the shipped ones")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args(argv)
    nets = {"of own joints": "forecaster", "shipped": "forecaster_lifted"} | {w: w for w in options.weights}
    ways = {"stays": stays, "goes on": goes_on} | {name: forecast_by(models.load(w)) for name, w in nets.items()}
    lifter = load_lifter()
    clips = [lifted(case, lifter) for case in synthetic(pieces(open_motion.HELD_OUT, options.motion))]
    clips = [clip for clip in clips if clip is not None]
    if not clips:
        raise DataError(f"--motion {options.motion}: nobody of {', '.join(open_motion.HELD_OUT)} in it, or too short")
    result = {name: figures(clips, way) for name, way in ways.items()}
    for row in result["shipped"]:
        print(table(f"{row}: {len(clips)} clips", {name: rows[row] for name, rows in result.items()}, COLUMNS))
    if options.out:
        with write_aside(options.out) as aside:
            aside.write_text(json.dumps({"clips": len(clips), "mm": result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
