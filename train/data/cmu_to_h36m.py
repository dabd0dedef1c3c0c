"""CMU motion-prediction text files to the published Human3.6M form: ``python -m train.data.cmu_to_h36m DIR --out DIR``.

Reads ``{train,test}/ACTION/ACTION_k.txt`` (117 columns: root translation and rotation, rotation vectors of 38 joints)
and writes ``data_3d_h36m.npz`` and ``data_2d_h36m_gt.npz``, on which ``--data-root`` trains. What becomes what:

- Subjects: training file k of an action is S1, S5, S6, S7, S8 for k = 1 to 5; the first half of its test file is S9,
  the second half S11. The text set does not say who moved, so these are names for splits, not people.
- Time: the recordings are 120 frames per second (walking comes out at 1.2 m/s); they are resampled to 50. The rest pose
  in row 0 of a file is dropped.
- Space: true size (56.444 mm per unit, not the nominal 70), root translation and rotation applied, z up. Files with no
  root (rebuilt by inverse kinematics) stand in one place, pelvis upright, feet on the ground.
- Cameras: people stand where the subject's four cameras look, each file turned another way. A recording is cut into
  takes, so that in each the whole person is inside all four images. Where a joint leaps (faster than 36 m/s: broken
  rotations, or the rest pose), the recording is cut too. Pieces shorter than half a second are dropped.
- Joints: 17 of the 38; the other 15 of Human3.6M's 32 sit on their nearest ancestor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, write_npz
from posekernels.pose.camera import Camera, denormalise_screen, h36m_cameras, project, world_to_camera
from posekernels.pose.kinematics import CMU_BODY_TRUE_SCALE, forward_kinematics
from posekernels.pose.skeleton import H36M_17, H36M_17_OF_32, H36M_17_OF_CMU_38, H36M_32

from .h36m import TEST_SUBJECTS, TRAIN_SUBJECTS
from .motion import CMU_UNIT, FPS, from_y_up, inside, resample, stage, turned

CMU_FPS = 120.0
LEAP = 0.3  # metres in one frame of 120 per second
SHORTEST = 25  # frames at 50 per second
ACTIONS = {
    "basketball": "Basketball",
    "basketball_signal": "BasketballSignal",
    "directing_traffic": "DirectingTraffic",
    "jumping": "Jumping",
    "running": "Running",
    "soccer": "Soccer",
    "walking": "Walking",
    "washwindow": "WashWindow",
}


def read_rows(path: Path) -> np.ndarray:
    """[T, 117] float64 of one text file.

    Raises:
        DataError: not numbers, other than 117 columns, NaN.
    """
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not comma-separated numbers ({str(error).splitlines()[0]})") from error
    columns = CMU_BODY_TRUE_SCALE.columns
    if rows.shape[1] != columns or len(rows) < 2:
        raise DataError(f"{path}: expected at least 2 rows of {columns} numbers, got {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise DataError(f"{path}: NaN or infinite numbers, first in row {np.argwhere(~np.isfinite(rows))[0][0]}")
    return rows


def world_motion(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The unbroken stretches of one file, each [T, 17, 3] metres, z up, at 50 frames per second."""
    points = forward_kinematics(rows, CMU_BODY_TRUE_SCALE, root="rotated") / 1000 + rows[:, None, :3] * CMU_UNIT
    leaps = 1 + np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=-1).max(1) > LEAP)
    if not rows[1:, :6].any():  # no root was kept: the feet decide the height, and the pelvis stays upright
        points[..., 1] -= np.median(points[..., 1].min(1))
    points = from_y_up(points[:, list(H36M_17_OF_CMU_38)])
    for stretch in np.split(points, leaps):  # the rest pose, a stretch of one frame, goes here too
        if len(stretch) > 1:
            moved = resample(stretch, CMU_FPS)
            if len(moved) >= SHORTEST:
                yield moved


