"""2D keypoints from files of other programs: ``read(path)`` finds out which one wrote them.

- ``.npz``: VideoPose3D's custom data sets (``positions_2d``) and its detector's files (``boxes``), the Strided
  Transformer demo's ``reconstruction``, our own (``posekernels lift -o x.npz``), or one array ``keypoints``; ``.npy``:
  one array. Arrays are [T, J, 2 or 3] or [P, T, J, 2 or 3]; MediaPipe's with x, y, z and visibility too.
- ``.json``: a list of frames, of people with ``image_id`` or of numbers, COCO's ``annotations``, or one frame: see
  ``FORMS``.
- a folder of such files, one per frame.

What is made of what they say is decided in ``people.keypoint_rules``, for all of them alike.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, OpenJson, open_json, open_npz, read_json, read_npy
from posekernels.checks import nearest
from posekernels.pose.layouts import LAYOUTS
from posekernels.pose.skeleton import SKELETONS

from .keypoint_rules import FOR_3D, Frame, Keypoints, Reading, Seen, Table, believed
from .rows import CUT

__all__ = ["FORMS", "Keypoints", "read"]

FORMS = (
    "OpenPose, AlphaPose (also as open and cmu), MMPose, MediaPipe, Ultralytics, COCO's annotations, nested lists of "
    "[frames, joints, 2 or 3] numbers, what posekernels lift writes"
)
FORECAST = "a forecast, lifted already; posekernels render draws it and makes other files of it"


def read(
    path: str | Path, layout: str | None = None, size: tuple[int, int] | None = None, clip: str | None = None
) -> Keypoints:
    """Read a file, or a folder of files with one frame each.

    Args:
        layout: of the joints, where the file's own word or their number is not to be trusted.
        size: (width, height) of the image, where the file does not say.
        clip: part of the name of one of several videos.
    Raises:
        DataError: no such file, unreadable, of no known form, joints of an unknown layout, nobody in it; what
            ``people.keypoint_rules`` refuses.
    """
    path = Path(path)
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no joint layout {layout!r}{nearest(layout, LAYOUTS)} (layouts: {', '.join(LAYOUTS)})")
    try:
        reading = _reading(path)
        reading.layout, reading.size, reading.clip = layout or reading.layout, size or reading.size, clip
        return believed(reading)
    except RecursionError as error:  # lists in lists, or in the texts that some programs write in the place of rows
        raise DataError(f"{path}: nested too deeply to be read") from error


def holds_a_video(path: Path) -> bool:
    """Whether a .json holds more than one frame, so that a folder of such is no clip."""
    try:
        reading = _json(path)
        return len(reading.frames) > 1 or reading.table is not None  # arrays, and what posekernels lift writes
    except (DataError, RecursionError):
        return False


def _reading(path: Path) -> Reading:
    """What the file or folder holds, as it says it."""
    if path.is_dir():
        reading = _folder(path)
    elif not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    elif path.stat().st_size == 0:
        raise DataError(f"{path}: an empty file, expected 2D keypoints")
    elif path.suffix.lower() == ".npy":
        reading = _arrays(path, read_npy(path))
    elif path.suffix.lower() == ".npz":
        reading = _npz(path)
    elif path.suffix.lower() == ".json":
        reading = _json(path)
    else:
        kind = path.suffix.lower() or "this"
        raise DataError(f"{path}: keypoints are read from .npz, .npy, .json or a folder of .json, not {kind!r}")
    return reading


def detected(path: Path, content: dict, lead: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """Of what ``posekernels lift`` writes: ``detected`` [*lead, J, 3] and the layout of its joints; None without it.

    Raises:
        DataError: the one does not fit the other, or the people.
    """
    if "detected" not in content:
        return None
    found, layout = np.asarray(content["detected"], np.float32), str(content.get("detected_layout", ""))
    joints = SKELETONS[layout].num_joints if layout in SKELETONS else 0
    if not joints or found.shape != (*lead, joints, 3):
        wanted, came = [*lead, joints or "J", 3], list(found.shape)
        raise DataError(f"{path}: detected: expected {wanted} of a known layout, got {came} of {layout!r}")
    return found, layout


# -- arrays ----------------------------------------------------------------------------------------------------------
def _arrays(path: Path, array: np.ndarray, scores=None, identities=None, **known) -> Reading:
    """[T, J, C] or [P, T, J, C] as people; C = 2, or 3 with scores."""
    array = np.asarray(array)
    mediapipe = array.ndim in (3, 4) and array.shape[-2:] == (33, 4)
    if array.dtype.kind not in "fiu" or array.ndim not in (3, 4) or array.shape[-1] not in (2, 3) and not mediapipe:
        raise DataError(
            f"{path}: keypoints must be [frames, joints, 2 or 3] or [people, frames, joints, 2 or 3], got "
            f"{list(array.shape)} of {array.dtype}"
        )
    notes = []
    if mediapipe:
        array = array[..., [0, 1, 3]]
        notes.append("4 numbers for each of 33 joints: taken for MediaPipe's x, y, z, visibility; z is left out")
    array = array[None] if array.ndim == 3 else array
    if scores is None and identities is None and _frames_first(array):
        notes.append(f"{list(array.shape)}: taken for {len(array)} frames of {array.shape[1]} people, by how they move")
        array = array.swapaxes(0, 1)
    people, length = array.shape[:2]
    if not people or not length:
        raise DataError(f"{path}: no frames: {list(array.shape)}; expected keypoints [people, frames, joints, 2 or 3]")
    if scores is not None:
        scores = _floats(path, scores).reshape(-1)
        if scores.size != array[..., 0].size:
            raise DataError(f"{path}: expected a score for each of {array[..., 0].size} keypoints, got {scores.size}")
        scores = scores.reshape(array.shape[:3])
    names = list(range(1, people + 1)) if identities is None else np.ravel(identities).tolist()
    if len(names) != people:
        raise DataError(f"{path}: expected an identity for each of {people} people, got {len(names)}")
    rows = array.swapaxes(0, 1).reshape(length * people, *array.shape[2:])
    scores = None if scores is None else scores.swapaxes(0, 1).reshape(rows.shape[:2])
    table = Table(rows, scores, names * length, np.repeat(np.arange(length), people), length)
    return Reading(path, [], table, notes=notes, ranked=False, **known)


def _of_frames(path: Path, content: dict, **known) -> Reading:
    """What ``posekernels lift`` writes of a long recording: [N, ...] of all who are there."""
    try:
        at, who = (_whole(name, content[name]) for name in ("frame", "identity"))
        points, scores, count = content["keypoints"], content["scores"], int(content["frames"])
        if not at.shape == who.shape == points.shape[:1] or points.shape[:2] != scores.shape or points.ndim != 3:
            raise ValueError(f"{len(at)} frames of {list(points.shape)} keypoints and {list(scores.shape)} scores")
        if points.shape[2] not in (2, 3) or {points.dtype.kind, scores.dtype.kind} - {*"fiu"}:
            raise ValueError(f"keypoints of {points.shape[2]} {points.dtype}, scores of {scores.dtype}")
        if len(at) and not 0 <= at.min() <= at.max() < count:
            raise ValueError(f"frame: expected numbers from 0 to {count - 1}, got {at.min()} to {at.max()}")
        order = np.argsort(at, kind="stable")  # as frames have them
        table = Table(points[order], scores[order], who[order].tolist(), at[order], count)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not as posekernels lift writes it ({type(error).__name__}: {error})") from error
    more = detected(path, content, at.shape)
    return Reading(path, [], table, ranked=False, numbered=True, detected=more and (more[0][order], more[1]), **known)


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64, also those that another program wrote as decimal ones."""
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} of {values.dtype}, expected whole numbers")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if (whole != values).any():
        raise ValueError(f"{name}: expected whole numbers, got {values[whole != values].flat[0]}")
    return whole


