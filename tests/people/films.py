"""Films to look at: people who walk, made by formula, so that they are the same everywhere."""

import base64
import json
import re

import numpy as np

from posekernels.people.player import Body, Film, camera_of
from posekernels.pose.skeleton import H36M_17

SIZE, FOCAL = (1280, 720), 1100.0


def walker(frames: int, fps: float, start, heading: float, speed: float = 1.2, phase: float = 0.0) -> np.ndarray:
    """[T, 17, 3] metres, z up: somebody who walks from ``start`` towards ``heading``, radians about z."""
    t = np.arange(frames) / fps
    swing, pose = np.sin(2 * np.pi * 0.9 * t + phase), np.zeros((frames, 17, 3))
    forward, left = np.array((np.cos(heading), np.sin(heading), 0)), np.array((-np.sin(heading), np.cos(heading), 0))

    def put(joint: int, ahead, aside: float, height) -> None:
        pose[:, joint] = np.multiply.outer(ahead, forward) + aside * left
        pose[:, joint, 2] = height

    bob = 0.92 + 0.02 * np.cos(4 * np.pi * 0.9 * t + 2 * phase)
    put(0, 0 * t, 0, bob)
    for joint, height in ((7, 0.24), (8, 0.49), (9, 0.58), (10, 0.70)):
        put(joint, 0.02 + 0.05 * height + 0 * t + (0.08 if joint == 9 else 0), 0, bob + height)
    for first, side, sign in ((4, 1, 1), (1, -1, -1)):  # legs
        leg = sign * swing
        put(first, 0 * t, 0.11 * side, bob)
        put(first + 1, 0.22 * leg + 0.06, 0.11 * side, bob - 0.43)
        put(
            first + 2,
            0.34 * leg - 0.12 * np.maximum(0, -np.cos(2 * np.pi * 0.9 * t + phase) * sign),
            0.11 * side,
            0.09 + 0.1 * np.maximum(0, np.cos(2 * np.pi * 0.9 * t + phase) * sign),
        )
    for first, side, sign in ((11, 1, -1), (14, -1, 1)):  # arms
        arm = sign * swing
        put(first, 0.02 + 0 * t, 0.18 * side, bob + 0.46)
        put(first + 1, 0.16 * arm, 0.22 * side, bob + 0.18)
        put(first + 2, 0.34 * arm + 0.08, 0.20 * side, bob - 0.02 + 0.08 * arm)
    return pose + np.asarray((*start, 0)) + np.multiply.outer(speed * t, forward)[:, None]


def seen(world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [T, 17, 2] of a level camera at (0, -6.5, 1.6) that looks along y, and the poses in its axes."""
    d = world - np.array((0, -6.5, 1.6))
    camera = np.stack((d[..., 0], -d[..., 2], d[..., 1]), -1)
    pixels = camera[..., :2] / camera[..., 2:] * FOCAL + np.array(SIZE) / 2
    return pixels, camera - camera[:, :1]


def body(number: int, world: np.ndarray, gone: slice | None = None) -> Body:
    """A person of a film, away in the frames ``gone``."""
    if gone is not None:
        world[gone] = np.nan
    pixels, poses = seen(world)
    return Body(f"Person {number}", world, pixels, camera=camera_of(poses, world, pixels, SIZE))


def film(people: int, frames: int = 120, fps: float = 30.0, **more) -> Film:
    """``people`` who walk to and fro; every third leaves and comes back."""
    bodies = []
    for i in range(people):
        row, place = divmod(i, 4)
        start = ((place - min(people - 1, 3) / 2) * 1.1 + 0.4 * row, row * 1.5 + 0.5 * (place % 2))
        world = walker(frames, fps, start, (0.3, 2.6, -0.9, 3.5)[place], 0.5, 1.7 * i)
        bodies.append(body(i + 1, world, slice(frames // 2, 3 * frames // 4) if i % 3 == 2 else None))
    return Film(f"{people} walking", fps, H36M_17, bodies, SIZE, **more)


def film_in(page) -> dict:
    """The data of a page."""
    return json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', page.read_text())[1])


def numbers(track: dict, frames: int) -> np.ndarray:
    """[T, width] of a track; NaN where it has none."""
    whole = np.frombuffer(base64.b64decode(track["data"]), "<i2").astype(float).reshape(track["frames"], track["width"])
    found = np.full((frames, track["width"]), np.nan)
    part = np.where(whole == -32768, np.nan, whole * track["scale"])
    found[track["start"] :][: track["frames"]] = part + np.tile(track["offset"], track["width"] // len(track["offset"]))
    return found
