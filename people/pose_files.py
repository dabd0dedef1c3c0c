"""Lifted people as files: .npz and .json hold everything; ``people.motion_files`` makes .trc .c3d .bvh .glb .gltf."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, OpenJson, check_file, open_json, open_npz, read_json, read_npy, read_npz
from posekernels.extras import needs
from posekernels.files import write_aside
from posekernels.pose.layouts import LAYOUTS, to_h36m
from posekernels.pose.skeleton import H36M_17, SKELETONS, skeleton

from . import keypoint_files, motion_files
from .lifter import Person, Shelf
from .rows import cuts
from .world import Lifted

SUFFIXES = (".npz", ".json", ".trc", ".c3d", ".bvh", ".glb", ".gltf")
READ = (".npz", ".json")
OURS = "people as posekernels lift writes them"
DENSE = 256 << 20  # bytes up to which every frame of everybody is written, there or not
MOST = 4e9  # bytes of a file in another form than .npz
BYTES = {".json": 600, ".trc": 450, ".c3d": 272, ".bvh": 400, ".glb": 280, ".gltf": 370, ".html": 230}  # of a frame
MANY = 1 << 16  # frames of all people, from which on ``read_before`` does not read a file whole


def check_target(path: Path) -> None:
    """Raises ValueError if ``write`` cannot write such a file: another suffix, or .c3d without the package ezc3d."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: poses are written as {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}")
    if suffix == ".c3d":
        needs("ezc3d", "c3d", "writing .c3d")


def write(path: str | Path, lifted: Lifted) -> list[Path]:
    """Write in the form that the suffix names; aside first, then renamed.

    Returns:
        The files: one, or for .bvh one per person (``walk.bvh``, ``walk-2.bvh`` for person 2, ...).
    Raises:
        ValueError: as ``check_target``. OSError: the place cannot be written.
    """
    path = Path(path)
    check_target(path)
    check_room(path, lifted)
    suffix = path.suffix.lower()
    if suffix == ".bvh":
        people = enumerate(lifted.people)
        return [_write(_beside(path, p, i), motion_files.bvh(p, lifted.fps, lifted.frames)) for i, p in people]
    if suffix == ".npz":
        _write_npz(path, lifted)
    elif suffix == ".c3d":
        with write_aside(path) as aside:
            motion_files.c3d(lifted, aside)
    elif suffix == ".json":
        with write_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(as_json(lifted))
    elif suffix == ".trc":
        _write(path, motion_files.trc(lifted, path.name))
    else:
        _write(path, {".glb": motion_files.glb, ".gltf": motion_files.gltf_text}[suffix](lifted))
    return [path]


def _beside(path: Path, person: Person, index: int) -> Path:
    return path if index == 0 else path.with_name(f"{path.stem}-{person.identity}{path.suffix}")


def _write(path: Path, content: str | bytes) -> Path:
    with write_aside(path) as aside:
        aside.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- everything ------------------------------------------------------------------------------------------------------
FIELDS = {"keypoints": ("points", (17, 2)), "scores": ("scores", (17,)), "poses": ("poses", (17, 3))}
FIELDS |= {"world": ("world", (17, 3))}


def by_frames(lifted: Lifted) -> bool:
    """Whether most of the frames of most people would be empty, of so many that it matters: they are left out then."""
    cells, there = len(lifted.people) * lifted.frames, sum(len(p.frames) for p in lifted.people)
    return cells * (Shelf.ROW + _joints(lifted) * Shelf.DETECTED) > DENSE and cells > 4 * there


def _joints(lifted: Lifted) -> int:
    """How many each person's ``detected`` holds; 0 for none."""
    return skeleton(lifted.detected_layout).num_joints if lifted.detected_layout else 0