def _by_frames(found: tuple[np.ndarray, str] | None) -> tuple[np.ndarray, str] | None:
    """``detected`` [P, T, J, 3] as rows [T * P, J, 3]: all of a frame, then those of the next."""
    return found and (found[0].swapaxes(0, 1).reshape(-1, *found[0].shape[2:]), found[1])


def _frames_first(array: np.ndarray) -> bool:
    """Whether [P, T, J, C] rather is [T, P, J, C]: many by few, and little changes along the first axis."""
    if not 1 < array.shape[1] < 11 <= array.shape[0]:
        return False
    array = array[:CUT]  # which tell as well as all
    points = np.where((array[..., :2] == 0).all(-1, keepdims=True), np.nan, array[..., :2].astype(np.float64))
    along, across = (np.abs(np.diff(points, axis=axis)) for axis in (0, 1))
    if not np.isfinite(along).any() or not np.isfinite(across).any():
        return False
    return bool(np.nanmedian(along) < 0.25 * np.nanmedian(across))


def _npz(path: Path) -> Reading:
    with open_npz(path) as archive:
        ours = {"keypoints", "poses", "world"} <= set(archive)
        content = {name: archive[name] for name in archive if not (ours and name in ("poses", "world"))}
    if "positions_2d" in content:
        return _videopose(path, content)
    if {"boxes", "keypoints"} <= set(content):
        return _detections(path, content)
    if "keypoints" in content:
        size = tuple(int(v) for v in content["size"]) if "size" in content and np.size(content["size"]) == 2 else None
        fps = float(content["fps"]) if "fps" in content else None
        own = str(content["layout"]) if "layout" in content else None
        source = str(content.get("source", "")) if ours else ""
        if ours and "now" in content:
            raise DataError(f"{path}: {FORECAST}")
        if "frame" in content:
            return _of_frames(path, content, layout=own, fps=fps, size=size, source=source)
        of = content.get("scores"), content.get("identities")
        known = {"layout": own, "fps": fps, "size": size, "numbered": ours, "source": source}
        known["detected"] = _by_frames(detected(path, content, np.shape(content["keypoints"])[:-2]))
        return _arrays(path, content["keypoints"], *of, **known)
    if "reconstruction" in content:  # the Strided Transformer demo: already Human3.6M's joints
        return _arrays(path, content["reconstruction"], layout="h36m-17")
    arrays = [v for v in content.values() if isinstance(v, np.ndarray) and v.dtype.kind in "fiu" and v.ndim in (3, 4)]
    if len(arrays) == 1:
        return _arrays(path, arrays[0])
    raise DataError(
        f"{path}: no keypoints in it; expected positions_2d (VideoPose3D), keypoints, reconstruction or one array, got "
        f"{', '.join(content) or 'nothing'}"
    )


