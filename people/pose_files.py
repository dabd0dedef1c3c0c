"""Lifted people as files: .npz and .json (everything), .trc (markers over time), .bvh (a skeleton with rotations)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from posekernels._files import write_aside
from posekernels.archive import DataError, read_npz, write_npz
from posekernels.pose.layouts import LAYOUTS, to_h36m
from posekernels.pose.skeleton import H36M_17, skeleton

from .lifter import Person
from .world import Lifted

SUFFIXES = (".npz", ".json", ".trc", ".bvh")


def write(path: str | Path, lifted: Lifted) -> list[Path]:
    """Write in the form that the suffix names; aside first, then renamed.

    Returns:
        The files: one, or for .bvh one per person (``walk.bvh``, ``walk-2.bvh`` for person 2, ...).
    Raises:
        ValueError: another suffix. OSError: the place cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: poses are written as {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}")
    if suffix == ".npz":
        write_npz(path, **_arrays(lifted))
        return [path]
    if suffix == ".bvh":
        return [_text(_beside(path, p, i), bvh(p, lifted.fps)) for i, p in enumerate(lifted.people)]
    return [_text(path, as_json(lifted) if suffix == ".json" else trc(lifted, path.name))]


def _beside(path: Path, person: Person, index: int) -> Path:
    return path if index == 0 else path.with_name(f"{path.stem}-{person.identity}{path.suffix}")


def _text(path: Path, text: str) -> Path:
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


# -- everything ------------------------------------------------------------------------------------------------------
def _arrays(lifted: Lifted) -> dict[str, np.ndarray]:
    people = lifted.people
    return {
        "keypoints": np.stack([p.points for p in people]),
        "scores": np.stack([p.scores for p in people]),
        "poses": np.stack([p.poses for p in people]),
        "world": np.stack([p.world for p in people]),
        "identities": np.array([p.identity for p in people]),
        "fps": np.array(lifted.fps),
        "size": np.array(lifted.size or (), np.int64),
        "layout": np.array(H36M_17.name),
        "source": np.array(lifted.source),
    }


def _rounded(values: np.ndarray, digits: int) -> list:
    """Nested lists, NaN as null."""
    values = np.round(values.astype(np.float64), digits).astype(object)
    values[values != values] = None  # NaN differs from itself
    return values.tolist()


def as_json(lifted: Lifted) -> str:
    people = [
        {
            "id": int(p.identity),
            "keypoints": _rounded(p.points, 2),
            "scores": _rounded(p.scores, 3),
            "poses": _rounded(p.poses, 4),
            "world": _rounded(p.world, 4),
        }
        for p in lifted.people
    ]
    about = {
        "format": "posekernels",
        "layout": H36M_17.name,
        "joints": H36M_17.joints,
        "parents": H36M_17.parents,
        "units": {"keypoints": "pixels", "poses": "metres, camera axes, root at 0", "world": "metres, z up"},
        "fps": lifted.fps,
        "size": lifted.size,
        "source": lifted.source,
        "frames": lifted.frames,
        "people": people,
    }
    return json.dumps(about, separators=(",", ":")) + "\n"


def read(path: str | Path) -> Lifted:
    """Lifted people from a ``.npz`` that ``write`` made.

    Raises:
        DataError: missing, another kind of file, or without 3D.
    """
    if Path(path).suffix.lower() != ".npz":
        raise DataError(f"{path}: lifted people are read from the .npz that posekernels lift writes")
    content = read_npz(path)
    missing = [k for k in ("keypoints", "scores", "poses", "world", "identities", "fps") if k not in content]
    if missing:
        raise DataError(
            f"{path}: no 3D people in it (missing: {', '.join(missing)}); expected a file of posekernels lift"
        )
    arrays = [np.asarray(content[k], np.float32) for k in ("keypoints", "scores", "poses", "world")]
    people, frames = arrays[0].shape[:2] if arrays[0].ndim == 4 else (0, 0)
    if (
        not people
        or not frames
        or any(a.shape != (people, frames, 17, *rest) for a, rest in zip(arrays, ((2,), (), (3,), (3,))))
    ):
        raise DataError(f"{path}: expected [P, T, 17, ...], got {[list(a.shape) for a in arrays]}")
    identities = np.ravel(content["identities"]).tolist()
    size = tuple(int(v) for v in np.ravel(content.get("size", ())))
    found = [Person(int(i), *parts) for i, *parts in zip(identities, *arrays)]
    return Lifted(found, float(content["fps"]), size if len(size) == 2 else None, str(content.get("source", "")))