def _write_npz(path: Path, lifted: Lifted) -> None:
    """[P, T, ...] of each; of ``by_frames`` [N, ...] of all who are there, with ``frame`` and ``identity`` [N].

    Written piece by piece, so that it takes hardly any memory.
    """
    people, sparse = lifted.people, by_frames(lifted)
    count = sum(len(p.frames) for p in people)
    lead = (count,) if sparse else (len(people), lifted.frames)
    with write_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
            head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, head)
                for part in parts:
                    file.write(np.ascontiguousarray(part, dtype).tobytes())

        more = {"detected": ("detected", (_joints(lifted), 3))} if lifted.detected_layout else {}
        for name, (of, shape) in (FIELDS | more).items():
            if sparse:
                parts = (getattr(p, of)[rows] for p in people for rows in cuts(len(p.frames)))
            else:
                parts = (p.over(of, rows.stop, rows.start) for p in people for rows in cuts(lifted.frames))
            put(name, np.dtype("<f4"), (*lead, *shape), parts)
        if sparse:
            put("frame", np.dtype("<i8"), lead, (p.frames for p in people))
            put("identity", np.dtype("<i8"), lead, (np.full(len(p.frames), p.identity) for p in people))
        about = {
            "identities": np.array([p.identity for p in people]),
            "frames": np.array(lifted.frames),
            "fps": np.array(lifted.fps),
            "size": np.array(lifted.size or (), np.int64),
            "layout": np.array(H36M_17.name),
            "source": np.array(lifted.source),
        }
        if lifted.detected_layout:
            about["detected_layout"] = np.array(lifted.detected_layout)
            about["detected_joints"] = np.array(skeleton(lifted.detected_layout).joints)
        if lifted.now is not None:
            about["now"] = np.array(lifted.now)
        for name, value in about.items():
            put(name, value.dtype, value.shape, [value])


def check_room(path: Path, lifted: Lifted) -> None:
    """Raises ValueError where a form that holds everybody in every frame would be larger than anybody can use."""
    row = BYTES.get(path.suffix.lower(), 0) + (22 * _joints(lifted) if path.suffix.lower() == ".json" else 0)
    size = row * len(lifted.people) * lifted.frames
    if size > MOST:
        raise ValueError(
            f"{path}: {len(lifted.people)} people over {lifted.frames} frames would take about {size / 1e9:.0f} GB; "
            ".npz holds those who are there; or cut the recording, or take fewer --people"
        )


def _rounded(values: np.ndarray, digits: int) -> list:
    """Nested lists, NaN as null."""
    values = np.round(values.astype(np.float64), digits).astype(object)
    values[values != values] = None  # NaN differs from itself
    return values.tolist()


def as_json(lifted: Lifted) -> Iterator[str]:
    """The text, piece by piece: as numbers of Python, all of a long recording would take ten times as much."""
    more = lifted.detected_layout
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
        **({"now": lifted.now} if lifted.now is not None else {}),
        **({"detected_layout": more, "detected_joints": skeleton(more).joints} if more else {}),
    }
    fields = {"keypoints": ("points", 2), "scores": ("scores", 3), "poses": ("poses", 4), "world": ("world", 4)}
    fields |= {"detected": ("detected", 3)} if more else {}
    yield f'{_dense(about)[:-1]},"people":['
    for index, person in enumerate(lifted.people):
        yield f'{"," if index else ""}{{"id":{int(person.identity)}'
        for name, (of, digits) in fields.items():
            yield f',"{name}":['
            for rows in cuts(lifted.frames, 256):
                part = _dense(_rounded(person.over(of, rows.stop, rows.start), digits))
                yield ("," if rows.start else "") + part[1:-1]
            yield "]"
        yield "}"
    yield "]}\n"


def _dense(value) -> str:
    return json.dumps(value, separators=(",", ":"))


