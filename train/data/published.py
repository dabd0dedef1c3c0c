"""What the published lifting files of Human3.6M and HumanEva share: reading, checking, choosing, preparing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_npz
from posekernels.checks import nearest
from posekernels.pose.camera import Camera, normalise_screen, world_to_camera
from posekernels.pose.metrics import action_group
from posekernels.pose.skeleton import Skeleton

from .clips import Clip, LiftingData


def keypoint_file(root: Path, dataset: str, keypoints: str) -> Path:
    """The 2D file of a source of keypoints.

    Raises:
        DataError: no such file; tells the nearest source that is there.
    """
    path = root / f"data_2d_{dataset}_{keypoints}.npz"
    if not path.is_file():
        prefix = f"data_2d_{dataset}_"
        have = sorted(p.stem.removeprefix(prefix) for p in root.glob(f"{prefix}*.npz"))
        raise DataError(f"{path}: no such file{nearest(keypoints, have)} (keypoints here: {', '.join(have) or 'none'})")
    return path


def read_positions(path: Path, joints: int) -> dict[str, dict[str, np.ndarray]]:
    """{subject: {action: [T, joints, 3] float32}}, metres, world.

    Raises:
        DataError: not such a file; another number of joints; no frames; NaN or infinite coordinates; not in metres.
    """
    table = read_npz(path, "positions_3d")["positions_3d"]
    _check_table(path, "positions_3d", table)
    result: dict[str, dict[str, np.ndarray]] = {}
    for subject, actions in table.items():
        result[subject] = {}
        for action, array in actions.items():
            where = f"{path}: {subject} {action!r}"
            array = _array(where, array, f"[T, {joints}, 3]")
            if array.ndim != 3 or array.shape[1:] != (joints, 3) or not len(array):
                raise DataError(f"{where}: expected [T, {joints}, 3], got {list(array.shape)}")
            _check_finite(where, array)
            check_metres(where, array)
            result[subject][action] = array
    return result


def read_keypoints(path: Path, cameras: int) -> tuple[dict[str, dict[str, list[np.ndarray]]], tuple, tuple, str | None]:
    """({subject: {action: [per camera [T, K, >= 2] float32 pixels]}}, left, right keypoints, name of the data).

    DiffPose's mixture files (``train.data.mixture``) count as the component of each keypoint that has the most weight.
    The name is the metadata's "dataset": files converted from other data have it, the published ones have none.
    NaN is looked for when clips are prepared, so that only what is used must be whole.

    Raises:
        DataError: not such a file; other than K points; a symmetry that is not pairs of points.
    """
    archive = read_npz(path, "positions_2d", "metadata")
    table, metadata = archive["positions_2d"], archive["metadata"]
    _check_table(path, "positions_2d", table)
    symmetry = metadata.get("keypoints_symmetry") if isinstance(metadata, dict) else None
    points = metadata.get("num_joints") if isinstance(metadata, dict) else None
    try:
        left, right = (tuple(int(i) for i in side) for side in symmetry)
    except (TypeError, ValueError):
        raise DataError(f"{path}: metadata must hold keypoints_symmetry = [left, right], got {symmetry!r}") from None
    result: dict[str, dict[str, list[np.ndarray]]] = {}
    for subject, actions in table.items():
        result[subject] = {}
        for action, views in actions.items():
            where = f"{path}: {subject} {action!r}"
            if not isinstance(views, (list, tuple, np.ndarray)):
                raise DataError(f"{where}: expected a list of {cameras} arrays, got {type(views).__name__}")
            arrays = [_heaviest(_array(where, v, "[T, K, 2]")) for v in views]
            for camera, array in enumerate(arrays):
                points = array.shape[1] if points is None and array.ndim == 3 else points
                if array.ndim != 3 or array.shape[1] != points or array.shape[2] < 2:
                    raise DataError(f"{where} camera {camera}: expected [T, {points}, 2], got {list(array.shape)}")
            result[subject][action] = arrays
    used = left + right
    if len(left) != len(right) or len(set(used)) != len(used) or not all(0 <= i < (points or 0) for i in used):
        raise DataError(f"{path}: keypoints_symmetry must pair points below {points}, got {[left, right]}")
    name = metadata.get("dataset")
    return result, left, right, None if name is None else str(name)


def _check_table(path: Path, key: str, table) -> None:
    if not isinstance(table, dict) or not table or not all(isinstance(v, dict) for v in table.values()):
        raise DataError(f"{path}: {key} must be {{subject: {{action: ...}}}}, got {type(table).__name__}")


def _array(where: str, value, shape: str) -> np.ndarray:
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{where}: expected numbers {shape}, got {type(value).__name__}") from None


def _heaviest(array: np.ndarray) -> np.ndarray:
    """[T, K, 2] of a mixture's rows [T, K, M, 5] of (weight, u, v, ...); anything else as it is."""
    if array.ndim != 4 or array.shape[-1] != 5 or not array.shape[2]:
        return array
    index = array[..., 0].argmax(-1)[..., None, None]
    return np.take_along_axis(array, index, 2)[:, :, 0, 1:3]


