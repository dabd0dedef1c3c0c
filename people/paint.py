"""What ``posekernels.people.player`` draws in a browser, drawn with Pillow: rods on a floor, and skeletons on an image.

Coordinates are those of an image that is later reduced by ``SMOOTH``, which smooths every edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from posekernels.pose.skeleton import Skeleton

from .player import solids

SMOOTH = 2
LEFT, RIGHT = "#e5763b", "#2f83cf"  # as in player/figures.js
PEOPLE = ("#5b57d9", "#0e8a6d", "#b8327f", "#8a6a00", "#7a3fd0", "#08768f", "#c23b3b", "#4f7d0c", "#8a5a3c", "#56617a")
BACK, GRID, TEXT, RINGS, HAZE = "#f1f3f7", "#9aa4b8", "#1b2130", "#ffe8d6", "#e2e6ee"
DARK = "#05070b"
FIELD, LIFT = 34.0, 14.0  # degrees: of the view up and down, of the eye above the floor
RING = 0.085  # metres from ring to ring


@cache
def shaded(colour: str, towards: str, share: float) -> tuple[int, int, int]:
    a, b = ImageColor.getrgb(colour), ImageColor.getrgb(towards)
    return tuple(round(x + share * (y - x)) for x, y in zip(a, b))


@cache
def tints(person: int, pale: bool = False) -> tuple[str, str, str, str]:
    """Colours of somebody's trunk, left, right and joints."""
    trunk = PEOPLE[person % len(PEOPLE)]
    found = (trunk, LEFT, RIGHT, "#{:02x}{:02x}{:02x}".format(*shaded(trunk, "#f7f7fa", 0.78)))
    return tuple("#{:02x}{:02x}{:02x}".format(*shaded(c, HAZE, 0.82)) for c in found) if pale else found


@cache
def shades(colour: str) -> list[tuple[int, int, int]]:
    """An edge, a face and a gleam."""
    return [shaded(colour, "#000000", 0.34), shaded(colour, colour, 0), shaded(colour, "#ffffff", 0.28)]


@cache
def rods(skeleton: Skeleton) -> list[tuple[int, int, float, float, int, float, float, int]]:
    """``player.solids`` of every person of a ``pictures.crowd``, each with the person's number."""
    people = max(1, skeleton.parents.count(-1))
    J = skeleton.num_joints // people
    sides = [tuple(j for j in side if j < J) for side in (skeleton.left, skeleton.right)]
    one = Skeleton(skeleton.name, skeleton.joints[:J], skeleton.parents[:J], *sides)
    return [(a + i * J, b + i * J, *rest, i) for i in range(people) for a, b, *rest in solids(one)]


class Eye:
    """Where 3D is seen from: ``middle`` in the middle of the image, ``tall`` metres up and down at its distance."""

    def __init__(self, middle: Sequence[float], azimuth: float, tall: float, width: int, height: int):
        a, e = math.radians(azimuth), math.radians(LIFT)
        back = np.array((math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)))
        right = np.array((-math.sin(a), math.cos(a), 0))
        self.axes = np.stack((right, -np.cross(back, right), -back))  # right, down, away
        self.place = np.asarray(middle) + back * tall / 2 / math.tan(math.radians(FIELD / 2))
        self.zoom, self.middle = height / 2 / math.tan(math.radians(FIELD / 2)), np.array((width / 2, height / 2))

    def __call__(self, points) -> np.ndarray:
        """[..., 3] metres to [..., 4]: x, y, distance away, pixels of a metre there; NaN behind the eye."""
        seen = (np.asarray(points, np.float64) - self.place) @ self.axes.T
        away = np.where(seen[..., 2:] > 0.1, seen[..., 2:], np.nan)
        return np.concatenate((seen[..., :2] / away * self.zoom + self.middle, away, self.zoom / away), -1)


def floor(image: Image.Image, eye: Eye, middle: Sequence[float], reach: float) -> None:
    """Lines a metre apart, fainter with the distance."""
    draw, n = ImageDraw.Draw(image), 2 * math.ceil(reach / 2)
    at, along = np.arange(-n, n + 1), np.arange(-n, n + 1, 2)
    for axis in (0, 1):
        points = np.zeros((len(at), len(along), 3))
        points[..., axis], points[..., 1 - axis] = at[:, None] + round(middle[axis]), along + round(middle[1 - axis])
        off = np.linalg.norm((points[:, :-1] + points[:, 1:])[..., :2] / 2 - np.asarray(middle)[:2], axis=-1) / reach
        seen = eye(points)[..., :2]
        ends = np.concatenate((seen[:, :-1], seen[:, 1:]), -1)[off < 1]
        for line, far in zip(ends.tolist(), np.round(off[off < 1] ** 1.5, 1).tolist()):
            if not math.isnan(sum(line)):
                draw.line(line, fill=shaded(GRID, BACK, far), width=SMOOTH)


def rod(draw: ImageDraw.ImageDraw, p, q, near: float, far: float, fill) -> None:
    """A tapered line with round ends; a ball where both ends are one."""
    (x, y), (u, v) = p, q
    draw.ellipse((x - near, y - near, x + near, y + near), fill=fill)
    n = math.hypot(u - x, v - y)
    if n < 0.5:
        return
    a, b = (v - y) / n, (x - u) / n  # across
    corners = [(x + a * near, y + b * near), (u + a * far, v + b * far)]
    draw.polygon([*corners, (u - a * far, v - b * far), (x - a * near, y - b * near)], fill=fill)
    draw.ellipse((u - far, v - far, u + far, v + far), fill=fill)


