"""2D keypoints from files of other programs: ``read(path)`` finds out which one wrote them.

- ``.npz``: VideoPose3D's custom data sets (``positions_2d``) and its detector's files (``boxes``), the Strided
  Transformer demo's ``reconstruction``, our own (``posekernels lift -o x.npz``), or one array ``keypoints``; ``.npy``:
  one array. Arrays are [T, J, 2 or 3] or [P, T, J, 2 or 3].
- ``.json``: AlphaPose (a list of rows with ``image_id``), MMPose (``instance_info``), OpenPose of one frame, ours, or
  the numbers of such an array in nested lists.
- a folder of OpenPose or Sports2D files, one per frame.

People without a number of their own are told apart by ``people.tracking``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posekernels._checks import nearest
from posekernels.archive import DataError, read_npz
from posekernels.pose.layouts import LAYOUTS
from posekernels.pose.skeleton import SKELETONS

from .tracking import Sighting, Track, Tracker

# What a number of joints means when nobody says; 25 is decided by where the joints lie.
BY_COUNT = {
    16: "mpii-16",
    17: "coco-17",
    18: "openpose-18",
    24: "smpl-24",
    26: "halpe-26",
    31: "cmu-31",
    32: "h36m-32",
    33: "blazepose-33",
    38: "cmu-38",
}
PARTS_OF_WHOLE_BODY = {133: 17, 136: 26}  # COCO-WholeBody and Halpe-136 begin with COCO-17 and Halpe-26


@dataclass
class Keypoints:
    """People in a video, in 2D.

    Args:
        people: tracks over the same ``frames`` frames; NaN where a person is not seen.
        layout: name of their joints in ``SKELETONS``.
        frames: of the video. fps: None where the file does not say. size: (width, height) of the image, or None.
        notes: what was guessed or left out, in words for the user.
    """

    people: list[Track]
    layout: str
    frames: int
    fps: float | None = None
    size: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


def read(path: str | Path, layout: str | None = None) -> Keypoints:
    """Read a file, or a folder of files with one frame each.

    Args:
        layout: of the joints, where the file's own word or their number is not to be trusted.
    Raises:
        DataError: no such file, unreadable, of no known form, joints of an unknown layout, nobody in it.
    """
    path = Path(path)
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no joint layout {layout!r}{nearest(layout, LAYOUTS)} (layouts: {', '.join(LAYOUTS)})")
    if path.is_dir():
        return _openpose(path, sorted(path.glob("*.json"), key=_number), layout)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path}: not an array of numbers ({str(error).splitlines()[0]})") from error
        return _arrays(path, array, layout)
    if suffix == ".npz":
        return _npz(path, layout)
    if suffix == ".json":
        return _json(path, layout)
    raise DataError(f"{path}: keypoints are read from .npz, .npy, .json or a folder of .json, not {suffix or 'this'!r}")


def layout_of(points: np.ndarray, where: str | Path) -> str:
    """The layout that keypoints [..., J, 2 or more] most likely have, by their number.

    With 25 joints it is ``body-25`` if joint 8 lies between 9 and 12 (the middle of the hips), else ``body-25b``.

    Raises:
        DataError: no layout has that many joints.
    """
    joints = points.shape[-2]
    if joints == 25:
        flat = points[..., :2].reshape(-1, 25, 2)
        flat = flat[np.isfinite(flat).all((1, 2)) & (flat[:, [8, 9, 12]] != 0).all((1, 2))]
        if not len(flat):
            return "body-25"
        off = np.linalg.norm(flat[:, 8] - (flat[:, 9] + flat[:, 12]) / 2, axis=-1)
        return "body-25" if np.median(off / (np.ptp(flat, axis=1).max(-1) + 1e-9)) < 0.1 else "body-25b"
    if joints not in BY_COUNT:
        known = ", ".join(f"{name} ({SKELETONS[name].num_joints})" for name in LAYOUTS)
        raise DataError(f"{where}: {joints} joints fit no known layout; known are {known}")
    return BY_COUNT[joints]


# -- arrays ----------------------------------------------------------------------------------------------------------
def _arrays(path: Path, array: np.ndarray, layout: str | None, scores: np.ndarray | None = None, **known) -> Keypoints:
    """[T, J, C] or [P, T, J, C] as people; C = 2, or 3 with scores."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.ndim not in (3, 4) or array.shape[-1] not in (2, 3):
        raise DataError(
            f"{path}: keypoints must be [frames, joints, 2 or 3] or [people, frames, joints, 2 or 3], got "
            f"{list(array.shape)} of {array.dtype}"
        )
    array = array[None] if array.ndim == 3 else array
    if not array.shape[1] or not array.shape[0]:
        raise DataError(f"{path}: no frames: {list(array.shape)}")
    layout, guessed = _checked(path, array, layout), layout is None
    given = None
    if scores is None and array.shape[-1] == 3:
        _check_scores(path, array)
    if scores is not None:
        given = np.asarray(scores, np.float32).reshape(array.shape[:3])
    people = []
    for number, points in enumerate(array.astype(np.float32)):
        score = given[number] if given is not None else points[..., 2] if points.shape[-1] == 3 else None
        people.append(_track(number + 1, points[..., :2], score))
    return _done(path, Keypoints(people, layout, array.shape[1], **known), guessed)