def read(path: str | Path) -> Lifted:
    """Lifted people from a ``.npz`` or ``.json`` that ``write`` made.

    Raises:
        DataError: missing, another kind of file, or without 3D.
    """
    path = Path(path)
    if path.suffix.lower() not in READ:
        raise DataError(f"{path}: lifted people are read from the .npz or .json that posekernels lift writes")
    check_file(path, OURS)
    content = _of_json(path) if path.suffix.lower() == ".json" else read_npz(path)
    missing = [k for k in ("keypoints", "scores", "poses", "world", "identities", "fps") if k not in content]
    if missing:
        raise DataError(
            f"{path}: no 3D people in it (missing: {', '.join(missing)}); expected a file of posekernels lift"
        )
    arrays = [np.asarray(content[k], np.float32) for k in FIELDS]
    if not arrays[0].size:
        raise DataError(f"{path}: nobody in it; expected {OURS}")
    detected, layout = keypoint_files.detected(path, content, arrays[0].shape[:-2]) or (None, None)
    if "frame" in content:
        found = _of_frames(path, content, arrays, detected)
        return replace(found, detected_layout=layout, now=_now(path, content, found.frames))
    people, frames = arrays[0].shape[:2] if arrays[0].ndim == 4 else (0, 0)
    if any(a.shape != (people, frames, 17, *rest) for a, rest in zip(arrays, ((2,), (), (3,), (3,)))):
        raise DataError(f"{path}: expected [P, T, 17, ...], got {[list(a.shape) for a in arrays]}")
    identities, fps = np.ravel(content["identities"]).tolist(), float(content["fps"])
    if len(identities) != people or not 0 < fps < float("inf"):
        came = f"{len(identities)} and {fps:g}"
        raise DataError(f"{path}: expected an identity for each of {people} people and a positive fps, got {came}")
    size = tuple(int(v) for v in np.ravel(content.get("size", ())))
    more = [None] * people if detected is None else detected
    found = [Person(int(i), *parts, detected=own) for i, *parts, own in zip(identities, *arrays, more)]
    source = str(content.get("source", ""))
    size, now = size if len(size) == 2 else None, _now(path, content, frames)
    return Lifted(found, fps, size, source, now=now, detected_layout=layout)


def _now(path: Path, content: dict, frames: int) -> int | None:
    """How many frames of a forecast were seen; None of people who were all seen."""
    if "now" not in content:
        return None
    now = content["now"].tolist() if isinstance(content["now"], np.ndarray) else content["now"]
    if type(now) is not int or not 0 < now < frames:
        raise DataError(f"{path}: now: expected how many of the {frames} frames were seen, got {now!r:.40}")
    return now


def read_before(path: str | Path, seconds: float, at: float | None = None) -> tuple[Lifted, Lifted]:
    """The last seconds of a file that ``write`` made, or those before second ``at``. The rest takes no memory.

    Returns:
        The people in these frames, or in the one where they were last seen before; and an outline of everything: people
        with the frames in which they have a place, which is not told.
    Raises:
        DataError: as ``read``.
    """
    path = Path(path)
    check_file(path, OURS)
    found = (_json_before if path.suffix.lower() == ".json" else _npz_before)(path, seconds, at)
    if found is None:
        return (whole := read(path)), whole
    return found


def _npz_before(path: Path, seconds: float, at: float | None) -> tuple[Lifted, Lifted] | None:
    """``read_before``; None where the whole file is to be read: it is small, or a forecast, or something is wrong."""
    names = (*FIELDS, "identities", "fps")
    with open_npz(path) as content:
        lead = content.shape("world")[:-2] if all(name in content for name in names) else ()
        if np.prod(lead) < MANY or "now" in content:
            return None
        fps, identities = float(content["fps"]), np.ravel(content["identities"]).tolist()
        if "frame" in content:
            length = int(content["frames"])
            frame, whose = (np.asarray(content[name], np.int64) for name in ("frame", "identity"))
        else:
            length = lead[-1]
            frame, whose = np.tile(np.arange(length), len(identities)), np.repeat(identities, length)
        layout = str(content["detected_layout"]) if "detected_layout" in content else None
        if layout is not None and layout not in SKELETONS:
            return None
        fields = _fields(layout)
        shapes = [name in content and content.shape(name) == (*lead, *width) for name, (_, width) in fields.items()]
        if not all(shapes) or not len(frame) == len(whose) == np.prod(lead) or not 0 < fps < float("inf"):
            return None
        end = _End(length, fps, seconds, at)
        kept = (frame >= end.start) & (frame < end.stop)
        parts = {of: _some(content.rows(name, width), kept) for name, (of, width) in fields.items()}
        size = tuple(int(v) for v in np.ravel(content["size"])) if "size" in content else ()
        source = str(content["source"]) if "source" in content else ""
    there = parts["world"][1]
    for identity in identities:
        own = whose[kept] == identity
        told = {of: part[own] for of, (part, _) in parts.items()}
        end.add(identity, frame[there & (whose == identity)], frame[kept][own], told)
    return end.lifted(fps, size, source, layout)