def read_joints(path: str | Path, layout: str, fps: float, up: str = "z") -> Lifted:
    """Somebody's own 3D joints, [T, J, 3] in metres, as a lifted person: what ``posekernels forecast`` goes on from.

    Its ``notes`` tell where the joints hardly are in metres, of this layout, or upright.

    Args:
        path: ``.npy``, or ``.npz`` with one such array.
        layout: of the joints, one of ``posekernels.pose.layouts.LAYOUTS``.
        fps: frames per second. up: the axis that points up, "z" or "y".
    Raises:
        DataError: another kind of file or shape. ValueError: an unknown layout, or a rate that is not positive
            and finite.
    """
    path = Path(path)
    if not 0 < fps < float("inf"):
        raise ValueError(f"--fps must be positive and finite, got {fps:g}")
    if path.suffix.lower() == ".npz":
        arrays = [a for a in read_npz(path).values() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    else:
        try:
            arrays = [np.load(path, allow_pickle=False)]
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path}: not an array of numbers ({str(error).splitlines()[0]})") from error
    came = " and ".join(str(list(a.shape)) for a in arrays) or "none of decimal numbers"
    arrays = [a for a in arrays if a.ndim == 3 and a.shape[2] == 3 and len(a)]
    if len(arrays) != 1:
        raise DataError(f"{path}: expected one array [T, J, 3] of 3D joints, got {came}")
    joints = np.asarray(arrays[0], np.float32)
    world = to_h36m(joints, layout)
    notes = [f"warning: {path}: {doubt}" for doubt in _layout_doubts(joints, layout) or _axis_doubts(world, up)]
    if up == "y":
        world = np.stack((world[..., 0], -world[..., 2], world[..., 1]), -1)
    nothing, unseen = np.full((len(world), 17, 2), np.nan, np.float32), np.zeros((len(world), 17), np.float32)
    bones = np.linalg.norm(world[:, 1:] - world[:, H36M_17.parents[1:]], axis=-1)
    bone = np.median(bones[np.isfinite(bones)]) if np.isfinite(bones).any() else 0.25  # its length: few outliers matter
    for unit, metres in (("millimetres", 1e-3), ("centimetres", 1e-2)):
        if 0.1 < bone * metres < 0.6:
            world *= metres
            notes.append(f"{path}: bones of {bone:.3g} in the median: taken for {unit}, made metres")
            bone *= metres
    if not 0.05 < bone < 1:
        raise DataError(f"{path}: bones of {bone:.3g} in the median; joints must be in metres, where it is about 0.25")
    return Lifted([Person(1, nothing, unseen, world - world[:, :1], world)], fps, None, str(path), notes)


_LIMBS = ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")


def _unevenness(joints: np.ndarray, layout: str) -> float:
    """How many times as long a limb is as the other side's, at worst: of joints [T, J, 3], medians over time."""
    world, worst = to_h36m(joints, layout), 1.0
    for limb in _LIMBS:
        ends = [[H36M_17.joints.index(f"{side}_{joint}") for joint in limb] for side in ("left", "right")]
        lengths = np.stack([np.linalg.norm(world[:, a] - world[:, b], axis=-1) for a, b in ends], 1)
        lengths = lengths[np.isfinite(lengths).all(1)]
        if len(lengths):
            short, long = sorted(np.median(lengths, 0).tolist())
            worst = max(worst, long / max(short, 1e-9))
    return worst


def _layout_doubts(joints: np.ndarray, layout: str) -> list[str]:
    """Right joints have limbs of one length on both sides; those of another layout, taken for these, hardly ever."""
    uneven = _unevenness(joints, layout)
    if uneven < 1.4:
        return []
    others = [name for name in LAYOUTS if name != layout and skeleton(name).num_joints == joints.shape[1]]
    fits = " or ".join(name for name in others if _unevenness(joints, name) < 1.2)
    looks = f"the joints look like those of {fits}" if fits else "is this the order of the joints?"
    return [f"as {layout}, a limb is {min(uneven, 99):.1f} times as long as that of the other side; {looks}"]


