"""Lifted people for other programs: .trc and .c3d (markers over time), .bvh and .glb (a skeleton with rotations).

Everybody in a file set has one clock: frame 0 is the first of the video, for people who enter later too.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.extras import needs
from posekernels.pose.skeleton import H36M_17

from .lifter import Person
from .world import Lifted

PARENTS = H36M_17.parents


def _names(lifted: Lifted) -> list[str]:
    """Of all markers; those of several people are called after them: ``p2_head``."""
    several = len(lifted.people) > 1
    return [f"p{p.identity}_{j}" if several else j for p in lifted.people for j in H36M_17.joints]


def _y_up(points: np.ndarray) -> np.ndarray:
    """[..., 3] of z up in axes of y up; left stays left."""
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


# -- markers ---------------------------------------------------------------------------------------------------------
def trc(lifted: Lifted, name: str) -> str:
    """OpenSim's track rows: metres, y up, one marker per joint; nan where a person is absent, as OpenSim writes it.

    An empty cell would do between others, but readers take one at the end of a line for none.
    """
    names = _names(lifted)
    points = _y_up(np.concatenate(lifted.over("world"), 1))
    fps, frames, count = f"{lifted.fps:g}", len(points), len(names)
    rows = [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{fps}\t{fps}\t{frames}\t{count}\tm\t{fps}\t1\t{frames}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{i + 1}" for i in range(count) for axis in "XYZ"),
    ]
    for t, frame in enumerate(points.reshape(frames, -1)):
        cells = (f"{v:.5f}" if np.isfinite(v) else "nan" for v in frame)
        rows.append(f"{t + 1}\t{t / lifted.fps:.5f}\t" + "\t".join(cells))
    return "\n".join(rows) + "\n"


def c3d(lifted: Lifted, path: Path) -> None:
    """C3D: millimetres, z up, one point per joint; residual -1 where a person is absent.

    Raises:
        MissingExtra: the package ezc3d is missing.
    """
    ezc3d = needs("ezc3d", "c3d", "writing .c3d")
    points = np.concatenate(lifted.over("world"), 1).transpose(2, 1, 0) * 1000.0  # [3, markers, T]
    seen, file = np.isfinite(points).all(0), ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [float(lifted.fps)]
    file["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    file["parameters"]["POINT"]["LABELS"]["value"] = _names(lifted)
    for key, axis in (("X_SCREEN", "+X"), ("Y_SCREEN", "+Z")):
        file.add_parameter("POINT", key, axis)
    file["data"]["points"] = np.concatenate((points, np.ones_like(points[:1])))
    file["data"]["meta_points"]["residuals"] = np.where(seen, 0.0, -1.0)[None]
    file.write(str(path))


# -- a skeleton with rotations ---------------------------------------------------------------------------------------
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


@dataclass
class Rig:
    """A person as a skeleton of fixed bones, in metres, y up.

    Args:
        rest: [17, 3] each joint from its parent in the rest pose: upright, arms out, facing z.
        path: [T, 3] of the root. turns: [17, T, 3, 3] rotation of each joint in its parent's axes.
        first: frame of the first pose; before it the skeleton rests where the person will enter.
    """

    rest: np.ndarray
    path: np.ndarray
    turns: np.ndarray
    first: int


def rig(person: Person, frames: int | None = None) -> Rig:
    """Each bone the median of its lengths, rotations fitted to the joints; frames without a pose repeat the one before.

    A single bone has no twist of its own: it turns as little as it can from its parent.
    """
    world = person.over("world", frames)
    there = np.flatnonzero(np.isfinite(world).all((1, 2)))
    held = there[np.maximum(np.searchsorted(there, np.arange(frames), side="right") - 1, 0)]
    points = _y_up(world[held].astype(np.float64))
    bones = points - points[:, [max(p, 0) for p in PARENTS]]
    lengths = np.median(np.linalg.norm(bones[there], axis=-1), axis=0)
    rest = _rest_directions() * np.maximum(lengths, 1e-3)[:, None]
    for girdle in ((4, 1, 7), (11, 14, 9)):  # hips and spine, shoulders and neck: bones that turn together
        shape = _girdle(bones[there], *girdle)
        shape /= np.maximum(np.linalg.norm(shape, axis=-1, keepdims=True), 1e-9)
        rest[list(girdle)] = shape * np.maximum(lengths[list(girdle)], 1e-3)[:, None]
    still = np.tile(np.eye(3), (len(points), 1, 1))
    turns, whole = np.tile(still, (17, 1, 1, 1)), np.tile(still, (17, 1, 1, 1))
    for joint, parent in enumerate(PARENTS):  # parents come before their children
        children, before = _children(joint), whole[parent] if parent >= 0 else still
        if children:
            seen = np.einsum("tji,tnj->tni", before, bones[:, children])  # in the parent's axes
            turns[joint] = _aligning(rest[children], seen)
        whole[joint] = before @ turns[joint]
    turns[:, : there[0]] = np.eye(3)
    rest[0] = 0
    return Rig(rest, points[:, 0], turns, int(there[0]))


def _children(joint: int) -> list[int]:
    return [j for j, parent in enumerate(PARENTS) if parent == joint]


# -- BVH ---------------------------------------------------------------------------------------------------------------
LOCK = 1.0  # degrees between two frames by which the usual order of axes may miss


def _about(axis: int, degrees: np.ndarray) -> np.ndarray:
    """[T, 3, 3] rotations about a coordinate axis, of column vectors."""
    turn = np.zeros((len(degrees), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:, axis, axis] = 1
    turn[:, i, i], turn[:, j, j], turn[:, j, i], turn[:, i, j] = cosine, cosine, sine, -sine
    return turn


def _euler(turns: np.ndarray, order: str) -> np.ndarray:
    """[T, 3] degrees of rotations [T, 3, 3] about three different axes, such as "ZXY": the first times the second ...

    Continuous in time: of all the angles that mean the same rotation, those nearest to the frame before.
    """
    i, j, k = ("XYZ".index(axis) for axis in order)
    sign = 1 if (j - i) % 3 == 1 else -1
    b = np.arcsin(np.clip(sign * turns[:, i, k], -1, 1))
    a = np.arctan2(-sign * turns[:, j, k], turns[:, k, k])
    c = np.arctan2(-sign * turns[:, i, j], turns[:, i, i])
    angles = np.degrees(np.stack((a, b, c), -1))
    other = np.stack((angles[:, 0] + 180, 180 - angles[:, 1], angles[:, 2] + 180), -1)  # the same rotations

    def far(now: np.ndarray, before: np.ndarray) -> np.ndarray:
        return np.abs((now - before + 180) % 360 - 180).sum(-1)

    crossed = far(other[1:], angles[:-1]) < far(angles[1:], angles[:-1])
    on_other = np.r_[0, np.cumsum(crossed)] % 2 == 1
    return np.unwrap(np.where(on_other[:, None], other, angles), axis=0, period=360)


def _between(turns: np.ndarray, angles: np.ndarray, order: str) -> float:
    """Degrees by which interpolated angles miss the rotation half way between two frames, at worst."""
    if len(turns) < 2:
        return 0.0
    half = np.eye(3)
    for axis, column in zip(order, ((angles[1:] + angles[:-1]) / 2).T):
        half = half @ _about("XYZ".index(axis), column)
    u, _, vt = np.linalg.svd(turns[1:] + turns[:-1])
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    cosine = (np.einsum("tij,tij->t", u @ vt, half) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())


def _channels(turns: np.ndarray) -> tuple[str, np.ndarray]:
    """The order of a joint's axes, and its angles [T, 3]: ZXY, or where that comes near its lock, one that does not.

    Near the lock, angles of a smooth rotation leap, and what a player shows between two frames is another pose.
    """
    best = "ZXY", _euler(turns, "ZXY")
    least = _between(turns, best[1], "ZXY")
    if least > LOCK:
        for order in ("XYZ", "YXZ", "XZY", "YZX", "ZYX"):
            angles = _euler(turns, order)
            miss = _between(turns, angles, order)
            if miss < least:
                best, least = (order, angles), miss
    return best


def bvh(person: Person, fps: float, frames: int | None = None) -> str:
    """The person's ``Rig``, metres, y up; angles go on smoothly from frame to frame, also half way between two."""
    body = rig(person, frames)
    columns, lines = [body.path], ["HIERARCHY"]

    def visit(joint: int, depth: int) -> None:
        pad, rest = "  " * depth, body.rest[joint]
        order, angles = _channels(body.turns[joint, body.first :])
        columns.append(np.concatenate((np.zeros((body.first, 3)), angles)))
        kind, place = ("ROOT", "6 Xposition Yposition Zposition") if PARENTS[joint] < 0 else ("JOINT", "3")
        lines.extend((f"{pad}{kind} {H36M_17.joints[joint]}", f"{pad}{{", f"{pad}  OFFSET {_words(rest)}"))
        lines.append(f"{pad}  CHANNELS {place} " + " ".join(f"{axis}rotation" for axis in order))
        for child in _children(joint):
            visit(child, depth + 1)
        if not _children(joint):
            end = _words(rest / np.linalg.norm(rest) * 0.1)
            lines.extend((f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {end}", f"{pad}  }}"))
        lines.append(f"{pad}}}")

    visit(0, 0)
    lines += ["MOTION", f"Frames: {len(body.path)}", f"Frame Time: {1 / fps:.8f}"]
    lines += [" ".join(f"{v:.5f}" for v in row) for row in np.concatenate(columns, 1)]
    return "\n".join(lines) + "\n"