def _json_before(path: Path, seconds: float, at: float | None) -> tuple[Lifted, Lifted] | None:
    """``read_before`` of what ``as_json`` wrote, which says all about everybody before it comes to them."""
    if path.stat().st_size < MANY * BYTES[".json"]:
        return None
    about, end = {}, None
    with open_json(path) as content:
        for key in content.names():
            if key != "people":
                about[key] = content.value()
                continue
            try:
                length, fps, layout = int(about["frames"]), float(about["fps"]), about.get("detected_layout")
            except (KeyError, TypeError, ValueError, OverflowError):
                return None
            if about.get("format") != "posekernels" or "now" in about or not 0 < fps < float("inf"):
                return None
            if not 1 <= length <= path.stat().st_size:  # a frame takes more than a byte
                return None
            if layout is not None and (not isinstance(layout, str) or layout not in SKELETONS):
                return None
            end, fields = _End(length, fps, seconds, at), _fields(layout)
            kept = np.zeros(length, bool)
            kept[end.start : end.stop] = True
            for _ in content.items():
                parts, identity = {}, None
                for name in content.names():
                    if name in fields:
                        of, width = fields[name]
                        parts[of] = _some(_rows(content, width), kept)
                    elif name == "id":
                        identity = content.value()
                    else:
                        content.skip()
                if type(identity) is not int or len(parts) < len(fields):
                    return None
                there = np.flatnonzero(parts["world"][1])
                end.add(identity, there, np.flatnonzero(kept), {of: part for of, (part, _) in parts.items()})
        content.end()
    size, source = about.get("size") or [], about.get("source", "")
    if not isinstance(size, list) or len(size) not in (0, 2) or not all(type(n) is int for n in size):
        return None
    if not isinstance(source, str):
        return None
    return end and end.lifted(fps, tuple(size), source, layout)