def _check_scores(path: Path, array: np.ndarray) -> None:
    """Raises DataError where the third of [..., 3] numbers is the third coordinate of joints in 3D and no score.

    Scores beside pixels have a wide margin: some detectors' are percents, or a little below 0.
    """
    seen = array[np.isfinite(array).all(-1)]
    if not len(seen):
        return
    low, high = seen[:, 2].min(), seen[:, 2].max()
    least, most = (-1, 100) if np.abs(seen[:, :2]).max() > 20 else (-0.05, 1.05)
    if low < least or high > most:
        raise DataError(
            f"{path}: the third column is no score (from {low:.3g} to {high:.3g}); for 3D joints use posekernels "
            "forecast --joints LAYOUT"
        )


def _track(identity: int, points: np.ndarray, scores: np.ndarray | None) -> Track:
    """NaN and all-zero points count as not seen; NaN scores as 0."""
    seen = np.isfinite(points).all(-1) & (points != 0).any(-1)
    scores = np.ones(points.shape[:2], np.float32) if scores is None else np.nan_to_num(scores, nan=0.0, posinf=0.0)
    points = np.where(seen[..., None], points, np.nan).astype(np.float32)
    return Track(identity, points, np.where(seen, scores, 0).astype(np.float32))


def _checked(path: Path, points: np.ndarray, layout: str | None) -> str:
    layout = layout or layout_of(points, path)
    if layout not in LAYOUTS:
        raise DataError(f"{path}: names its layout {layout!r}{nearest(layout, LAYOUTS)}; say --layout NAME")
    if SKELETONS[layout].num_joints != points.shape[-2]:
        raise DataError(f"{path}: {points.shape[-2]} joints, but layout {layout} has {SKELETONS[layout].num_joints}")
    return layout


def _done(path: Path, found: Keypoints, guessed: bool) -> Keypoints:
    """``found`` without people of whom no joint was found; says so if its layout is a guess."""
    found.people = [track for track in found.people if (track.scores > 0).any()]
    if not found.people:
        raise DataError(f"{path}: nobody in it: no joint was found in any of {found.frames} frames")
    if guessed:
        joints = SKELETONS[found.layout].num_joints
        found.notes.append(f"{joints} joints, taken for {found.layout}; --layout NAME if they are others")
        if found.layout == "coco-17" and looks_like_h36m(np.concatenate([t.points for t in found.people])):
            found.notes.append("warning: these look like Human3.6M's joints, not COCO's; if so, --layout h36m-17")
    return found


def looks_like_h36m(points: np.ndarray) -> bool:
    """Whether 17 joints [T, 17, 2] without a layout are H36M-17's and not COCO's: the right one has the shorter bones.

    In the starter set H36M's bones are 0.36 to 0.66 as long as COCO's if the joints are H36M's, else 0.72 to 1.7.
    """

    def bone(layout: str) -> float:
        joints, parents = zip(*((j, p) for j, p in enumerate(SKELETONS[layout].parents) if p >= 0))
        lengths = np.linalg.norm(points[:, joints] - points[:, parents], axis=-1)
        return float(lengths[np.isfinite(lengths)].sum() / max(np.isfinite(lengths).sum(), 1))

    return bone("h36m-17") < 0.7 * bone("coco-17")


def _npz(path: Path, layout: str | None) -> Keypoints:
    content = read_npz(path)
    if "positions_2d" in content:
        return _videopose(path, content, layout)
    if {"boxes", "keypoints"} <= set(content):
        return _detections(path, content, layout)
    if "keypoints" in content:
        size = tuple(int(v) for v in content["size"]) if "size" in content and np.size(content["size"]) == 2 else None
        fps = float(content["fps"]) if "fps" in content else None
        own = str(content["layout"]) if "layout" in content else None
        scores = content.get("scores")
        found = _arrays(path, content["keypoints"], layout or own, scores, fps=fps, size=size)
        if "identities" in content:
            numbers = np.ravel(content["identities"]).tolist()
            for track in found.people:
                track.identity = int(numbers[track.identity - 1])
        return found
    if "reconstruction" in content:  # the Strided Transformer demo: already Human3.6M's joints
        return _arrays(path, content["reconstruction"], layout or "h36m-17")
    arrays = [v for v in content.values() if isinstance(v, np.ndarray) and v.dtype.kind in "fiu" and v.ndim in (3, 4)]
    if len(arrays) == 1:
        return _arrays(path, arrays[0], layout)
    raise DataError(
        f"{path}: no keypoints in it; expected positions_2d (VideoPose3D), keypoints, reconstruction or one array, got "
        f"{', '.join(content) or 'nothing'}"
    )