def _videopose(path: Path, content: dict) -> Reading:
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
        layout={"coco": "coco-17", "h36m": "h36m-17"}.get(str(metadata.get("layout_name", "")).lower()),
        size=size,
    )
    if len(positions) > 1 or len(views) > 1:
        found.notes.append(f"{path} holds several videos or views: the first view of {video} is taken")
    return found


def _detections(path: Path, content: dict) -> Reading:
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
    whole = np.stack(points, 1).reshape(len(found), -1, 2)
    result = _arrays(path, whole, layout="coco-17", size=size)  # all that its detector knows
    if len(chosen) < len(found):
        result.notes.append(f"{len(found) - len(chosen)} of {len(found)} frames without a person: filled in")
    return result


# -- JSON ------------------------------------------------------------------------------------------------------------
POINTS = ("pose_keypoints_2d", "keypoints", "joints")
SCORES = ("keypoint_scores", "keypoints_scores", "scores")
IDENTITIES = ("track_id", "idx", "person_id", "instance_id", "id")
PEOPLE = ("people", "bodies", "instances", "predictions", "poses", "landmarks", "pose_landmarks", "poseLandmarks")
FRAME = ("image_id", "frame_id", "frame", "frame_number", "file_name", "image", "timestamp")
SCORE = ("score", "visibility", "confidence", "visible", "presence")


def _floats(path: Path, values) -> np.ndarray:
    """Nested lists as float32, null as NaN."""
    try:
        return np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: expected keypoints as lists of numbers, all of one length") from error


def _unknown(path: Path) -> DataError:
    return DataError(f"{path}: JSON of no known form (known: {FORMS})")


def _first(content: dict, names: tuple[str, ...]):
    return next((content[name] for name in names if content.get(name) is not None), None)


def _is_person(content) -> bool:
    return isinstance(content, dict) and _first(content, POINTS) is not None


def _label(row: dict) -> str | float | None:
    label = _first(row, FRAME)
    return label if isinstance(label, (str, int, float)) else None


def _is_point(content) -> bool:
    return isinstance(content, dict) and {"x", "y"} <= set(content)


def _is_openpose(content) -> bool:  # whose --keypoint_scale 4 is -1 to 1
    return isinstance(content, dict) and "people" in content


def _content(path: Path):
    """What a .json holds. Keypoints are arrays, made on the way: as numbers of Python they take ten times as much."""
    with open_json(path, hook=_packed) as content:
        first, found = content.peek(), {}
        if first == "[":
            found = [_numbers(content.value()) for _ in content.items()]
        elif first == "{":
            for name in content.names():
                ours = name == "people" and found.get("format") == "posekernels"
                if content.peek() != "[":
                    found[name] = content.value()
                    continue
                found[name] = [
                    _our_person(path, content) if ours and content.peek() == "{" else content.value()
                    for _ in content.items()
                ]
        else:
            found = content.value()
        content.end()
    return found


