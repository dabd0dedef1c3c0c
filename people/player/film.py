"""Arrays to a page: positions as millimetres in int16, everything else as JSON, all in one HTML file."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from posekernels.files import write_aside
from posekernels.pose.skeleton import H36M_17, Skeleton

from ..world import Lifted

SCRIPTS = (  # one scope, in this order
    *("data.js", "figures.js", "scene.js", "charts.js", "state.js"),
    *("clock.js", "views.js", "drawing.js", "saving.js", "hands.js", "start.js"),
)
ABSENT = -32768  # what NaN is written as
TORSO = 0.49  # metres from pelvis to thorax of the person whose limbs ``solids`` describes

LIMBS = {  # thickness in metres at the near and the far end, by the name of the far joint without its side
    "hip": (0.075, 0.085),
    "knee": (0.078, 0.054),
    "ankle": (0.054, 0.036),
    "spine": (0.100, 0.094),
    "thorax": (0.094, 0.085),
    "shoulder": (0.070, 0.054),
    "elbow": (0.050, 0.040),
    "wrist": (0.040, 0.028),
}
OTHER_LIMB = (0.040, 0.034)
BALLS = {"knee": 0.063, "ankle": 0.049, "shoulder": 0.064, "elbow": 0.051, "wrist": 0.044}
HEAD = (  # (from, to, radii, shares of the way between them): a neck, a head, a nose that shows where it looks
    ("thorax", "head", 0.050, 0.046, 0.0, 0.5),
    ("thorax", "head", 0.088, 0.096, 0.52, 0.66),
    ("thorax", "nose", 0.030, 0.030, 1.0, 1.0),
)
TRUNK = (  # what fills a trunk that bones alone leave open
    ("left_shoulder", "spine", 0.055, 0.075),
    ("right_shoulder", "spine", 0.055, 0.075),
    ("left_hip", "right_hip", 0.085, 0.085),
)
ANGLES = {  # at the middle joint; 180 degrees is straight
    "Knee": ("hip", "knee", "ankle"),
    "Hip": ("shoulder", "hip", "knee"),
    "Elbow": ("shoulder", "elbow", "wrist"),
    "Shoulder": ("hip", "shoulder", "elbow"),
}
SPEEDS = {"Body": ("pelvis", "pelvis"), "Hands": ("left_wrist", "right_wrist"), "Feet": ("left_ankle", "right_ankle")}


@dataclass(frozen=True)
class Camera:
    """Where a video was filmed from.

    Args:
        position: [3] metres in the world. turn: [3, 3], camera axes (x right, y down, z away) to the world's.
        focal: pixels.
    """

    position: np.ndarray
    turn: np.ndarray
    focal: float


@dataclass
class Body:
    """One person of a film over all its frames.

    Args:
        name: shown.
        world: [T, J, 3] metres, z up; NaN where the person, or a joint, is not there.
        pixels: [T, J, 2] in the image of the video; None without.
        hypotheses: [T, S, J, 3] other poses that fit as well, drawn as a cloud; None without.
        pale: drawn faintly, as what others are compared with.
        camera: that sees ``world`` as ``pixels``; None where it is unknown. Each body has its own, since each may have
            been put on the floor by itself.
    """

    name: str
    world: np.ndarray
    pixels: np.ndarray | None = None
    hypotheses: np.ndarray | None = None
    pale: bool = False
    camera: Camera | None = None


@dataclass
class Film:
    """What a page shows.

    Args:
        title: shown, and the name of what the page saves.
        fps: frames per second. skeleton: of every body.
        bodies: at least one; all of the same number of frames.
        size: (width, height) of the image that ``pixels`` are in.
        video: file to play beside the people; None without.
        times: [T] seconds in the video of each frame; None for frame / fps.
        now: number of frames that were seen; the others are forecast. None where all are.
        azimuth: degrees about z from which the film is first seen.
        files: other forms of the same people, which the page links to.
        picture: [H, W, 3] uint8, shown where a video would be; None without.

    Raises:
        ValueError: no body, no frame, or shapes that do not fit each other.
    """

    title: str
    fps: float
    skeleton: Skeleton
    bodies: Sequence[Body]
    size: tuple[int, int] | None = None
    video: Path | None = None
    times: Sequence[float] | None = None
    now: int | None = None
    azimuth: float = -90.0
    files: Sequence[Path] = field(default_factory=list)
    picture: np.ndarray | None = None

    def __post_init__(self):
        if not self.fps > 0 or not math.isfinite(self.fps):
            raise ValueError(f"{self.title}: frames per second must be positive, got {self.fps}")
        if not self.bodies:
            raise ValueError(f"{self.title}: a film needs at least one body, got none")
        joints = self.skeleton.num_joints
        frames = len(self.bodies[0].world)
        for body in self.bodies:
            if np.shape(body.world) != (frames, joints, 3) or not frames:
                wanted = f"[{frames or 'T >= 1'}, {joints}, 3]"
                raise ValueError(f"{body.name}: world must be {wanted}, got {list(np.shape(body.world))}")
            if body.pixels is not None and np.shape(body.pixels) != (frames, joints, 2):
                raise ValueError(
                    f"{body.name}: pixels must be {[frames, joints, 2]}, got {list(np.shape(body.pixels))}"
                )
            if body.hypotheses is not None and (
                np.ndim(body.hypotheses) != 4 or np.delete(np.shape(body.hypotheses), 1).tolist() != [frames, joints, 3]
            ):
                wanted = f"[{frames}, S, {joints}, 3]"
                raise ValueError(f"{body.name}: hypotheses must be {wanted}, got {list(np.shape(body.hypotheses))}")
        if self.times is not None and len(self.times) != frames:
            raise ValueError(f"{self.title}: {len(self.times)} times for {frames} frames")

    @property
    def frames(self) -> int:
        return len(self.bodies[0].world)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, for a notebook; what the page links to is left out, as it lies nowhere."""
        alone = html.escape(page(replace(self, video=None, files=()), Path("people.html")))
        return f'<iframe srcdoc="{alone}" title="{html.escape(self.title)}" width="100%" height="560"></iframe>'


