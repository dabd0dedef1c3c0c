"""How does a detector err? ``python -m bench.detector_errors WHEEL``: what ``train/recipes/any_camera.py`` imitates.

WHEEL is pose2sim-0.8.4-py3-none-any.whl from PyPI (BSD-3): two people seen by four calibrated cameras, and OpenPose's
detections in each view (100 frames, 60 Hz). The people are matched between the views, each joint triangulated from the
views that agree on it, and smoothed over time. What a view's detections differ from the projection is that detector's
error, in units of the person (mean distance of the joints from the middle of the hips, half a metre). Another recording
than the one that ``bench.pose2sim`` measures on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np

from posekernels.cli import Parser, run_cli
from posekernels.pose.keypoints import one_trunk
from posekernels.pose.layouts import to_h36m
from posekernels.pose.skeleton import H36M_17
from posekernels.pose.smoothing import savitzky_golay

from .pose2sim import cameras, project

SHA256 = "d16e9bbbc38cdd210ff7ce7c4dea91ce4274012f05a27951dd33d4db95588e81"
SESSION = "Pose2Sim/S00_Demo_BatchSession"
CALIBRATION = f"{SESSION}/S00_Calibration/Calib.qca.txt"
TRIAL = f"{SESSION}/S00_P01_MultiParticipants/S00_P01_T02_Participants1-2/pose"
AGREE = 0.15  # units: a view whose joint is farther off is left out of its triangulation
SAME = 0.2  # units: views whose joints are farther off (median) show somebody else
SHORTEST = 30  # frames of a track
FAR = 0.25  # units: something else was taken for the joint


def people_of(path: Path) -> list[np.ndarray]:
    """[17, 2] pixels of each person in a file of OpenPose's 25 joints; NaN where not seen."""
    rows = [person["pose_keypoints_2d"] for person in json.loads(path.read_text())["people"]]
    found = []
    for row in (r for r in rows if r):
        points = np.array(row, np.float32).reshape(-1, 3)
        points[points[:, 2] <= 0, :2] = np.nan
        found.append(one_trunk(to_h36m(points[:, :2], "body-25b")))
    return found


def unit_of(points: np.ndarray) -> np.ndarray:
    """Mean distance of the joints [..., 17, 2] from the root."""
    return np.nanmean(np.linalg.norm(points - points[..., :1, :], axis=-1), -1)


def triangulated(views: list[np.ndarray], rig: list[dict]) -> tuple[np.ndarray, float]:
    """Joints from the views that agree on them.

    Args:
        views: [17, 2] pixels by each camera of ``rig``.
    Returns:
        [17, 3] metres, NaN where fewer than two views have a joint; how far off the worst view is, units (median).
    """
    rows, right = [], []
    for points, camera in zip(views, rig, strict=True):
        ray = (points - camera["principal"]) / camera["focal"]
        axes = camera["turn"] * np.array([1, -1, -1])[:, None]  # right, down, away
        row = axes[None, :2] - ray[..., None] * axes[2]  # two equations row X = row centre for each joint
        rows.append(row)
        right.append(row @ camera["centre"])
    rows, right = np.stack(rows), np.stack(right)  # [V, 17, 2, 3], [V, 17, 2]
    use = np.isfinite(rows).all((2, 3)).astype(float)
    rows, right = np.nan_to_num(rows), np.nan_to_num(right)
    units = np.array([unit_of(points) for points in views])[:, None]
    for _ in range(3):
        normal = np.einsum("vj,vjik,vjil->jkl", use, rows, rows) + 1e-9 * np.eye(3)
        joints = np.linalg.solve(normal, np.einsum("vj,vjik,vji->jk", use, rows, right)[..., None])[..., 0]
        off = np.stack([np.linalg.norm(project(joints, c) - v, axis=-1) for v, c in zip(views, rig)]) / units
        bad = np.where(use > 0, np.nan_to_num(off), -1)
        use[(bad == bad.max(0)) & (bad > AGREE) & (use.sum(0) > 2)] = 0
    joints[use.sum(0) < 2] = np.nan
    return joints, float(np.nanmedian(off, axis=1).max())