def takes(motion: np.ndarray, cameras: tuple[Camera, ...], yaw: float) -> Iterator[np.ndarray]:
    """Pieces of [T, 17, 3] on the cameras' stage, as long as the whole person stays inside every image."""

    centre = stage(cameras)

    def placed(start: int, end: int) -> np.ndarray:
        piece = turned(motion[start:end], yaw)
        middle = (piece[:, 0, :2].min(0) + piece[:, 0, :2].max(0)) / 2
        return (piece + (*(centre - middle), 0)).astype(np.float32)

    def fits(start: int, end: int) -> bool:
        world = placed(start, end)
        return all(inside(world_to_camera(world, c.orientation, c.translation), c).all() for c in cameras)

    start = 0
    while start + SHORTEST <= len(motion):
        low, high = start + SHORTEST, len(motion)
        if not fits(start, low):
            start += SHORTEST // 5
            continue
        while low < high:  # the longest piece that fits: travelling further never brings a person back into the image
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(start, middle) else (low, middle - 1)
        yield placed(start, low)
        start = low


def to_32_joints(points: np.ndarray) -> np.ndarray:
    """[T, 17, 3] to [T, 32, 3]: joints that are not among the 17 sit on their nearest ancestor that is."""
    source = []
    for joint in range(H36M_32.num_joints):
        while joint not in H36M_17_OF_32:
            joint = H36M_32.parents[joint]
        source.append(H36M_17_OF_32.index(joint))
    return points[:, source]


def recordings(root: Path) -> Iterator[tuple[str, str, Path, slice]]:
    """(subject, action, file, rows) of every text file; whichever there are.

    Raises:
        DataError: no such set here.
    """
    found = False
    for folder, action in ACTIONS.items():
        for number, subject in enumerate(TRAIN_SUBJECTS, 1):
            path = root / "train" / folder / f"{folder}_{number}.txt"
            if path.is_file():
                found = True
                yield subject, action, path, slice(None)
        path = root / "test" / folder / f"{folder}_1.txt"
        if path.is_file():
            found = True
            yield TEST_SUBJECTS[0], action, path, slice(0, 0.5)
            yield TEST_SUBJECTS[1], action, path, slice(0.5, 1)
    if not found:
        raise DataError(
            f"{root}: no CMU text set here; expected train/walking/walking_1.txt, test/walking/walking_1.txt and so on"
        )


def convert(root: Path) -> tuple[dict, dict, dict]:
    """(positions_3d, positions_2d, metadata) of the published form."""
    positions: dict[str, dict[str, np.ndarray]] = {}
    keypoints: dict[str, dict[str, list[np.ndarray]]] = {}
    for number, (subject, action, path, part) in enumerate(recordings(root)):
        rows = read_rows(path)
        if part.stop is not None:
            rows = rows[round(part.start * len(rows)) : round(part.stop * len(rows))]
        cameras = h36m_cameras(subject)
        mine, seen = positions.setdefault(subject, {}), keypoints.setdefault(subject, {})
        take = 0
        for stretch in world_motion(rows):
            yaw = 2 * np.pi * 0.381966 * number  # golden angle: no heading is preferred
            for world in takes(stretch, cameras, yaw):
                name = f"{action} {take}" if take else action
                take += 1
                mine[name] = to_32_joints(world)
                seen[name] = []
                for camera in cameras:
                    points = world_to_camera(world, camera.orientation, camera.translation)
                    units = project(points, camera.intrinsics)
                    seen[name].append(denormalise_screen(units, camera.width, camera.height))
    metadata = {
        "dataset": "CMU mocap",
        "num_joints": 17,
        "keypoints_symmetry": [list(H36M_17.left), list(H36M_17.right)],
    }
    return positions, keypoints, metadata


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.data.cmu_to_h36m",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="the folder that holds train/ and test/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two files go")
    args = parser.parse_args(argv)
    files = args.out / "data_3d_h36m.npz", args.out / "data_2d_h36m_gt.npz"
    try:
        for file in files:
            if file.exists():
                raise DataError(f"{file}: is there already; remove it or give another --out")
        positions, keypoints, metadata = convert(args.root)
        write_npz(files[1], positions_2d=keypoints, metadata=metadata)
        write_npz(files[0], positions_3d=positions)
    except (DataError, OSError) as error:
        print(f"cmu_to_h36m: {error}", file=sys.stderr)
        return 2
    for subject, actions in positions.items():
        frames = sum(map(len, actions.values()))
        print(f"{subject}: {len(actions)} takes, {frames / FPS:.1f} s")
    print(f"wrote {files[0]} and {files[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