# -- from lifted people ----------------------------------------------------------------------------------------------
def in_image(points: np.ndarray, size: tuple[int, int] | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Points [..., 2] and the size of their image; of an unknown image and unit, the box around them at 1200 pixels."""
    if size is not None or not np.isfinite(points).any():
        return points, size or (1200, 900)
    axes = tuple(range(points.ndim - 1))
    low, high = np.nanmin(points, axes), np.nanmax(points, axes)
    reach = max(float((high - low).max()), 1e-9)
    return (points - low) / reach * 1000 + 100, tuple(int(v) for v in (high - low) / reach * 1000 + 200)


def film_of(
    lifted: Lifted,
    video: Path | None = None,
    files: Sequence[Path] = (),
    start: int = 0,
    now: int | None = None,
    picture: np.ndarray | None = None,
) -> Film:
    """Lifted people as a film.

    Args:
        video: that they were found in. files: other forms of them. start: frame that the film begins with.
        now: frame from which on they are forecast; None where all are seen.
        picture: [H, W, 3] uint8 that they were found in, if it was no video.
    """
    points, size = in_image(np.stack(lifted.over("points", start)), lifted.size)
    bodies = []
    for person, pixels in zip(lifted.people, points):
        world, poses = (person.over(name, lifted.frames, start) for name in ("world", "poses"))
        camera = camera_of(poses, world, pixels, size) if lifted.size else None
        bodies.append(Body(f"Person {person.identity}", world, pixels if now is None else None, camera=camera))
    title = Path(lifted.source).name or "people"
    now = None if now is None else now - start
    return Film(title, lifted.fps, H36M_17, bodies, size, video, now=now, files=files, picture=picture)


# -- the body's shape ------------------------------------------------------------------------------------------------
def _sides(skeleton: Skeleton) -> dict[int, int]:
    """{joint: 1 for left, 2 for right}."""
    return dict.fromkeys(skeleton.left, 1) | dict.fromkeys(skeleton.right, 2)


def solids(skeleton: Skeleton) -> list[tuple[int, int, float, float, int, float, float]]:
    """The limbs of a layout, as tapered rods: (joint, joint, radius, radius, side, start, end).

    Radii in metres; side 0 trunk, 1 left, 2 right, 3 a ball at a joint; a rod goes from one share of the way between
    the two joints to another, mostly from 0 to 1.
    """
    sides, at = _sides(skeleton), {name: i for i, name in enumerate(skeleton.joints)}
    part = [re.sub(r"^(left|right)_", "", name) for name in skeleton.joints]
    if not {"hip", "knee", "thorax", "shoulder", "head"} <= set(part):
        return [(p, j, *OTHER_LIMB, sides.get(j, 0), 0.0, 1.0) for p, j in skeleton.bones]
    rods = []
    for parent, joint in skeleton.bones:
        if part[joint] not in ("nose", "head"):
            side = 0 if part[joint] in ("hip", "shoulder") else sides.get(joint, 0)
            rods.append((parent, joint, *LIMBS.get(part[joint], OTHER_LIMB), side, 0.0, 1.0))
    rods += [(at[a], at[b], near, far, 0, 0.0, 1.0) for a, b, near, far in TRUNK if a in at and b in at]
    rods += [(at[a], at[b], near, far, 0, start, end) for a, b, near, far, start, end in HEAD if a in at and b in at]
    return rods + [(j, j, BALLS[name], BALLS[name], 3, 0.0, 1.0) for j, name in enumerate(part) if name in BALLS]


def _angles(skeleton: Skeleton) -> list[dict]:
    at = {name: i for i, name in enumerate(skeleton.joints)}
    found = []
    for name, parts in ANGLES.items():
        left, right = ([at.get(f"{side}_{part}") for part in parts] for side in ("left", "right"))
        if None not in left + right:
            found.append({"name": name, "left": left, "right": right})
    return found


def _speeds(skeleton: Skeleton) -> list[dict]:
    at = {name: i for i, name in enumerate(skeleton.joints)}
    pairs = [(name, at.get(l), at.get(r)) for name, (l, r) in SPEEDS.items()]
    known = [{"name": name, "left": l, "right": r} for name, l, r in pairs if l is not None and r is not None]
    return known or [{"name": "Body", "left": skeleton.root, "right": skeleton.root}]


# -- the camera ------------------------------------------------------------------------------------------------------
def camera_of(
    poses: np.ndarray, world: np.ndarray, pixels: np.ndarray, size: tuple[int, int], most: int = 300
) -> Camera | None:
    """The camera that sees ``world`` as ``pixels``.

    Args:
        poses: [T, J, 3] in camera axes, relative to joint 0. world: [T, J, 3]. pixels: [T, J, 2]. NaN: absent.
        size: of the image. most: frames to look at.
    Returns:
        None where fewer than three frames are there, or none explains the pixels to within a tenth of the image.
    """
    there = np.flatnonzero(
        np.isfinite(poses).all((1, 2)) & np.isfinite(world).all((1, 2)) & np.isfinite(pixels).all((1, 2))
    )
    if len(there) < 3:
        return None
    some = there[np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).astype(int))]
    poses, world, pixels = (np.asarray(a[some], np.float64) for a in (poses, world, pixels))
    u, _, v = np.linalg.svd(np.einsum("tji,tjk->ik", world - world[:, :1], poses))  # Kabsch's rotation
    turn = u @ np.diag((1, 1, np.linalg.det(u @ v))) @ v
    points, middle = world.reshape(-1, 3), np.array(size) / 2
    best = None
    for focal in max(size) * np.geomspace(0.6, 3.6, 37):
        rays = np.concatenate(((pixels.reshape(-1, 2) - middle) / focal, np.ones((len(points), 1))), 1) @ turn.T
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        across = np.eye(3) - rays[:, :, None] * rays[:, None]  # distance from a ray
        position = np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, points), rcond=None)[0]
        seen = (points - position) @ turn
        if (seen[:, 2] <= 0.1).any():
            continue
        off = np.linalg.norm(seen[:, :2] / seen[:, 2:] * focal + middle - pixels.reshape(-1, 2), axis=1)
        if best is None or np.median(off) < best[0]:
            best = float(np.median(off)), Camera(position, turn, float(focal))
    return best[1] if best is not None and best[0] < 0.1 * max(size) else None


# -- numbers as text -------------------------------------------------------------------------------------------------
def _stretches(there: np.ndarray) -> list[list[int]]:
    """[first, one past the last] of every run of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, there, False].astype(np.int8)))
    return edges.reshape(-1, 2).tolist()