def _packed(content: dict) -> dict:
    for name in (*POINTS, *SCORES):
        if name in content:
            content[name] = _numbers(content[name])
    return content


def _numbers(value):
    """Lists of numbers, of one length, as an array; anything else as it is."""
    leaf = value
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    if leaf is value or not isinstance(leaf, (int, float, type(None))):
        return value
    try:
        return np.array(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        return value


def _our_person(path: Path, content: OpenJson) -> dict:
    """What is 2D of a person in a file of ours, frame by frame."""
    found = {}
    for name in content.names():
        if name in ("keypoints", "scores", "detected") and content.peek() == "[":
            found[name] = np.concatenate([_floats(path, some) for some in content.pieces()])
        elif name in ("poses", "world"):
            content.skip()
        else:
            found[name] = content.value()
    return found


def _json(path: Path) -> Reading:
    content = _content(path)
    if isinstance(content, dict):
        if content.get("format") == "posekernels":
            return _ours(path, content)
        if "annotations" in content:
            return _coco(path, content)
    if isinstance(content, list) and content and all(isinstance(row, str) for row in content):
        try:
            content = [json.loads(row) for row in content]  # what Ultralytics' to_json gives for each frame
        except ValueError as error:
            raise _unknown(path) from error
    if isinstance(content, list) and content and not _holds_people(content):
        return _arrays(path, _floats(path, content))
    return Reading(path, _frames(path, content), sided=_is_openpose(content))


def _holds_people(content: list) -> bool:
    """Whether a list holds people or their points, and not just lists of numbers."""

    def first(part):
        while isinstance(part, list) and part:
            part = part[0]
        return part

    return not isinstance(content[0], (list, np.ndarray)) or any(isinstance(first(part), dict) for part in content)


def _frames(path: Path, content) -> list[Frame]:
    """The frames of JSON that says nothing else."""
    if isinstance(content, dict) and "instance_info" in content:
        content = content["instance_info"]
    if isinstance(content, dict) and isinstance(content.get("predictions"), list):
        content = content["predictions"]
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(v, dict) and set(PEOPLE) & set(v) for v in content.values())
    ):
        return [Frame(name, _people(path, frame)) for name, frame in content.items()]  # AlphaPose, as open or cmu
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        if all(_is_person(row) and _label(row) is not None for row in content):  # AlphaPose, COCO's results
            frames: dict[object, Frame] = {}
            for row in content:
                frames.setdefault(_label(row), Frame(_label(row), [])).people.append(_person(path, row))
            return list(frames.values())
        if all(set(PEOPLE) & set(row) for row in content):
            return [Frame(_label(row), _people(path, row)) for row in content]
    if isinstance(content, list) and content and all(isinstance(row, list) for row in content):
        return [Frame(None, _people(path, row)) for row in content]
    return [Frame(None, _people(path, content))]