def _words(numbers: np.ndarray) -> str:
    return " ".join(f"{v:.6f}" for v in numbers)


# -- glTF ------------------------------------------------------------------------------------------------------------
COLOURS = ((0.2, 0.5, 0.9), (0.9, 0.45, 0.2), (0.3, 0.7, 0.35), (0.75, 0.35, 0.75))
THICK = 0.14  # of a bone, relative to its length


def _quaternions(turns: np.ndarray) -> np.ndarray:
    """[T, 4] (x, y, z, w) of rotations [T, 3, 3]; neighbours on the same side, so that they can be interpolated."""
    m = turns
    # four ways to the same quaternion, of which the one with the largest divisor is exact
    squares = np.stack(
        [
            1 + m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2],
            1 - m[:, 0, 0] + m[:, 1, 1] - m[:, 2, 2],
            1 - m[:, 0, 0] - m[:, 1, 1] + m[:, 2, 2],
            1 + m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2],
        ],
        1,
    )
    yz, zx, xy = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    a, b, c = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    ways = np.stack(
        [
            np.stack((squares[:, 0], a, b, yz), 1),
            np.stack((a, squares[:, 1], c, zx), 1),
            np.stack((b, c, squares[:, 2], xy), 1),
            np.stack((yz, zx, xy, squares[:, 3]), 1),
        ],
        1,
    )
    best = ways[np.arange(len(m)), squares.argmax(1)]
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    turned = np.cumsum((best[1:] * best[:-1]).sum(1) < 0) % 2
    best[1:][turned == 1] *= -1
    return best