def matched(views: list[list[np.ndarray]], rig: list[dict]) -> list[tuple[list[np.ndarray | None], np.ndarray]]:
    """People of one frame: in each view (None where it does not show them), and in space; best matches first."""
    options = []
    for chosen in itertools.product(*([None, *range(len(view))] for view in views)):
        there = [n for n, c in enumerate(chosen) if c is not None]
        if len(there) >= 3:
            joints, off = triangulated([views[n][chosen[n]] for n in there], [rig[n] for n in there])
            if off < SAME:
                options.append((off - 0.05 * len(there), chosen, joints))  # rather four views than three
    found, taken = [], set()
    for _, chosen, joints in sorted(options, key=lambda option: option[0]):
        places = {(n, c) for n, c in enumerate(chosen) if c is not None}
        if not places & taken:
            taken |= places
            found.append(([None if c is None else view[c] for c, view in zip(chosen, views)], joints))
    return found


def tracks(frames: list[list[tuple]]) -> list[tuple[list, np.ndarray]]:
    """Who is who over time: of each person, the views of its frames and [T, 17, 3] metres, gaps bridged, smoothed."""
    going: list[list[tuple]] = []
    for t, people in enumerate(frames):
        for views, joints in people:
            for track in going:
                if track[-1][0] == t - 1 and np.linalg.norm(np.nanmean(track[-1][2] - joints, 0)) < 0.3:
                    track.append((t, views, joints))
                    break
            else:
                going.append([(t, views, joints)])
    found = []
    for track in (t for t in going if len(t) >= SHORTEST):
        joints = np.stack([at[2] for at in track]).astype(np.float32)
        for place in np.ndindex(joints.shape[1:]):
            column = joints[(slice(None), *place)]
            gaps = np.isnan(column)
            if not gaps.all():
                column[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), column[~gaps])
        found.append(([at[1] for at in track], savitzky_golay(joints, 15)))
    return found


def errors(folder: Path) -> list[np.ndarray]:
    """[T, 17, 2] units for each person in each view; NaN where a joint was not seen."""
    rig = cameras(folder / CALIBRATION)
    files = [sorted((folder / TRIAL).glob(f"cam0{n}_json/*.json")) for n in range(1, len(rig) + 1)]
    found = []
    for views, joints in tracks([matched([people_of(path) for path in at], rig) for at in zip(*files)]):
        for n, camera in enumerate(rig):
            seen = np.stack([np.full((17, 2), np.nan) if at[n] is None else at[n] for at in views])
            if np.isfinite(seen).all(-1).any(1).sum() >= SHORTEST:
                pixels = project(joints, camera)
                found.append((seen - pixels) / unit_of(pixels)[:, None, None])
    return found


def summary(found: list[np.ndarray]) -> list[dict]:
    """Per joint: median and 90th percentile of the error, spread of its mean over a view and around it, and more."""
    rows = []
    for joint, name in enumerate(H36M_17.joints):
        off = [np.linalg.norm(e[:, joint], axis=-1) for e in found]
        close = [np.where(o[:, None] < FAR, e[:, joint], np.nan) for o, e in zip(off, found)]
        means = [np.nanmean(c, 0) for c in close]
        around = np.concatenate([c - m for c, m in zip(close, means)])
        pairs = [(c - m)[1:] * (c - m)[:-1] for c, m in zip(close, means)]
        every = np.concatenate(off)
        rows.append(
            {
                "joint": name,
                "median": np.nanmedian(every),
                "p90": np.nanquantile(every, 0.9),
                "bias": np.sqrt(np.nanmean(np.square(means))),
                "tremor": np.nanstd(around),
                "lasts": np.nanmean(np.concatenate(pairs)) / np.nanmean(np.square(around)),
                "far": np.nanmean(np.where(np.isnan(every), np.nan, every > FAR)),
            }
        )
    return rows


def main() -> int:
    parser = Parser(prog="python -m bench.detector_errors", description=__doc__.split("\n\n")[0])
    parser.add_argument("wheel", metavar="WHEEL", type=Path, help="pose2sim-0.8.4-py3-none-any.whl")
    wheel = parser.parse_args().wheel
    if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{wheel}: not pose2sim-0.8.4-py3-none-any.whl (sha256 {SHA256[:16]}...)")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of joints that a view never shows
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member == CALIBRATION or member.startswith(TRIAL):
                    archive.extract(member, folder)
        found = errors(Path(folder))
        rows = summary(found)
    print(f"{len(found)} people in views, {sum(map(len, found))} frames; units of the person (about half a metre)")
    columns = [key for key in rows[0] if key != "joint"]
    print(f"{'joint':<15}" + "".join(f"{c:>8}" for c in columns))
    for row in rows:
        print(f"{row['joint']:<15}" + "".join(f"{row[c]:>8.3f}" for c in columns))
    return 0


if __name__ == "__main__":
    run_cli(main)