def _check_finite(where: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        frame, point = np.argwhere(~np.isfinite(array))[0][:2]
        raise DataError(f"{where}: NaN or infinite coordinates, first at frame {frame}, point {point}")


def check_metres(where: str, joints: np.ndarray) -> None:
    """Raises DataError where the joints of one person, [T, J, 3], lie too far apart for metres: in mm or cm."""
    apart = float(np.median(np.linalg.norm(joints - joints.mean(1, keepdims=True), axis=-1)))
    if apart > 10:
        raise DataError(f"{where}: joints {apart:.0f} from the middle of the body; expected metres (got millimetres?)")


def check_pixels(where: str, points: np.ndarray) -> None:
    """Raises DataError where points [..., 2] are all so near 0 that they cannot be pixels: normalised already."""
    if 0 < np.abs(points).max(initial=0) < 3:
        raise DataError(
            f"{where}: coordinates from {points.min():.2f} to {points.max():.2f}; expected pixels (got normalised "
            "coordinates?)"
        )


def check_views(path_2d: Path, positions: dict, keypoints: dict, cameras: int) -> None:
    """Every subject and action with 3D has 2D in every camera, at least as long.

    Raises:
        DataError: the first one that has not.
    """
    for subject, actions in positions.items():
        if subject not in keypoints:
            raise DataError(f"{path_2d}: subject {subject!r} of the 3D file is missing (it has {', '.join(keypoints)})")
        for action, poses in actions.items():
            where = f"{path_2d}: {subject} {action!r}"
            if action not in keypoints[subject]:
                raise DataError(f"{where} of the 3D file is missing{nearest(action, keypoints[subject])}")
            views = keypoints[subject][action]
            if len(views) != cameras:
                raise DataError(f"{where}: expected {cameras} cameras, got {len(views)}")
            for camera, view in enumerate(views):
                if len(view) < len(poses):
                    raise DataError(
                        f"{where} camera {camera}: {len(view)} frames of keypoints, but {len(poses)} frames of 3D; "
                        "expected at least as many"
                    )


def split_names(names: str | Sequence[str] | None) -> list[str] | None:
    """ "A,B" or ["A", "B"] to a list; None for None, "*" or a list that holds it: everything."""
    if names is None:
        return None
    names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    return None if "*" in names else names


def check_subjects(path: Path, subjects: Sequence[str], positions: dict) -> None:
    """Raises DataError for a subject without 3D; tells the nearest that has."""
    for subject in subjects:
        if subject not in positions:
            raise DataError(
                f"no subject {subject!r} in {path}{nearest(subject, positions)} (it has {', '.join(positions)})"
            )


def check_actions(prefixes: Sequence[str] | None, available: Iterable[str]) -> None:
    """Raises DataError for a prefix that selects no action; tells the nearest group."""
    available = list(available)
    for prefix in prefixes or ():
        if not prefix or not any(a.startswith(prefix) for a in available):
            groups = sorted({action_group(a) for a in available})
            raise DataError(f"no action {prefix!r}{nearest(prefix, groups)} (actions: {', '.join(groups)})")


def selected(action: str, prefixes: Sequence[str] | None, by_group: bool) -> bool:
    """Whether an action is chosen by prefix: against its full name (training) or its group (evaluation).

    Published quirk: so "Sitting" also takes SittingDown, "Walk" WalkDog, and "Walking 1" selects nothing to evaluate.
    """
    name = action_group(action) if by_group else action
    return prefixes is None or any(name.startswith(p) for p in prefixes)


def det(low: int, high: int, seed: str) -> int:
    """The published repeatable number in [low, high) for a string."""
    u = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little")
    return low + int(u / (2**32 - 1) * (high - low))


def kept_frames(frames: int, downsample: int, subset: float) -> slice:
    """Which frames of a sequence are used: every ``downsample``-th, of one contiguous piece when ``subset`` < 1."""
    if downsample < 1 or not 0 < subset <= 1:
        raise DataError(f"downsample must be at least 1 and subset in (0, 1], got {downsample}, {subset}")
    if subset == 1:
        return slice(0, frames, downsample)
    count = round(frames // downsample * subset) * downsample  # Python's round: half to even, as published
    start = det(0, frames - count + 1, str(frames))
    return slice(start, start + count, downsample)


def camera_clips(
    subject: str,
    action: str,
    world: np.ndarray,
    views: Sequence[np.ndarray],
    cameras: Sequence[Camera],
    fps: float,
    where: str,
    keep: slice = slice(None),
) -> list[Clip]:
    """One clip per camera of an action: camera space, root-relative but for joint 0, 2D cut to the 3D and normalised.

    Args:
        world: [T, J, 3] metres. views: per camera [T2 >= T, K, >= 2] pixels. keep: the frames that are used.
        where: file and sequence, for messages.
    Raises:
        DataError: NaN keypoints in a frame that is used; a camera without a pose.
    """
    clips = []
    for index, (camera, pixels) in enumerate(zip(cameras, views)):
        if camera.orientation is None:
            raise DataError(f"{where}: no camera poses are published for subject {subject!r}")
        poses = world_to_camera(world[keep], camera.orientation, camera.translation)
        poses[:, 1:] -= poses[:, :1]
        pixels = pixels[: len(world)][keep]
        _check_finite(f"{where} camera {index}", pixels)
        check_pixels(f"{where} camera {index}", pixels[..., :2])
        clips.append(
            Clip(
                subject,
                action,
                index,
                normalise_screen(pixels, camera.width, camera.height),
                poses,
                np.zeros(9, np.float32) if camera.intrinsics is None else camera.intrinsics,
                camera.orientation,
                camera.translation,
                fps / (keep.step or 1),
            )
        )
    return clips


@dataclass(frozen=True)
class Published:
    """One published data set.

    Args:
        file: the word in its files' names; label: its name for readers.
        stored_joints: in the 3D file; kept: those of ``skeleton``, in order.
        cameras: of a subject; views: their number. fps: frames per second.
    """

    file: str
    label: str
    stored_joints: int
    kept: tuple[int, ...]
    skeleton: Skeleton
    cameras: Callable[[str], Sequence[Camera]]
    views: int
    fps: float


def load(
    data: Published,
    root: str | Path,
    keypoints: str,
    train_subjects: str | Sequence[str],
    test_subjects: str | Sequence[str],
    actions: str | Sequence[str] | None,
    downsample: int,
    subset: float,
) -> LiftingData:
    """Read, check, choose and prepare; see ``train.data.h36m.load_h36m`` for the arguments."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected data_3d_{data.file}.npz and data_2d_{data.file}_*.npz in it")
    path_3d, path_2d = root / f"data_3d_{data.file}.npz", keypoint_file(root, data.file, keypoints)
    positions = read_positions(path_3d, data.stored_joints)
    views, left, right, name = read_keypoints(path_2d, data.views)
    check_views(path_2d, positions, views, data.views)
    prefixes = split_names(actions)
    split = {"train": _subjects(train_subjects, positions), "test": _subjects(test_subjects, positions)}
    for subjects in split.values():
        check_subjects(path_3d, subjects, positions)
    check_actions(prefixes, (a for subjects in split.values() for s in subjects for a in positions[s]))
    clips: dict[str, list[Clip]] = {"train": [], "test": []}
    for part, subjects in split.items():
        for subject in subjects:
            for action, seen in views[subject].items():
                if action not in positions[subject] or not selected(action, prefixes, by_group=part == "test"):
                    continue
                world = positions[subject][action][:, list(data.kept)]
                keep = kept_frames(len(world), downsample, subset if part == "train" else 1.0)
                if keep.stop > keep.start:  # a small subset may leave nothing of a short sequence
                    where = f"{path_2d}: {subject} {action!r}"
                    clips[part] += camera_clips(
                        subject, action, world, seen, data.cameras(subject), data.fps, where, keep
                    )
        if subjects and not clips[part]:
            raise DataError(
                f"actions {','.join(prefixes or ['*'])} leave nothing to {part} on "
                "(training matches full names, testing their first word)"
            )
    return LiftingData(f"{name or data.label} ({keypoints})", data.skeleton, left, right, clips["train"], clips["test"])


def _subjects(subjects: str | Sequence[str], positions: dict) -> list[str]:
    names = split_names(subjects)
    return list(positions) if names is None else names
