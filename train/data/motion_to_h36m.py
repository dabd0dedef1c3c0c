"""Open motion to the published Human3.6M form: ``python -m train.data.motion_to_h36m MOTION --out DIR``.

Reads what ``train.data.open_motion`` wrote and writes ``data_3d_h36m.npz``, ``data_2d_h36m_gt.npz`` and
``data_2d_h36m_detected.npz``, on which ``--data-root DIR -k gt`` or ``-k detected`` trains. What becomes what:

- Amount: recordings are cut every five seconds, and every n-th stretch is kept, so that ``--minutes`` are left to
  train on and ``--test-minutes`` to test on.
- Subjects: stretches go to S1, S5, S6, S7, S8 in turn; those of the performers that our training always leaves out
  (``open_motion.HELD_OUT``) go to S9 and S11. These are names for splits and cameras, not people.
- Space: people stand where the subject's four cameras look, each stretch turned another way; what does not fit into
  all four images is left out. Trunk and head are where detectors see them, so that skeletons agree.
- ``detected``: keypoints with errors like a detector's: larger at wrists and ankles, some that last, a bias, limbs gone
  astray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from posekernels.archive import DataError, write_npz
from posekernels.cli import Parser, run_cli
from posekernels.pose.camera import denormalise_screen, h36m_cameras, project, world_to_camera
from posekernels.pose.skeleton import H36M_17

from ..recipes.any_camera import ASTRAY, detectors_joints
from . import open_motion
from .cmu_to_h36m import takes, to_32_joints
from .h36m import TEST_SUBJECTS, TRAIN_SUBJECTS
from .motion import FPS

STRETCH = 250  # frames
# How much a joint is off, relative to the mean over joints
ROUGH = np.array([0, 0.9, 1, 1.3, 0.9, 1, 1.3, 0, 0, 0.7, 0.8, 0.8, 1.1, 1.5, 0.8, 1.1, 1.5])[:, None]


def stretches(recordings: list[open_motion.Recording], minutes: float) -> Iterator[np.ndarray]:
    """[<= 250, 17, 3] metres, z up: every n-th five seconds of the recordings, about so many minutes in all."""
    starts = [(r, start) for r in recordings for start in range(0, len(r.points), STRETCH)]
    every = max(1, round(len(starts) * STRETCH / (minutes * 60 * FPS)))
    for recording, start in starts[::every]:
        yield recording.points[start : start + STRETCH]


def detected(keypoints: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Keypoints [T, 17, 2], any unit, as a detector might see them: much as in ``any_camera.Views``."""
    T = len(keypoints)
    unit = np.linalg.norm(keypoints - keypoints[:, :1], axis=-1).mean()
    kept = math.exp(-1 / random.choice([0.2, 1, 3, 8, 20]))  # an error lasts so many frames
    lasting = random.normal(size=(T, 17, 2))
    for t in range(1, T):
        lasting[t] = kept * lasting[t - 1] + math.sqrt(1 - kept**2) * lasting[t]
    heavy = np.exp(0.5 * random.normal(size=(17, 1)))  # in this recording, of this joint
    error = lasting * heavy * np.exp(random.uniform(math.log(0.006), math.log(0.07)))
    error += random.normal(size=(T, 17, 2)) * np.exp(random.uniform(math.log(0.002), math.log(0.012)))
    error += 0.04 * random.uniform(0, 1.5) * random.normal(size=(17, 2))
    error *= ROUGH
    for limb in ASTRAY.numpy():  # a limb taken for something else, for a while
        if random.random() < 0.04 * T / 27:
            start, length = random.integers(T), random.integers(2, 28)
            error[start : start + length] += limb[:, None] * 0.35 * random.normal(size=2)
    return (keypoints + unit * error).astype(np.float32)


def convert(folder: Path, minutes: float, test_minutes: float, seed: int) -> tuple[dict, dict, dict]:
    """(positions_3d, positions_2d, the same with a detector's errors) of the published form."""
    recordings = open_motion.load(folder)
    held = [r for r in recordings if r.subject in open_motion.HELD_OUT]
    rest = [r for r in recordings if r.subject not in open_motion.HELD_OUT]
    for name, found in (("held-out", held), ("other", rest)):
        if not found:
            raise DataError(f"{folder}: no recordings of {name} performers; expected those of train.data.open_motion")
    positions, exact, seen = {}, {}, {}
    random, number = np.random.default_rng(seed), 0
    for subjects, found, amount in ((TRAIN_SUBJECTS, rest, minutes), (TEST_SUBJECTS, held, test_minutes)):
        for stretch in stretches(found, amount):
            subject = subjects[number % len(subjects)]
            number += 1
            cameras = h36m_cameras(subject)
            points = detectors_joints(torch.from_numpy(np.ascontiguousarray(stretch, np.float32))).numpy()
            tables = [table.setdefault(subject, {}) for table in (positions, exact, seen)]
            for world in takes(points, cameras, yaw=2 * np.pi * 0.381966 * number):
                name = f"Motion {len(tables[0])}"
                pixels = []
                for camera in cameras:
                    units = project(world_to_camera(world, camera.orientation, camera.translation), camera.intrinsics)
                    pixels.append(denormalise_screen(units, camera.width, camera.height))
                errors = [detected(p, random) for p in pixels]
                for table, what in zip(tables, (to_32_joints(world), pixels, errors), strict=True):
                    table[name] = what
    return positions, exact, seen


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.data.motion_to_h36m", description=__doc__.split("\n\n")[0])
    parser.add_argument("motion", type=Path, metavar="MOTION", help="what python -m train.data.open_motion wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--minutes", type=float, default=20, help="of motion to train on (default: %(default)s)")
    parser.add_argument("--test-minutes", type=float, default=3, help="to test on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the detector's errors")
    args = parser.parse_args(argv)
    for name in ("minutes", "test_minutes"):
        if not 0 < getattr(args, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name)}")
    files = [args.out / f"data_{what}.npz" for what in ("3d_h36m", "2d_h36m_gt", "2d_h36m_detected")]
    for file in files:
        if file.exists():
            raise DataError(f"{file}: is there already; remove it or give another --out")
    positions, exact, seen = convert(args.motion, args.minutes, args.test_minutes, args.seed)
    metadata = {
        "dataset": "open motion",
        "num_joints": 17,
        "keypoints_symmetry": [list(H36M_17.left), list(H36M_17.right)],
    }
    for file, table in zip(files[1:], (exact, seen), strict=True):
        write_npz(file, positions_2d=table, metadata=metadata)
    write_npz(files[0], positions_3d=positions)
    for subject, takes_ in positions.items():
        print(f"{subject}: {len(takes_)} takes, {sum(map(len, takes_.values())) / FPS:.1f} s")
    print(f"wrote {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    run_cli(main)
