"""Human3.6M as exponential maps: ``S{1,5,6,7,8,9,11}/{action}_{1,2}.txt``, 99 columns, 50 frames per second."""

from __future__ import annotations

from pathlib import Path

from posekernels.pose.kinematics import H36M_BODY

from .errors import DataError
from .expmap import PositionCache
from .forecasting import H36M, OBSERVED, TRAINED, ForecastData, Motion, choose_actions, keep_or_skip

ACTIONS = (
    *("walking", "eating", "smoking", "discussion", "directions", "greeting", "phoning", "posing", "purchases"),
    *("sitting", "sittingdown", "takingphoto", "waiting", "walkingdog", "walkingtogether"),
)
TRAIN_SUBJECTS, TEST_SUBJECTS = ("S1", "S6", "S7", "S8", "S9"), ("S5",)  # S11 is a validation set nobody uses


def load_h36m_expmap(root: str | Path, actions: str = "*", skip_bad: bool = False) -> ForecastData:
    """Read every clip, every second row from the first (25 frames per second).

    Args:
        root: the folder with ``S1`` ..., or the one that holds it as ``h36m`` or ``h3.6m``.
        actions: a comma list of ``ACTIONS``, or "*".
        skip_bad: leave files out that cannot be used, and say so in ``skipped``; else the first one is an error.
    Raises:
        DataError: no such folder, no usable file, or (without ``skip_bad``) a bad one.
    """
    root = Path(root)
    root = next((p for p in (root / "h36m", root / "h3.6m", root / "dataset") if (p / "S1").is_dir()), root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (expected S1/walking_1.txt and so on in it)")
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