def body_3d(
    image: Image.Image,
    pose: np.ndarray,
    skeleton: Skeleton,
    eye: Eye,
    faded: Sequence[int] = (),
    persons: Sequence[int] = (),
) -> None:
    """The rods of a pose [J, 3] and their shadows.

    Args:
        faded: joints that are pale, with the rods to them. persons: whose colours; 0, 1, ... by default.
    """
    listed = [r for r in rods(skeleton) if np.isfinite(pose[[r[0], r[1]]]).all()]
    if not listed:
        return
    first = np.array([pose[r[0]] + r[5] * (pose[r[1]] - pose[r[0]]) for r in listed])
    last = np.array([pose[r[0]] + r[6] * (pose[r[1]] - pose[r[0]]) for r in listed])
    shadows(image, first, last, listed, eye)
    draw, pale = ImageDraw.Draw(image), set(faded)
    p, q = eye(first), eye(last)
    for i in np.argsort(-(p[:, 2] + q[:, 2])):
        _, joint, near, far, side, _, _, person = listed[i]
        if not np.isfinite(p[i, 0] + q[i, 0]):
            continue
        colour = tints(persons[person] if persons else person, joint in pale)[side]
        (x, y, _, large), (u, v, _, small) = p[i].tolist(), q[i].tolist()
        r, s = near * large, far * small
        dark, plain, bright = shades(colour)
        rod(draw, (x, y), (u, v), r, s, dark)
        inner = (x - 0.16 * r, y - 0.16 * r), (u - 0.16 * s, v - 0.16 * s)  # the light comes from the upper left
        rod(draw, *inner, 0.78 * r, 0.78 * s, plain)
        if r > 4:
            rod(draw, (x - 0.38 * r, y - 0.38 * r), (u - 0.38 * s, v - 0.38 * s), 0.26 * r, 0.26 * s, bright)
        if side == 1:
            metres = float(np.linalg.norm(last[i] - first[i]))
            rings(draw, *map(np.array, inner), 0.78 * r, 0.78 * s, metres, joint in pale)


def rings(draw: ImageDraw.ImageDraw, p, q, near: float, far: float, metres: float, pale: bool) -> None:
    """The bands across left limbs."""
    along = q - p
    n = math.hypot(*along)
    if n < 2:
        return
    across = np.array((along[1], -along[0])) / n
    for at in np.arange(RING / 2, metres, RING) / metres:
        middle, r, half = p + at * along, near + at * (far - near), 0.011 / metres * along
        corners = (middle - half + across * r, middle + half + across * r, middle + half - across * r)
        draw.polygon([tuple(c) for c in (*corners, middle - half - across * r)], fill=HAZE if pale else RINGS)


def shadows(image: Image.Image, first: np.ndarray, last: np.ndarray, listed: list, eye: Eye) -> None:
    """Soft and dark where feet touch the floor, softer and paler below what is high."""
    small, share = (image.width // 4, image.height // 4), 0.25
    ground = np.array((1.0, 1.0, 0.0))
    p, q = eye(first * ground), eye(last * ground)
    for low, high, blur, dark in ((-9, 0.35, 0.010, 120), (0.35, 9, 0.030, 46)):
        mask, some = Image.new("L", small), False
        draw = ImageDraw.Draw(mask)
        for i, row in enumerate(listed):
            height = (first[i, 2] + last[i, 2]) / 2
            if row[4] != 3 and row[6] - row[5] == 1 and low <= height < high and np.isfinite(p[i, 0] + q[i, 0]):
                squash = 0.6 * share
                rod(
                    draw, p[i, :2] * share, q[i, :2] * share, row[2] * p[i, 3] * squash, row[3] * q[i, 3] * squash, dark
                )
                some = True
        if some:
            soft = mask.filter(ImageFilter.GaussianBlur(max(1.0, blur * image.height * share)))
            if (seen := soft.getbbox()) is None:  # out of the picture
                continue
            left, top, right, bottom = seen
            box = 4 * left, 4 * top, 4 * right, 4 * bottom
            soft = soft.crop((left, top, right, bottom)).resize(
                (box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR
            )
            image.paste("#3a4254", box, soft)


def body_2d(image: Image.Image, points: np.ndarray, skeleton: Skeleton | None, faded: Sequence[int] = ()) -> None:
    """Bones [J, 2] in pixels of the image, with a dark edge; dots alone where the layout has no bones."""
    draw, wide = ImageDraw.Draw(image), max(2.0, image.height / 150)
    there = np.isfinite(points).all(1)
    if skeleton is None:
        for x, y in points[there]:
            draw.ellipse((x - wide, y - wide, x + wide, y + wide), fill="#f4f4fb", outline="#000000")
        return
    bones = [(p, j) for p, j in skeleton.bones if there[p] and there[j]]
    for p, j in bones:
        rod(draw, points[p], points[j], 0.85 * wide, 0.85 * wide, "#101318")
    for p, j in bones:
        colour = "#ff9350" if j in skeleton.left else "#4aa3f0" if j in skeleton.right else "#f4f4fb"
        a, b = points[p], points[j]
        rod(draw, a, b, 0.5 * wide, 0.5 * wide, "#9aa0ab" if j in faded else colour)
        if j in skeleton.left:
            along = b - a
            n = math.hypot(*along)
            for at in np.arange(wide, n, 2.4 * wide) / max(n, 1e-9):
                x, y = a + at * along
                u, v = along / n * 0.3 * wide
                draw.line((x - u, y - v, x + u, y + v), fill="#fff1e6", width=round(wide))