def _fields(layout: str | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """``FIELDS`` of a file, which may have ``detected`` of a layout too."""
    return FIELDS | ({"detected": ("detected", (skeleton(layout).num_joints, 3))} if layout else {})


class _End:
    """People before a moment, as ``read_before`` gives them."""

    def __init__(self, length: int, fps: float, seconds: float, at: float | None):
        self.length = length
        self.stop = length if at is None else min(length, max(1, round(at * fps)))
        self.start = max(0, self.stop - round(seconds * fps))
        self.people, self.outline = [], []

    def add(self, identity: int, seen: np.ndarray, frames: np.ndarray, parts: dict[str, np.ndarray]) -> None:
        """Somebody with a place in the frames ``seen``, of whom ``parts`` tell those from ``start`` to ``stop``."""
        if not ((seen >= self.start) & (seen < self.stop)).any():  # when they left is told
            frames = seen[seen < self.stop][-1:]
            parts = {of: _nothing(len(frames), part.shape[1:]) for of, part in parts.items()}
        self.people.append(Person(int(identity), **parts, frames=frames))
        nothing = {of: _nothing(len(seen), width) for of, width in FIELDS.values()}
        self.outline.append(Person(int(identity), **nothing, frames=seen))

    def lifted(self, fps: float, size: tuple[int, ...], source: str, layout: str | None) -> tuple[Lifted, Lifted]:
        size = size if len(size) == 2 else None
        people = Lifted(self.people, fps, size, source, length=self.length, detected_layout=layout)
        return people, Lifted(self.outline, fps, size, source, length=self.length)


def _rows(content: OpenJson, width: tuple[int, ...]) -> Iterator[np.ndarray]:
    """[N, *width] of a list of rows, some at a time."""
    for some in content.pieces():
        yield _row(some, width)


def _row(some: list, width: tuple[int, ...]) -> np.ndarray:
    try:
        rows = np.array(some, np.float32).reshape(len(some), *(width if not some else np.shape(some)[1:]))
    except (TypeError, OverflowError) as error:
        raise ValueError("frames are not lists of numbers") from error
    if rows.shape[1:] != width:
        raise ValueError(f"frames of {list(rows.shape[1:])}, expected {list(width)}")
    return rows


def _some(rows: Iterable[np.ndarray], kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows [N, ...] in pieces: those ``kept`` [N], and which of all are finite [N]."""
    found, there, at = [], np.zeros(len(kept), bool), 0
    for some in rows:
        own = slice(at, at + len(some))
        at = own.stop
        if at > len(kept):
            continue  # only to tell how many there are
        there[own] = np.isfinite(some).all(tuple(range(1, some.ndim)))
        found.append(some[kept[own]])
    if at != len(kept):
        raise ValueError(f"{at} frames of {len(kept)}")
    return np.concatenate(found), there


def _nothing(count: int, width: tuple[int, ...]) -> np.ndarray:
    """[count, *width] of a person of whom nothing is told, which takes no memory."""
    return np.broadcast_to(np.zeros((), np.float32), (count, *width))


def is_ours(path: Path) -> bool:
    """Whether a JSON file holds lifted people."""
    with open_json(path) as content:
        for key in content.names() if content.peek() == "{" else ():
            if key == "format":
                return content.value() == "posekernels"
            content.skip()
    return False


def _of_frames(path: Path, content: dict, arrays: list[np.ndarray], detected: np.ndarray | None) -> Lifted:
    """Of ``by_frames``."""
    frames, whose = (np.asarray(content[k], np.int64) for k in ("frame", "identity"))
    count = len(frames)
    if any(a.shape != (count, *shape) for a, (_, shape) in zip(arrays, FIELDS.values())) or whose.shape != (count,):
        raise DataError(f"{path}: expected [{count}, 17, ...] of as many frames, got {[list(a.shape) for a in arrays]}")
    people, length = [], int(content["frames"])
    for identity in np.ravel(content["identities"]).tolist():
        own = np.flatnonzero(whose == identity)
        steps = np.diff(frames[own])
        if not len(own) or (steps < 1).any() or frames[own[0]] < 0 or frames[own[-1]] >= length:
            raise DataError(f"{path}: person {identity}: expected frames in order, from 0 to {length - 1}")
        points, scores, poses, world = (a[own] for a in arrays)
        more = None if detected is None else detected[own]
        people.append(Person(identity, points, scores, poses, world, frames=frames[own], detected=more))
    size = tuple(int(n) for n in np.ravel(content.get("size", ())))
    source = str(content.get("source", path.name))
    return Lifted(people, float(content["fps"]), size if len(size) == 2 else None, source, length=length)


def _of_json(path: Path) -> dict:
    """What ``as_json`` wrote, under the names and in the shapes that it has in .npz; null is NaN."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != "posekernels":
        raise DataError(f"{path}: no 3D people in it; expected a file of posekernels lift")
    people, names = content.get("people", []), ("keypoints", "scores", "poses", "world")
    try:
        arrays = {k: np.array([p[k] for p in people], np.float32) for k in names}
        if "detected_layout" in content:
            arrays["detected"] = np.array([p["detected"] for p in people], np.float32)
            arrays["detected_layout"] = content["detected_layout"]
        found = arrays | {"identities": [int(p["id"]) for p in people], "fps": float(content["fps"])}
        size, source = [int(n) for n in np.ravel(content.get("size") or ())], content.get("source", "")
        if not isinstance(source, str):
            raise TypeError(f"source: expected a name, got {source!r:.40}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not as posekernels lift writes it ({type(error).__name__}: {error})") from error
    return found | {"size": size, "source": source} | ({"now": content["now"]} if "now" in content else {})


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
        arrays = [read_npy(path)]
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
