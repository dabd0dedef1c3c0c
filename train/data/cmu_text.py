"""The CMU mocap text set: ``{train,test}/{action}/{action}_{k}.txt``, 117 columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from posekernels.archive import DataError
from posekernels.pose.kinematics import CMU_BODY, CMU_BODY_TRUE_SCALE

from .expmap import PositionCache, numbered_files
from .forecasting import CMU, OBSERVED, TRAINED, ForecastData, Motion, choose_actions, keep_or_skip

ACTIONS = (
    *("basketball", "basketball_signal", "directing_traffic", "jumping"),
    *("running", "soccer", "walking", "washwindow"),
)
# The recordings are 120 frames per second: every fifth row is 24 frames per second, the nearest to what is claimed.
TRUE_STEP, TRUE_MILLISECONDS = 5, 1000 / 24
CMU_TRUE = dataclasses.replace(CMU, name="CMU mocap, true time and scale", milliseconds=TRUE_MILLISECONDS)


def load_cmu(
    root: str | Path,
    actions: str = "*",
    skip_bad: bool = False,
    true_time: bool = False,
    drop_rest_pose: bool = False,
) -> ForecastData:
    """Read every clip. Published protocol: every second row from the first, 70 mm a unit.

    Args:
        root: the folder with ``train`` and ``test``, or the one that holds it as ``cmu_mocap``.
        actions: a comma list of ``ACTIONS``, or "*".
        skip_bad: leave files out that cannot be used, and say so in ``skipped``; else the first one is an error.
        true_time: every fifth row (24 frames per second; the recordings have 120), 56.444 mm a unit, and no rest pose:
            true milliseconds and true millimetres, not comparable with published figures.
        drop_rest_pose: leave row 0 out, a synthetic rest pose that the published loaders keep.
    Raises:
        DataError: no such folder, an action without files, no usable file, or (without ``skip_bad``) a bad one.
    """
    root = Path(root)
    root = root / "cmu_mocap" if (root / "cmu_mocap" / "train").is_dir() else root
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise DataError(f"{root / part}: no such folder (expected train and test, with a folder per action)")
    skipped: list[str] = []
    first, step = int(drop_rest_pose or true_time), TRUE_STEP if true_time else 2

    def clips(part: str) -> list[Motion]:
        found = []
        for action in choose_actions(actions, ACTIONS):
            folder, files = root / part / action, []
            with keep_or_skip(skip_bad, skipped):
                files = numbered_files(folder, action) if folder.is_dir() else []
                if not files:
                    raise DataError(f"{folder}: no {action}_1.txt ... in it; expected the clips of this action")
            for take, path in files:
                with keep_or_skip(skip_bad, skipped):
                    positions = cache.positions(path)[first::step]
                    if len(positions) < OBSERVED + TRAINED:
                        raise DataError(
                            f"{path}: {len(positions)} frames after taking every {step}th row; a window needs at "
                            f"least {OBSERVED + TRAINED}"
                        )
                    found.append(Motion("", action, take, positions))
        return found

    body, kind = (CMU_BODY_TRUE_SCALE, "cmu-true-scale") if true_time else (CMU_BODY, "cmu")
    with PositionCache(body, kind) as cache:
        train, test = clips("train"), clips("test")
    if not train or not test:
        raise DataError(f"{root}: no usable {'training' if not train else 'test'} file ({len(skipped)} were bad)")
    if true_time:
        notes = ["true time and scale: 24 frames per second, 56.444 mm a unit; not the published protocol"]
    else:
        notes = ["nominal time (the recordings have 120 frames per second) and nominal scale (24 % long), as published"]
        notes += ["without the rest pose in row 0, unlike the published protocol"] if drop_rest_pose else []
    return ForecastData("CMU mocap", CMU_TRUE if true_time else CMU, train, test, "y", notes, skipped)
