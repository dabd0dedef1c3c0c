"""Human3.6M for forecasting: exponential maps, or the 3D positions that lifters are trained on.

Exponential maps: ``S{1,5,6,7,8,9,11}/{action}_{1,2}.txt``, 99 columns, 50 frames per second; their archive's published
link is dead. Positions: ``data_3d_h36m.npz``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekernels.archive import DataError
from posekernels.pose.kinematics import H36M_BODY
from posekernels.pose.metrics import action_group

from .expmap import PositionCache
from .forecasting import H36M, OBSERVED, TRAINED, ForecastData, Motion, choose_actions, keep_or_skip
from .published import read_positions

ACTIONS = (
    *("walking", "eating", "smoking", "discussion", "directions", "greeting", "phoning", "posing", "purchases"),
    *("sitting", "sittingdown", "takingphoto", "waiting", "walkingdog", "walkingtogether"),
)
POSITIONS = "data_3d_h36m.npz"
ACTION_OF_GROUP = {"photo": "takingphoto", "walkdog": "walkingdog", "walktogether": "walkingtogether"}
TRAIN_SUBJECTS, TEST_SUBJECTS = ("S1", "S6", "S7", "S8", "S9"), ("S5",)  # S11 is a validation set nobody uses


def load_h36m_expmap(root: str | Path, actions: str = "*", skip_bad: bool = False) -> ForecastData:
    """Read every clip, every second row from the first (25 frames per second).

    Args:
        root: the folder with ``S1`` ..., or the one that holds it as ``h36m`` or ``h3.6m``; or the folder of
            ``data_3d_h36m.npz``, whose positions are taken where there are no exponential maps.
        actions: a comma list of ``ACTIONS``, or "*".
        skip_bad: leave files out that cannot be used, and say so in ``skipped``; else the first one is an error.
    Raises:
        DataError: no such folder, no usable file, or (without ``skip_bad``) a bad one.
    """
    root = Path(root)
    root = next((p for p in (root / "h36m", root / "h3.6m", root / "dataset") if (p / "S1").is_dir()), root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (expected S1/walking_1.txt and so on, or {POSITIONS}, in it)")
    if (root / POSITIONS).is_file() and not (root / "S1").is_dir():
        return load_h36m_positions(root / POSITIONS, actions)
    skipped: list[str] = []

    def clips(subjects, length) -> list[Motion]:
        found = []
        for subject in subjects:
            for action in choose_actions(actions, ACTIONS):
                for take in (1, 2):
                    with keep_or_skip(skip_bad, skipped):
                        path = root / subject / f"{action}_{take}.txt"
                        positions = cache.positions(path)[::2]
                        if len(positions) < length:
                            raise DataError(
                                f"{path}: {len(positions)} frames at 25 per second; a window needs at least {length}"
                            )
                        found.append(Motion(subject, action, take, positions))
        return found

    with PositionCache(H36M_BODY, "h36m") as cache:
        train = clips(TRAIN_SUBJECTS, OBSERVED + TRAINED)
        test = clips(TEST_SUBJECTS, OBSERVED + TRAINED)
    if not train or not test:
        raise DataError(f"{root}: no usable {'training' if not train else 'test'} file ({len(skipped)} were bad)")
    return ForecastData("Human3.6M (exponential maps)", H36M, train, test, "y", [], skipped)


def in_body_axes(world: np.ndarray) -> np.ndarray:
    """[n, 32, 3] positions in any axes to those of each frame's own body, the root at 0.

    x from the right hip to the left, y towards the spine, z ahead: as near as positions come to the axes of the pelvis,
    in which the exponential maps have their joints.
    """
    relative = world - world[:, :1]

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)

    x = unit(relative[:, 6] - relative[:, 1])
    spine = relative[:, 12]
    y = unit(spine - (spine * x).sum(-1, keepdims=True) * x)
    axes = np.stack((x, y, np.cross(x, y)), 1)
    return np.einsum("njc,nac->nja", relative, axes).astype(np.float32)


def load_h36m_positions(path: str | Path, actions: str = "*") -> ForecastData:
    """``load_h36m_expmap`` from positions in the world, the same split: not the published protocol, see ``notes``.

    Raises:
        DataError: not such a file, or nothing in it to train or to test on.
    """
    table = read_positions(Path(path), H36M.joints)

    def clips(subjects) -> list[Motion]:
        found = []
        for subject in (s for s in subjects if s in table):
            for action in choose_actions(actions, ACTIONS):
                groups = {name: action_group(name).lower() for name in sorted(table[subject])}
                names = [name for name, group in groups.items() if ACTION_OF_GROUP.get(group, group) == action]
                for take, name in enumerate(names, 1):
                    found.append(Motion(subject, action, take, in_body_axes(table[subject][name][::2])))
        return found

    train, test = clips(TRAIN_SUBJECTS), clips(TEST_SUBJECTS)
    for part, motions, subjects in (("train", train, TRAIN_SUBJECTS), ("test", test, TEST_SUBJECTS)):
        if not any(len(m.positions) >= OBSERVED + TRAINED for m in motions):
            raise DataError(f"{path}: nothing to {part} on: no clip of 120 frames at 50 per second of {subjects}")
    note = "positions in axes of hips and spine, bones of each subject's own length: figures do not compare with "
    note += "published ones, which are of exponential maps on one skeleton"
    return ForecastData("Human3.6M (3D positions)", H36M, train, test, "y", [note])