def _bones(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body at rest: vertices [N, 3], their normals, and the joint that moves each [N]; three vertices a triangle.

    Args:
        places: [17, 3] of the joints.
    """
    vertices, joints = [], []
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            continue
        start, end = places[parent], places[joint]
        length = np.linalg.norm(end - start)
        along = (end - start) / max(length, 1e-9)
        across = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        across *= THICK * length / np.linalg.norm(across)
        ring = [across, np.cross(along, across), -across, -np.cross(along, across)]
        ring = [start + 0.2 * (end - start) + corner for corner in ring]
        for corner, following in zip(ring, ring[1:] + ring[:1]):
            vertices += [start, following, corner, corner, following, end]
        joints += [parent] * 24
    vertices = np.array(vertices)
    faces = vertices.reshape(-1, 3, 3)
    normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return vertices, np.repeat(normals, 3, 0), np.array(joints)


class _Buffer:
    """Arrays of a glTF file, one after the other."""

    KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

    def __init__(self):
        self.content, self.views, self.accessors = b"", [], []

    def add(self, array: np.ndarray, bounds: bool = False, target: int | None = None) -> int:
        """Number of the accessor to ``array``: [N] or [N, width], of float32, uint8 or uint16."""
        raw = np.ascontiguousarray(array).tobytes()
        width = array.shape[1] if array.ndim == 2 else 1
        of = {"float32": 5126, "uint8": 5121}[array.dtype.name]
        self.views.append({"buffer": 0, "byteOffset": len(self.content), "byteLength": len(raw)})
        if target is not None:
            self.views[-1]["target"] = target
        accessor = {"bufferView": len(self.views) - 1, "componentType": of, "count": len(array)}
        accessor["type"] = self.KINDS[width]
        if bounds:
            table = array.reshape(len(array), width)
            accessor |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        self.accessors.append(accessor)
        self.content += raw + bytes(-len(raw) % 4)
        return len(self.accessors) - 1


def gltf(lifted: Lifted) -> tuple[dict, bytes]:
    """A glTF 2.0 scene and its binary part: everybody as a skinned figure of bones, animated; metres, y up.

    Whoever is absent has the scale 0, by which viewers leave them out.
    """
    buffer, nodes, meshes, skins = _Buffer(), [], [], []
    channels, samplers, materials, roots = [], [], [], []
    times = buffer.add(np.arange(lifted.frames, dtype=np.float32) / np.float32(lifted.fps), bounds=True)

    def animate(node: int, path: str, values: np.ndarray, how: str = "LINEAR") -> None:
        samplers.append({"input": times, "output": buffer.add(values.astype(np.float32)), "interpolation": how})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    for number, person in enumerate(lifted.people):
        body, first, skin = rig(person, lifted.frames), len(nodes), len(skins)
        name = f"person {person.identity}"
        present = np.isfinite(person.over("world", lifted.frames)).all((1, 2))
        places = np.zeros((17, 3))
        for joint, parent in enumerate(PARENTS):
            places[joint] = (places[parent] if parent >= 0 else 0) + body.rest[joint]
            node = {"name": f"p{person.identity}_{H36M_17.joints[joint]}", "translation": body.rest[joint].tolist()}
            if _children(joint):
                node["children"] = [first + child for child in _children(joint)]
            nodes.append(node)
            if _children(joint):
                animate(first + joint, "rotation", _quaternions(body.turns[joint]))
        animate(first, "translation", body.path)
        nodes.append({"name": f"{name} skeleton", "children": [first]})
        if not present.all():
            animate(first + 17, "scale", np.repeat(present[:, None], 3, 1), "STEP")
        nodes.append({"name": name, "mesh": len(meshes), "skin": skin})
        roots += [first + 17, first + 18]
        vertices, normals, joints = _bones(places)
        weights = np.zeros((len(joints), 4), np.float32)
        weights[:, 0] = 1
        owners = np.zeros((len(joints), 4), np.uint8)
        owners[:, 0] = joints
        attributes = {
            "POSITION": buffer.add(vertices.astype(np.float32), bounds=True, target=34962),
            "NORMAL": buffer.add(normals.astype(np.float32), target=34962),
            "JOINTS_0": buffer.add(owners, target=34962),
            "WEIGHTS_0": buffer.add(weights, target=34962),
        }
        meshes.append({"name": name, "primitives": [{"attributes": attributes, "material": number}]})
        inverse = np.tile(np.eye(4, dtype=np.float32), (17, 1, 1))
        inverse[:, 3, :3] = -places  # column after column
        matrices = buffer.add(inverse.reshape(17, 16))
        skins.append({"joints": list(range(first, first + 17)), "skeleton": first, "inverseBindMatrices": matrices})
        colour = [*COLOURS[number % len(COLOURS)], 1.0]
        materials.append({"pbrMetallicRoughness": {"baseColorFactor": colour, "metallicFactor": 0.0}})
    scene = {
        "asset": {"version": "2.0", "generator": "posekernels"},
        "scene": 0,
        "scenes": [{"nodes": roots}],
        "nodes": nodes,
        "meshes": meshes,
        "skins": skins,
        "materials": materials,
        "animations": [{"name": "motion", "channels": channels, "samplers": samplers}],
        "buffers": [{"byteLength": len(buffer.content)}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    }
    return scene, buffer.content


def glb(lifted: Lifted) -> bytes:
    """``gltf`` as one binary file."""
    scene, binary = gltf(lifted)
    text = json.dumps(scene, separators=(",", ":")).encode()
    chunks = (b"JSON", text + b" " * (-len(text) % 4)), (b"BIN\0", binary)
    body = b"".join(len(part).to_bytes(4, "little") + kind + part for kind, part in chunks)
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(body)).to_bytes(4, "little") + body


def gltf_text(lifted: Lifted) -> str:
    """``gltf`` as one file of text, the binary part inside."""
    scene, binary = gltf(lifted)
    scene["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps(scene, separators=(",", ":")) + "\n"