def _videopose(path: Path, content: dict, layout: str | None) -> Keypoints:
    """VideoPose3D's custom data set; the first video with the action ``custom``, else the first of all."""
    positions = content["positions_2d"]
    positions = positions.item() if isinstance(positions, np.ndarray) else positions
    metadata = content.get("metadata")
    metadata = metadata.item() if isinstance(metadata, np.ndarray) else metadata or {}
    if not isinstance(positions, dict) or not positions or not isinstance(metadata, dict):
        raise DataError(f"{path}: positions_2d must map videos to actions to lists of arrays")
    video, actions = next(iter(positions.items()))
    views = (actions.get("custom") or next(iter(actions.values()))) if isinstance(actions, dict) and actions else None
    if not isinstance(views, (list, tuple)) or not views:
        raise DataError(f"{path}: positions_2d of {video} holds no arrays")
    about = metadata.get("video_metadata", {}).get(video, {})
    size = (int(about["w"]), int(about["h"])) if {"w", "h"} <= set(about) else None
    found = _arrays(
        path,
        np.asarray(views[0]),
        layout or {"coco": "coco-17", "h36m": "h36m-17"}.get(str(metadata.get("layout_name", "")).lower()),
        size=size,
    )
    if len(positions) > 1 or len(views) > 1:
        found.notes.append(f"{path} holds several videos or views; taken is the first one of {video}")
    return found


def _detections(path: Path, content: dict, layout: str | None) -> Keypoints:
    """What VideoPose3D's detector script writes: boxes and keypoints of everybody, frame by frame.

    As published: in each frame the person with the highest box score is taken, frames without one are filled by linear
    interpolation and held at the ends, and the keypoints' own scores are not used.
    """

    def of_people(entry) -> np.ndarray:  # one entry per class of objects; the second is people
        return np.asarray(entry[1], np.float32)

    try:
        found = [(of_people(b), of_people(k)) for b, k in zip(content["boxes"], content["keypoints"], strict=True)]
        chosen = {t: k[b[:, 4].argmax(), :2].T for t, (b, k) in enumerate(found) if len(b) and len(k)}
        there, seen = np.array(list(chosen)), np.array([points.reshape(-1) for points in chosen.values()])
        points = [np.interp(np.arange(len(found)), there, column) for column in seen.T] if chosen else []
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: boxes and keypoints must hold, for each frame, a pair whose second entry is [people, 5] and "
            f"[people, 4, joints] ({str(error).splitlines()[0]})"
        ) from error
    if not chosen:
        raise DataError(f"{path}: nobody in it: no person was found in any of {len(found)} frames")
    about = content.get("metadata")
    size = (int(about["w"]), int(about["h"])) if isinstance(about, dict) and {"w", "h"} <= set(about) else None
    layout = layout or "coco-17"  # all that its detector knows
    result = _arrays(path, np.stack(points, 1).reshape(len(found), -1, 2), layout, size=size)
    if len(chosen) < len(found):
        result.notes.append(f"{len(found) - len(chosen)} of {len(found)} frames without a person: filled in")
    return result