def _track(values: np.ndarray, step: float) -> dict | None:
    """[T, N, C] as int16 in base64, from the first frame with a number in it to the last; None where there is none.

    A number is ``offset[c] + scale * integer``; ``scale`` is ``step`` unless the range asks for more.
    """
    values = np.asarray(values, np.float64)
    values = np.where(np.isinf(values), np.nan, values)
    there = np.flatnonzero(np.isfinite(values).any((1, 2)))
    if not len(there):
        return None
    values = values[there[0] : there[-1] + 1]
    low, high = np.nanmin(values, (0, 1)), np.nanmax(values, (0, 1))
    offset, scale = (low + high) / 2, max(step, float((high - low).max()) / 65000)
    whole = np.round((values - offset) / scale)
    whole = np.where(np.isnan(whole), ABSENT, whole).astype("<i2")
    text = base64.b64encode(whole.tobytes()).decode("ascii")
    shape = {"start": int(there[0]), "frames": len(values), "width": int(np.prod(values.shape[1:]))}
    return {**shape, "offset": offset.tolist(), "scale": scale, "data": text}


def _body(body: Body, skeleton: Skeleton, size: tuple[int, int] | None) -> dict:
    world = np.asarray(body.world, np.float64)
    there = np.isfinite(world).all(2).any(1)
    reach, scale = 1.0, 1.0
    if there.any():
        root = world[there][:, skeleton.root]
        away = np.linalg.norm(world[there] - root[:, None], axis=2)
        reach = float(np.nanpercentile(away, 99)) or 1.0
        if {"pelvis", "thorax"} <= set(skeleton.joints):
            ends = [world[there][:, skeleton.joints.index(name)] for name in ("pelvis", "thorax")]
            torso = float(np.nanmedian(np.linalg.norm(ends[1] - ends[0], axis=1)))
            scale = min(2.0, max(0.3, torso / TORSO)) if math.isfinite(torso) else 1.0
    cloud = None
    if body.hypotheses is not None:
        T, S, J, _ = np.shape(body.hypotheses)
        cloud = _track(np.reshape(body.hypotheses, (T, S * J, 3)), 0.001)
    return {
        "name": body.name,
        "pale": body.pale,
        "present": _stretches(there),
        "reach": round(reach, 3),
        "scale": round(scale, 3),
        "world": _track(world, 0.001),
        "pixels": None if body.pixels is None else _track(body.pixels, 0.1),
        "cloud": cloud,
        "camera": _camera(body.camera, size) if body.camera is not None and size else None,
    }