def _people(path: Path, content) -> list[Seen]:
    """Everybody in one frame: a list of people, what holds one, one person, or one person's points.

    Raises:
        DataError: none of these.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError as error:
            raise _unknown(path) from error
    if isinstance(content, dict):
        people = _first(content, PEOPLE)
        if people is not None:
            return _people(path, people)
        if _is_person(content):
            return [_person(path, content)]
        raise _unknown(path)
    if not isinstance(content, list):
        raise _unknown(path)
    if content and all(_is_point(point) for point in content):
        return [_person(path, {"keypoints": content})]
    if content and all(isinstance(part, list) for part in content):  # a list of lists of people
        return [seen for part in content for seen in _people(path, part)]
    if not all(isinstance(person, dict) for person in content):
        raise _unknown(path)
    named = [person for person in content if "keypoints" in person or person.get("name", "person") == "person"]
    return [_person(path, person) for person in named]


def _person(path: Path, content: dict, identities: tuple[str, ...] = IDENTITIES) -> Seen:
    """One person of one frame; ``identities``: where their number may stand.

    Raises:
        DataError: no keypoints, or not in one of the forms that keypoints have.
    """
    if not isinstance(content, dict) or not _is_person(content):
        raise _unknown(path)
    values, scores = _first(content, POINTS), _first(content, SCORES)
    if isinstance(values, list) and not values and any("3d" in key and content[key] for key in content):
        raise DataError(f"{path}: joints in 3D and none in 2D; {FOR_3D}")
    if isinstance(values, dict) and {"x", "y"} <= set(values):  # Ultralytics: lists of each
        parts = [values["x"], values["y"], *([of] if (of := _first(values, SCORE)) is not None else [])]
        points = _floats(path, parts).T
    elif isinstance(values, list) and values and all(_is_point(point) for point in values):
        rows = [[p["x"], p["y"], *([of] if (of := _first(p, SCORE)) is not None else [])] for p in values]
        if len({len(row) for row in rows}) == 1 and len(rows[0]) == 2 and all("z" in p for p in values):
            raise DataError(f"{path}: x, y and z of joints and no scores: joints in 3D; {FOR_3D}")
        points = _floats(path, rows)
    else:
        points = _floats(path, values)
        if points.ndim == 1:
            points = _triples(path, points)
    if points.ndim == 3 and len(points) == 1:
        points = points[0]
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise DataError(
            f"{path}: keypoints of a person must be [J, 2] or x, y, score for each, got {list(points.shape)}"
        )
    if scores is not None:
        scores = _floats(path, scores).reshape(-1)
        if len(scores) != len(points):
            raise DataError(f"{path}: expected a score for each of {len(points)} keypoints, got {len(scores)}")
    return Seen(points, scores, _first(content, identities))


def _triples(path: Path, flat: np.ndarray) -> np.ndarray:
    """Flat x, y, score, x, y, ... as [J, 3]."""
    if not flat.size or flat.size % 3:
        raise DataError(f"{path}: keypoints must be x, y, score for each joint, got {flat.size} numbers")
    return flat.reshape(-1, 3)


def _ours(path: Path, content: dict) -> Reading:
    """What ``posekernels lift -o x.json`` writes."""
    people = content.get("people") or []
    if not people:
        raise DataError(f"{path}: nobody in it")
    if "now" in content:
        raise DataError(f"{path}: {FORECAST}")
    try:
        for name in ("layout", "source"):
            if not isinstance(content.get(name, ""), str):
                raise TypeError(f"{name}: expected a name, got {content[name]!r:.40}")
        points = np.stack([_floats(path, p["keypoints"]) for p in people])
        scores = np.stack([_floats(path, p["scores"]) for p in people]) if "scores" in people[0] else None
        size = tuple(int(n) for n in content["size"]) if content.get("size") else None
        layout = content.get("detected_layout")
        more = {"detected": _floats(path, [p["detected"] for p in people]), "detected_layout": layout} if layout else {}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not as posekernels lift writes it ({error})") from error
    known = {name: content.get(name) for name in ("layout", "fps")} | {"size": size}
    known["source"] = content.get("source", "")
    known["detected"] = _by_frames(detected(path, more, points.shape[:-2]))
    return _arrays(path, points, scores, [p.get("id") for p in people], numbered=True, **known)


def _coco(path: Path, content: dict) -> Reading:
    """COCO's annotations: people by ``image_id``, images by ``id``, with their names and sizes."""
    images, rows = content.get("images") or [], content["annotations"]
    if (
        not isinstance(images, list)
        or not isinstance(rows, list)
        or not all(isinstance(r, dict) for r in [*images, *rows])
    ):
        raise _unknown(path)
    frames = {image.get("id"): Frame(_first(image, ("frame_id", "file_name", "id")), []) for image in images}
    for row in rows:
        if _is_person(row) and "image_id" in row:
            frames.setdefault(row["image_id"], Frame(row["image_id"], [])).people.append(
                _person(path, row, IDENTITIES[:-1])
            )
    if len({isinstance(frame.label, str) for frame in frames.values()}) > 1:
        frames = {key: Frame(key, frame.people) for key, frame in frames.items()}
    sizes = {(image.get("width"), image.get("height")) for image in images}
    [size] = sizes if len(sizes) == 1 else [(None, None)]
    return Reading(path, list(frames.values()), size=size if all(size) else None)


def _folder(path: Path) -> Reading:
    """A folder of files with one frame each, whatever wrote them."""
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path}: no .json files in this folder")
    frames, sided = [], False
    for file in files:
        content = read_json(file)
        if isinstance(content, dict) and content.get("format") == "posekernels":
            raise DataError(
                f"{file}: posekernels lift wrote it; expected one frame in each file of a folder; give it by itself"
            )
        found = _frames(file, content)
        if len(found) != 1:
            raise DataError(
                f"{file}: expected one frame in each file of a folder, got {len(found)}; give the file by itself"
            )
        frames.append(Frame(file.name, found[0].people))
        sided |= _is_openpose(content)
    return Reading(path, frames, sided=sided)