# -- JSON ------------------------------------------------------------------------------------------------------------
def _load(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable JSON ({str(error).splitlines()[0]})") from error


def _json(path: Path, layout: str | None) -> Keypoints:
    content = _load(path)
    if isinstance(content, dict) and "people" in content and "version" in content and "frames" not in content:
        return _openpose(path, [path], layout)
    if isinstance(content, dict) and content.get("format") == "posekernels":
        people = content["people"]
        frames = int(content["frames"])
        tracks = [
            _track(int(p["id"]), _floats(path, p["keypoints"]), _floats(path, p["scores"]) if "scores" in p else None)
            for p in people
        ]
        size = tuple(content["size"]) if content.get("size") else None
        layout = _checked(path, tracks[0].points, layout or content["layout"])
        return _done(path, Keypoints(tracks, layout, frames, content.get("fps"), size), guessed=False)
    if isinstance(content, dict) and "instance_info" in content:
        content = content["instance_info"]
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        if all("instances" in row for row in content):
            return _mmpose(path, content, layout)
        if all("image_id" in row and "keypoints" in row for row in content):
            return _alphapose(path, content, layout)
    if isinstance(content, list) and content and isinstance(content[0], list):
        return _arrays(path, _floats(path, content), layout)
    raise DataError(
        f"{path}: JSON of no known form (known: OpenPose, AlphaPose, MMPose, nested lists of [frames, joints, 2 or 3] "
        "numbers, what posekernels lift writes)"
    )


def _floats(path: Path, values) -> np.ndarray:
    """Nested lists as float32, null as NaN."""
    try:
        return np.array(values, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: keypoints are not lists of numbers of one length") from error


def _triples(path: Path, values) -> np.ndarray:
    """Flat x, y, score, x, y, ... as [J, 3]."""
    flat = _floats(path, values)
    if flat.ndim != 1 or not flat.size or flat.size % 3:
        raise DataError(f"{path}: keypoints must be x, y, score for each joint, got {flat.size} numbers")
    return flat.reshape(-1, 3)


def _number(path: Path) -> tuple[list[int], str]:
    """Frames in the order of the numbers in their names: 9 before 10."""
    return [int(n) for n in re.findall(r"\d+", path.stem)], path.name


def _tracked(path: Path, frames: Iterable[list[tuple[np.ndarray, int | None]]], layout: str | None) -> Keypoints:
    """Detections [J, 3] of every frame, with a number where the file has one, as people."""
    frames = list(frames)
    counts = Counter(len(points) for people in frames for points, _ in people)
    if not counts:
        raise DataError(f"{path}: nobody in it: no detection in any of {len(frames)} frames")
    joints = counts.most_common(1)[0][0]
    others = counts.total() - counts[joints]
    frames = [[(points, number) for points, number in people if len(points) == joints] for people in frames]
    keep = PARTS_OF_WHOLE_BODY.get(joints)
    guessed = layout is None
    layout = _checked(path, np.stack([points for people in frames for points, _ in people])[:, :keep], layout)
    numbered = all(number is not None for people in frames for _, number in people)
    tracker = Tracker()
    for people in frames:
        sightings = []
        for points, number in people:
            track = _track(0, points[None, :keep, :2], points[None, :keep, 2])
            if (track.scores > 0).any():
                sightings.append((Sighting(track.points[0], track.scores[0]), number))
        if numbered:
            tracker.add_numbered(sightings)
        else:
            tracker.add([sighting for sighting, _ in sightings])
    found = _done(path, Keypoints(tracker.tracks(), layout, len(frames)), guessed)
    if others:
        found.notes.append(f"{others} detections left out, whose number of joints is not {joints} like the others'")
    return found


def _openpose(path: Path, files: list[Path], layout: str | None) -> Keypoints:
    if not files:
        raise DataError(f"{path}: no .json files in this folder")

    def people():
        for file in files:
            content = _load(file)
            if not isinstance(content, dict) or not isinstance(content.get("people"), list):
                raise DataError(f"{file}: not an OpenPose file (no list 'people')")
            rows = []
            for person in content["people"]:
                number = person.get("person_id", [-1])
                number = number[0] if isinstance(number, list) and number else number
                known = isinstance(number, int) and number >= 0
                points = _triples(file, person.get("pose_keypoints_2d", []))
                rows.append((points, number if known else None))
            yield rows

    return _tracked(path, people(), layout)


def _alphapose(path: Path, rows: list[dict], layout: str | None) -> Keypoints:
    def number(image) -> tuple:
        digits = re.findall(r"\d+", str(image))
        return (int(digits[-1]) if digits else 0, str(image))

    frames: dict[tuple, list] = {}
    for row in rows:
        identity = row.get("idx")
        identity = identity if isinstance(identity, int) else None
        frames.setdefault(number(row["image_id"]), []).append((_triples(path, row["keypoints"]), identity))
    first, last = min(frames)[0], max(frames)[0]
    if last - first >= 100 * len(frames):  # numbers that do not count frames
        return _tracked(path, (frames[key] for key in sorted(frames)), layout)
    by_number: dict[int, list] = {}
    for (count, _), people in frames.items():
        by_number.setdefault(count, []).extend(people)
    return _tracked(path, (by_number.get(count, []) for count in range(first, last + 1)), layout)


def _mmpose(path: Path, rows: list[dict], layout: str | None) -> Keypoints:
    def people(row: dict):
        for instance in row["instances"]:
            points = _floats(path, instance["keypoints"])
            if points.ndim != 2 or points.shape[1] < 2:
                raise DataError(f"{path}: keypoints of an instance must be [J, 2], got {list(points.shape)}")
            scores = _floats(path, instance.get("keypoint_scores", np.ones(len(points))))
            identity = instance.get("track_id", instance.get("instance_id"))
            yield np.column_stack((points[:, :2], scores)), identity if isinstance(identity, int) else None

    rows = sorted(rows, key=lambda row: row.get("frame_id", 0))
    return _tracked(path, (list(people(row)) for row in rows), layout)
