"""Reading ASF/AMC: a skeleton of bones with directions and lengths (ASF), and the angles of its joints (AMC)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from posekernels.archive import DataError

from .bvh import turn_about

INCH = 0.0254
Turns = dict[str, np.ndarray]  # bone -> [T, values of its channels]


@dataclass(frozen=True)
class Bone:
    """One bone: unit ``direction`` and ``length`` in the rest pose, world axes; the axes ``turned`` [3, 3] that its
    rotations are about, and its ``channels`` ("rx", "ry", ...) in the order of a frame's numbers."""

    parent: str
    direction: np.ndarray
    length: float
    turned: np.ndarray
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Asf:
    """A skeleton in the file's own units and axes (usually y up).

    Args:
        unit: what the file calls "length": file units are inches times this. root: channels of the root ("TX", ...,
            "RZ"), the axes that it turns about [3, 3], and where it is [3]. bones: by name, parents first.
    """

    unit: float
    root: tuple[tuple[str, ...], np.ndarray, np.ndarray]
    bones: dict[str, Bone]

    def positions(self, frames: Turns) -> dict[str, np.ndarray]:
        """[T, 3] metres for the root and the end of every bone."""
        channels, axes, place = self.root
        values = dict(zip(channels, frames["root"].T, strict=True))
        turns = {"root": _about_axes(axes, [(k, values[k]) for k in channels if k[0] == "R"])}
        places = {"root": np.stack([values[f"T{axis}"] for axis in "XYZ"], -1) + place}
        for name, bone in self.bones.items():
            turns[name] = turns[bone.parent]
            if name in frames:
                angles = [(k, v) for k, v in zip(bone.channels, frames[name].T, strict=True) if k[0] == "r"]
                turns[name] = turns[name] @ _about_axes(bone.turned, angles)
            places[name] = places[bone.parent] + turns[name] @ (bone.direction * bone.length)
        return {name: at * (INCH / self.unit) for name, at in places.items()}


def _about_axes(axes: np.ndarray, angles: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """[T, 3, 3] rotations by degrees about an axis of ``axes`` each, the first one first."""
    turn = np.eye(3)
    for channel, degrees in angles:
        turn = turn_about("XYZ".index(channel[1].upper()), np.radians(degrees)) @ turn
    return axes @ turn @ axes.T


def _euler(order: str, degrees: list[str]) -> np.ndarray:
    """[3, 3] of "XYZ" and three angles, x first."""
    turn = np.eye(3)
    for axis, angle in zip(order.upper(), degrees, strict=True):
        turn = turn_about("XYZ".index(axis), np.radians([float(angle)]))[0] @ turn
    return turn


def parse_asf(text: str, name: str) -> Asf:
    """A skeleton from the text of an ``.asf`` file; ``name`` is for messages.

    Raises:
        DataError: not of the format; says what is missing.
    """

    def section(title: str) -> str:
        found = re.search(rf"^:{title}\b(.*?)(?=^:|\Z)", text, re.S | re.M)
        if not found:
            raise DataError(f"{name}: not an ASF file (no :{title})")
        return found[1]

    def field(part: str, key: str) -> list[str]:
        found = re.search(rf"^\s*{key}\s+(.+)", part, re.M)
        if not found:
            raise DataError(f"{name}: not an ASF file (no {key!r} where one is needed)")
        return found[1].split()

    try:
        hierarchy = [line.split() for line in section("hierarchy").strip().splitlines()]
        parents = {child: words[0] for words in hierarchy if words[0] not in ("begin", "end") for child in words[1:]}
        root = section("root")
        place = np.array([float(v) for v in field(root, "position")[:3]])
        axes = _euler(field(root, "axis")[0], field(root, "orientation")[:3])
        found = {}
        for part in re.findall(r"^\s*begin\b(.*?)^\s*end\b", section("bonedata"), re.S | re.M):
            direction, (*angles, order) = field(part, "direction"), field(part, "axis")[:4]
            channels = field(part, "dof") if re.search(r"^\s*dof\s", part, re.M) else ()
            bone = field(part, "name")[0]
            found[bone] = Bone(
                parents[bone],
                np.array([float(v) for v in direction[:3]]),
                float(field(part, "length")[0]),
                _euler(order, angles),
                tuple(channel.lower() for channel in channels),
            )
        order = tuple(channel.upper() for channel in field(root, "order"))
        unit = float(field(section("units"), "length")[0])
        return Asf(unit, (order, axes, place), {bone: found[bone] for bone in parents})
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{name}: not an ASF file ({type(error).__name__}: {error})") from error


def parse_amc(text: str, skeleton: Asf, name: str) -> Turns:
    """The frames of an ``.amc`` file: for the root and every bone that turns, [T, channels], degrees.

    Raises:
        DataError: not of the format, or of another skeleton.
    """
    width = {"root": len(skeleton.root[0])} | {b: len(bone.channels) for b, bone in skeleton.bones.items()}
    rows: dict[str, list[list[str]]] = {}
    count = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0][0] in "#:":
            continue
        if len(words) == 1 and words[0].isdigit():
            count += 1
        elif len(words) - 1 != width.get(words[0]):
            want = f"{width[words[0]]} numbers" if words[0] in width else "a bone of the skeleton"
            raise DataError(f"{name}, line {number}: expected {want}, got {line.strip()[:60]!r}")
        else:
            rows.setdefault(words[0], []).append(words[1:])
    uneven = [bone for bone, values in rows.items() if len(values) != count]
    if "root" not in rows or uneven:
        raise DataError(f"{name}: not an AMC file ({count} frames, not all with {uneven[0] if uneven else 'a root'})")
    try:
        return {bone: np.array(values, np.float64) for bone, values in rows.items()}
    except ValueError as error:
        raise DataError(f"{name}: not an AMC file ({error})") from error
