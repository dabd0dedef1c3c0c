"""DiffPose's mixture files, ``data_2d_h36m_<source>_gmm.npz``: read them, and make them from plain 2D detections.

    python -m train.data.mixture --data-root DIR -k cpn_ft_h36m_dbb

A keypoint is a mixture of M components, rows of (weight, u, v, scale u, scale v). u, v are pixels in the file; the
scales are spreads in normalised screen units and scale the noise that DiffPose trains with. The published files were
fitted to detector heat maps by a tool that was never released, and their first component has all the weight. Here, from
detections alone: the detection is the first component, with all the weight, and its scale is the detector's jitter,
estimated for each joint of each clip from second differences along time (white noise of deviation s gives them
s sqrt 6) by their median, which real motion hardly moves. Source: diffpose section 9.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_npz, write_npz
from posekernels.cli import Parser, run_cli
from posekernels.pose.camera import h36m_cameras, normalise_screen

from .clips import Clip
from .published import check_pixels, keypoint_file, read_keypoints

COLUMNS = 5  # weight, u, v, scale u, scale v
FLOOR = 1e-3  # least scale, screen units: half a pixel of Human3.6M's images


def jitter(keypoints: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """[K, 2] the spread of white noise on a track [T, K, 2], in its units; ``floor`` at least, and for T < 3."""
    if len(keypoints) < 3:
        return np.full(keypoints.shape[1:], floor, np.float32)
    second = keypoints[:-2] - 2 * keypoints[1:-1] + keypoints[2:]
    spread = np.median(np.abs(second), axis=0) / (0.6745 * 6**0.5)  # 0.6745: a normal's median distance from its mean
    return np.maximum(spread, floor).astype(np.float32)


def mixture_of(keypoints: np.ndarray, scale: np.ndarray, components: int = 1) -> np.ndarray:
    """[T, K, components, 5]: the keypoints [T, K, 2] with scale [K, 2] as first component, the others empty."""
    mixture = np.zeros((*keypoints.shape[:2], components, COLUMNS), np.float32)
    mixture[..., 1:3] = keypoints[:, :, None, :2]
    mixture[..., 3:5] = scale[:, None]
    mixture[..., 0, 0] = 1
    return mixture


def read_mixture(path: str | Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """{subject: {action: [per camera [T, K, M, 5] float32, u and v in pixels]}}.

    Raises:
        DataError: not such a file (a plain 2D file, say), or NaN in it.
    """
    table = read_npz(path, "positions_2d")["positions_2d"]
    if not isinstance(table, dict):
        raise DataError(f"{path}: positions_2d must be a dictionary of subjects, got {type(table).__name__}")
    result: dict[str, dict[str, list[np.ndarray]]] = {}
    for subject, actions in table.items():
        result[subject] = {}
        for action, views in actions.items():
            arrays = [np.asarray(v, np.float32) for v in views]
            for camera, array in enumerate(arrays):
                where = f"{path}: {subject} {action!r} camera {camera}"
                if array.ndim != 4 or array.shape[-1] != COLUMNS:
                    raise DataError(
                        f"{where}: expected [T, K, M, 5] rows of (weight, u, v, scale u, scale v), got "
                        f"{list(array.shape)}; `python -m train.data.mixture` makes such a file from plain 2D ones"
                    )
                if not np.isfinite(array).all():
                    raise DataError(f"{where}: NaN or infinite numbers")
                check_pixels(where, array[..., 1:3])
            result[subject][action] = arrays
    return result


def mixture_file(root: str | Path, keypoints: str) -> Path:
    """``data_2d_h36m_<keypoints>_gmm.npz`` under ``root``.

    Raises:
        DataError: no such file; tells which there are, and what makes one.
    """
    try:
        return keypoint_file(Path(root), "h36m", f"{keypoints}_gmm")
    except DataError as error:
        raise DataError(f"{error}; `python -m train.data.mixture --data-root {root} -k {keypoints}` makes it") from None


def clip_mixtures(path: Path, clips: list[Clip]) -> list[np.ndarray]:
    """For every clip its frames of a mixture file, [T, K, M, 5], u and v normalised.

    Raises:
        DataError: a clip that is not in the file, or has fewer frames there.
    """
    table, found = read_mixture(path), []
    for clip in clips:
        where = f"{path}: {clip.subject} {clip.action!r} camera {clip.camera}"
        try:
            mixture = table[clip.subject][clip.action][clip.camera]
        except (KeyError, IndexError):
            raise DataError(f"{where}: not in the file") from None
        if len(mixture) < len(clip.keypoints):
            raise DataError(f"{where}: {len(mixture)} frames, the clip has {len(clip.keypoints)}")
        camera = h36m_cameras(clip.subject)[clip.camera]
        mixture = mixture[: len(clip.keypoints)].copy()
        mixture[..., 1:3] = normalise_screen(mixture[..., 1:3], camera.width, camera.height)
        found.append(mixture)
    return found


def make(root: str | Path, keypoints: str, components: int = 3, floor: float = FLOOR) -> Path:
    """Write the mixture file of a plain 2D file; returns its path.

    Raises:
        DataError: no such 2D file, or one that cannot be read.
    """
    path = keypoint_file(Path(root), "h36m", keypoints)
    views, left, right, _ = read_keypoints(path, 4)
    mixtures: dict[str, dict[str, list[np.ndarray]]] = {}
    points = 0
    for subject, actions in views.items():
        mixtures[subject] = {}
        for action, arrays in actions.items():
            # One width for all: cameras of subjects without a published pose are not known. Human3.6M's are 1000 wide.
            scales = [jitter(a[..., :2] * (2 / 1000), floor) for a in arrays]
            mixtures[subject][action] = [mixture_of(a, s, components) for a, s in zip(arrays, scales)]
            points = arrays[0].shape[1]
    target = path.with_name(f"{path.stem}_gmm.npz")
    metadata = {"num_joints": points, "keypoints_symmetry": [list(left), list(right)]}
    write_npz(target, positions_2d=np.array(mixtures, dtype=object), metadata=np.array(metadata, dtype=object))
    return target


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.data.mixture", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True, metavar="DIR", help="folder with data_2d_h36m_NAME.npz")
    parser.add_argument("-k", "--keypoints", default="cpn_ft_h36m_dbb", metavar="NAME", help="2D source")
    parser.add_argument("--components", type=int, default=3, metavar="M", help="of each keypoint, as published: 3")
    parser.add_argument("--floor", type=float, default=FLOOR, help="least scale, in screen units")
    options = parser.parse_args(argv)
    if options.components < 1 or options.floor <= 0:
        raise ValueError(f"--components and --floor must be positive, got {options.components} and {options.floor}")
    print(f"wrote {make(options.data_root, options.keypoints, options.components, options.floor)}")
    return 0


if __name__ == "__main__":
    run_cli(main)