def _axis_doubts(world: np.ndarray, up: str) -> list[str]:
    """Where heads are away from feet along one axis, and it is not ``up``: [T, 17, 3] in axes as they came."""
    rise = world[:, 10] - (world[:, 3] + world[:, 6]) / 2
    rise = rise[np.isfinite(rise).all(-1)]
    if not len(rise):
        return []
    rise = np.median(rise, 0)
    axis = int(np.abs(rise).argmax())
    points = f"{'-' if rise[axis] < 0 else ''}{'xyz'[axis]}"
    if points == up or abs(rise[axis]) <= 0.8 * np.linalg.norm(rise):
        return []
    how = f"--up {points}" if points in ("y", "z") else "turn the joints so that z or y does (--up)"
    return [f"{points} seems to point up, not {up}: heads are above feet there; if nobody lies or crawls, {how}"]


# -- TRC -------------------------------------------------------------------------------------------------------------
def trc(lifted: Lifted, name: str) -> str:
    """OpenSim's track rows: metres, y up, one marker per joint; empty cells where a person is absent.

    With several people the markers are called after them: ``p2_head``.
    """
    several = len(lifted.people) > 1
    names = [f"p{p.identity}_{j}" if several else j for p in lifted.people for j in H36M_17.joints]
    points = np.concatenate([p.world for p in lifted.people], 1)
    points = np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)  # z up to y up: left stays left
    fps, frames, count = f"{lifted.fps:g}", len(points), len(names)
    rows = [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{fps}\t{fps}\t{frames}\t{count}\tm\t{fps}\t1\t{frames}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{i + 1}" for i in range(count) for axis in "XYZ"),
    ]
    for t, frame in enumerate(points.reshape(frames, -1)):
        cells = (f"{v:.5f}" if np.isfinite(v) else "" for v in frame)
        rows.append(f"{t + 1}\t{t / lifted.fps:.5f}\t" + "\t".join(cells))
    return "\n".join(rows) + "\n"


# -- BVH -------------------------------------------------------------------------------------------------------------
# Where a bone points in the rest pose: a person upright with arms out, y up, facing z; so left is +x.
_REST = {
    "hip": (1, 0, 0),
    "knee": (0, -1, 0),
    "ankle": (0, -1, 0),
    "spine": (0, 1, 0),
    "thorax": (0, 1, 0),
    "nose": (0, 1, 0.3),
    "head": (0, 1, 0),
    "shoulder": (1, 0, 0),
    "elbow": (1, 0, 0),
    "wrist": (1, 0, 0),
}


def _rest_directions() -> np.ndarray:
    """[17, 3] unit vectors from each joint's parent, the root's zero."""
    directions = np.zeros((17, 3))
    for joint, name in enumerate(H36M_17.joints):
        side, _, part = name.rpartition("_")
        if part in _REST:
            vector = np.array(_REST[part], float)
            directions[joint] = vector / np.linalg.norm(vector) * ((-1 if side == "right" else 1), 1, 1)
    return directions


def _girdle(bones: np.ndarray, left: int, right: int, up: int) -> np.ndarray:
    """[3, 3] median bones to (left, right, up) in axes of x from right to left and y up: a girdle's shape at rest.

    Args:
        bones: [T, 17, 3] from the parents.
    """
    x = bones[:, left] - bones[:, right]
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
    y = bones[:, up] - (bones[:, up] * x).sum(-1, keepdims=True) * x
    y /= np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-9)
    axes = np.stack((x, y, np.cross(x, y)), 1)
    return np.median(np.einsum("tij,tnj->tni", axes, bones[:, [left, right, up]]), axis=0)