def _link(file: Path, page: Path) -> str:
    """``file`` as a page at ``page`` calls it."""
    try:
        return quote(Path(os.path.relpath(file, page.parent)).as_posix())
    except ValueError:  # on another drive
        return file.resolve().as_uri()


def _jpeg(picture: np.ndarray) -> str:
    """[H, W, 3] as an address that holds the picture itself."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _camera(camera: Camera, size: tuple[int, int]) -> dict:
    return {
        "position": [round(float(v), 4) for v in camera.position],
        "forward": [round(float(v), 5) for v in camera.turn[:, 2]],
        "up": [round(float(-v), 5) for v in camera.turn[:, 1]],
        "across": size[0] / camera.focal,  # of the image at distance 1
        "down": size[1] / camera.focal,
    }


# -- the page --------------------------------------------------------------------------------------------------------
def page(film: Film, at: Path, embed: bool = False) -> str:
    """The text of the page that will lie at ``at``; ``embed`` puts the video inside.

    Raises:
        OSError: a video to embed that cannot be read.
    """
    sides, skeleton = _sides(film.skeleton), film.skeleton
    video, inside = None, ""
    if film.video is not None:
        video = {"name": film.video.name, "src": None if embed else _link(film.video, at)}
        inside = base64.b64encode(film.video.read_bytes()).decode("ascii") if embed else ""
    data = {
        "title": film.title,
        "fps": film.fps,
        "frames": film.frames,
        "times": None if film.times is None else [round(float(t), 5) for t in film.times],
        "now": film.now,
        "size": film.size,
        "azimuth": film.azimuth,
        "joints": [name.replace("_", " ") for name in skeleton.joints],
        "root": skeleton.root,
        "bones": [[p, j, sides.get(j, 0)] for p, j in skeleton.bones],
        "solids": solids(skeleton),
        "angles": _angles(skeleton),
        "speeds": _speeds(skeleton),
        "bodies": [_body(body, skeleton, film.size) for body in film.bodies],
        "video": video,
        "picture": None if film.picture is None else _jpeg(film.picture),
        "files": [{"name": f.name, "href": _link(f, at)} for f in film.files],
    }
    here = resources.files(__package__)

    def text(name: str) -> str:
        return here.joinpath(name).read_text(encoding="utf-8")

    parts = {
        "title": html.escape(film.title),
        "style": text("page.css"),
        "library": text("ogl.min.js"),
        "script": "\n".join(text(name) for name in SCRIPTS),
        "film": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),  # no </script> in it
        "video": inside,
    }
    # One pass, so that nothing in a title or in the data is taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], text("page.html"))


def write(path: str | Path, film: Film, embed: bool = False) -> Path:
    """Write the page; aside first, then renamed.

    Raises:
        OSError: ``path`` cannot be written, or the video cannot be read.
    """
    path = Path(path)
    content = page(film, path, embed)
    with write_aside(path) as aside:
        aside.write_text(content, encoding="utf-8")
    return path
