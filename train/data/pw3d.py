"""3DPW: the official sequence files ``{train,validation,test}/*.pkl``, 24 SMPL joints in metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_pickle

from .forecasting import OBSERVED, PW3D, TRAINED, ForecastData, Motion, keep_or_skip
from .published import check_metres


def load_pw3d(root: str | Path, skip_bad: bool = False) -> ForecastData:
    """Read every person of every sequence: joints relative to joint 0 of their frame, no rotation removed.

    Training clips are float32, test clips keep the files' float64, as published. A person with fewer frames than a
    window contributes none; that is usual here and no error.

    Args:
        root: the folder with ``train`` and ``test``, or one that holds them as ``3dpw`` or ``sequenceFiles``.
        skip_bad: leave files out that cannot be used, and say so in ``skipped``; else the first one is an error.
    Raises:
        DataError: no such folder, no usable file, or (without ``skip_bad``) a bad one.
    """
    root = Path(root)
    places = [root, *(root / p for p in ("3dpw", "sequenceFiles", "3dpw/sequenceFiles"))]
    root = next((p for p in places if (p / "train").is_dir()), root)
    skipped: list[str] = []

    def clips(part: str, dtype) -> list[Motion]:
        if not (root / part).is_dir():
            raise DataError(f"{root / part}: no such folder (expected train and test with the sequence files)")
        found = []
        for path in sorted((root / part).glob("*.pkl")):  # published: directory order, which only permutes sums
            with keep_or_skip(skip_bad, skipped):
                for person, positions in enumerate(read_people(path)):
                    found.append(Motion("", path.stem, person, positions.astype(dtype)))
        return found

    train, test = clips("train", np.float32), clips("test", np.float64)
    for part, motions in (("train", train), ("test", test)):
        if not any(len(m.positions) >= OBSERVED + TRAINED for m in motions):
            raise DataError(f"{root / part}: no person with at least {OBSERVED + TRAINED} frames in its *.pkl files")
    notes = ["labels of 3DPW are nominal: 40 ms a frame, the data has 30 frames per second"]
    return ForecastData("3DPW", PW3D, train, test, "y", notes, skipped)


def read_people(path: str | Path) -> list[np.ndarray]:
    """[n, 24, 3] float64 metres for each person of a sequence file, joint 0 at the origin of every frame.

    Raises:
        DataError: not such a file; names the person and what came.
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or "jointPositions" not in content:
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: expected a dictionary with the key 'jointPositions', got {keys}")
    people = []
    for number, joints in enumerate(content["jointPositions"]):
        joints = np.asarray(joints)
        if joints.ndim != 2 or joints.shape[1] != 72 or joints.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: jointPositions[{number}] must be [frames, 72] (24 joints), got {list(joints.shape)}"
            )
        if not np.isfinite(joints).all():
            frame = int(np.argwhere(~np.isfinite(joints))[0, 0])
            raise DataError(f"{path}: jointPositions[{number}] is not finite in frame {frame}")
        positions = joints.astype(np.float64).reshape(-1, 24, 3)
        if len(positions):
            check_metres(f"{path}: jointPositions[{number}]", positions)
        people.append(positions - positions[:, :1])
    return people