def _aligning(rest: np.ndarray, now: np.ndarray) -> np.ndarray:
    """[T, 3, 3] rotations that best bring vectors [n, 3] to [T, n, 3], each counted by its direction (Kabsch).

    For a single vector the smallest such rotation.
    """

    def unit(v):
        return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)

    rest, now = unit(rest), unit(now)
    if len(rest) > 1:
        u, _, vt = np.linalg.svd(np.einsum("tni,nj->tij", now, rest))
        u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
        return u @ vt
    a, b = rest[0], now[:, 0]
    axis, cosine = np.cross(a, b), b @ a
    cross = np.zeros((len(b), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1).copy()
    turn = np.eye(3) + cross + cross @ cross / np.maximum(1 + cosine, 1e-9)[:, None, None]
    opposite = cosine < -1 + 1e-6
    if opposite.any():  # half a turn, about any axis across
        across = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        across /= np.linalg.norm(across)
        turn[opposite] = 2 * np.outer(across, across) - np.eye(3)
    return turn


def _euler_zxy(matrix: np.ndarray) -> np.ndarray:
    """[T, 3] degrees (z, x, y) with matrix = Rz Rx Ry."""
    x = np.arcsin(np.clip(matrix[:, 2, 1], -1, 1))
    locked = np.abs(matrix[:, 2, 1]) > 1 - 1e-9
    z = np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1])
    y = np.arctan2(-matrix[:, 2, 0], matrix[:, 2, 2])
    z = np.where(locked, np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]), z)
    return np.degrees(np.stack((z, x, np.where(locked, 0, y)), -1))


def bvh(person: Person, fps: float) -> str:
    """A person as a skeleton of fixed bones: each bone the median of its lengths, rotations fitted to the joints.

    Metres, y up. Only the stretch from the first to the last frame with a pose is written; gaps inside repeat the frame
    before. A single bone has no twist of its own: it turns as little as it can from its parent.
    """
    there = np.flatnonzero(np.isfinite(person.world).all((1, 2)))
    frames = np.arange(there[0], there[-1] + 1)
    frames = there[np.searchsorted(there, frames, side="right") - 1]
    points = person.world[frames].astype(np.float64)
    points = np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)
    parents = H36M_17.parents
    bones = points - points[:, [max(p, 0) for p in parents]]
    lengths = np.median(np.linalg.norm(bones, axis=-1), axis=0)
    rest = _rest_directions() * np.maximum(lengths, 1e-3)[:, None]
    for girdle in ((4, 1, 7), (11, 14, 9)):  # hips and spine, shoulders and neck: bones that turn together
        shape = _girdle(bones, *girdle)
        shape /= np.maximum(np.linalg.norm(shape, axis=-1, keepdims=True), 1e-9)
        rest[list(girdle)] = shape * np.maximum(lengths[list(girdle)], 1e-3)[:, None]
    children = [[j for j, p in enumerate(parents) if p == joint] for joint in range(17)]
    turns = np.tile(np.eye(3), (17, len(points), 1, 1))
    columns = [points[:, 0]]
    lines = ["HIERARCHY"]

    def visit(joint: int, depth: int) -> None:
        parent, pad = parents[joint], "  " * depth
        before = turns[parent] if parent >= 0 else np.tile(np.eye(3), (len(points), 1, 1))
        local = np.tile(np.eye(3), (len(points), 1, 1))
        if children[joint]:
            seen = np.einsum("tji,tnj->tni", before, bones[:, children[joint]])  # in the parent's axes
            local = _aligning(rest[children[joint]], seen)
        turns[joint] = before @ local
        offset = " ".join(f"{v:.6f}" for v in (rest[joint] if parent >= 0 else (0, 0, 0)))
        kind = "ROOT" if parent < 0 else "JOINT"
        place = "6 Xposition Yposition Zposition" if parent < 0 else "3"
        lines.extend((f"{pad}{kind} {H36M_17.joints[joint]}", f"{pad}{{", f"{pad}  OFFSET {offset}"))
        lines.append(f"{pad}  CHANNELS {place} Zrotation Xrotation Yrotation")
        columns.append(_euler_zxy(local))
        for child in children[joint]:
            visit(child, depth + 1)
        if not children[joint]:
            end = " ".join(f"{v:.6f}" for v in rest[joint] / np.linalg.norm(rest[joint]) * 0.1)
            lines.extend((f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {end}", f"{pad}  }}"))
        lines.append(f"{pad}}}")

    visit(0, 0)
    lines += ["MOTION", f"Frames: {len(points)}", f"Frame Time: {1 / fps:.8f}"]
    lines += [" ".join(f"{v:.5f}" for v in row) for row in np.concatenate(columns, 1)]
    return "\n".join(lines) + "\n"
