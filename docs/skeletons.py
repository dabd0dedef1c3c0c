"""Draws docs/skeletons.png: every joint layout on one pose of the starter set. ``python -m docs.skeletons``.

The pose is Human3.6M's; joints that it lacks are placed by hand here, for the picture only (toes ahead of the ankles,
fingers beyond the wrists, eyes and ears around the nose), so that they can be told apart.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from posekernels.people import pictures
from posekernels.pose.layouts import LAYOUTS, from_h36m
from posekernels.pose.skeleton import H36M_17, skeleton
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import motions

PANEL, COLUMNS, TURN = 380, 4, math.radians(30)
AHEAD, ASIDE, UP = np.eye(3)  # axes of a person who looks along x with the left at +y
PLACES = {  # part of a joint's name -> metres ahead, aside (away from the middle) and up of where from_h36m puts it
    "big_toe": (0.16, 0, -0.06),
    "small_toe": (0.14, 0.07, -0.06),
    "toe_base": (0.13, 0, -0.06),
    "toe_site": (0.2, 0, -0.07),
    "foot_index": (0.16, 0, -0.06),
    "heel": (-0.06, 0, -0.06),
    "eye_inner": (0.0, 0.015, 0.05),
    "eye_outer": (-0.02, 0.055, 0.05),
    "eye": (0.0, 0.035, 0.05),
    "ear": (0, 0.08, 0),
    "mouth": (0, 0.03, -0.05),
    "pinky": (-0.03, 0, -0.09),
    "index": (0.03, 0, -0.1),
    "thumb": (0.06, 0, -0.05),
    "thumb_site": (0.08, 0, -0.07),
    "finger_base": (0, 0, -0.06),
    "hand_index1": (0, 0, -0.1),
    "index_site": (0, 0, -0.14),
    "wrist_end": (0, 0, -0.06),
    "wrist_site": (0, 0, -0.12),
    "head_site": (0, 0, 0.1),
    "collar": (0, 0.06, -0.02),
}
SMPL = {"left_foot": "toe_base", "right_foot": "toe_base", "left_hand": "finger_base", "right_hand": "finger_base"}


def pose() -> np.ndarray:
    """[17, 3] metres: somebody upright, arms away from the body, looking along x."""
    frames = np.concatenate(motions(load_starter().train))
    frames = frames - frames[:, :1]
    across = frames[:, 11] - frames[:, 14]
    yaw = np.arctan2(-across[:, 0], across[:, 1])
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.stack((np.stack((c, s), -1), np.stack((-s, c), -1)), 1)
    frames[..., :2] = np.einsum("tij,tnj->tni", turn, frames[..., :2])
    upright = np.abs(frames[:, 10, :2]).sum(-1) + np.abs(frames[:, [3, 6], 1] - frames[:, [1, 4], 1]).sum(-1)
    legs = np.abs(frames[:, [2, 3, 5, 6], 0]).sum(-1)
    arms = np.abs(frames[:, 13, 1] - 0.45) + np.abs(frames[:, 16, 1] + 0.45) + np.abs(frames[:, [13, 16], 2]).sum(-1)
    return frames[np.argmin(upright + legs + arms)]


def placed(name: str, person: np.ndarray) -> np.ndarray:
    """[J, 3] the layout ``name`` on a pose, every joint in a place of its own."""
    body = skeleton(name)
    points = from_h36m(person[None].astype(np.float64), name)[0]
    for joint, label in enumerate(body.joints):
        key = SMPL.get(label) if name == "smpl-24" else None
        key = key or max((k for k in PLACES if k in label), key=len, default=None)
        if key is not None and not (name == "smpl-24" and label == "head"):
            side = 1 if joint in body.left else -1 if joint in body.right else 0
            ahead, aside, up = PLACES[key]
            points[joint] += ahead * AHEAD + side * aside * ASIDE + up * UP
    return points


def main() -> None:
    person, names = pose(), [n for n in LAYOUTS if n not in ("h36m-17", "coco-133")]
    names.insert(0, "h36m-17")
    rows = -(-len(names) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PANEL, rows * PANEL), "white")
    font, small = ImageFont.load_default(15), ImageFont.load_default(10)
    view = np.array(((-math.sin(TURN), math.cos(TURN), 0), (0, 0, -1)))
    for i, name in enumerate(names):
        body, points = skeleton(name), placed(name, person)
        flat = points @ view.T * (-1, 1)  # seen from the front: the person's left is on the right
        scale = 0.86 * PANEL / np.ptp(flat[:, 1])
        corner = np.array((i % COLUMNS, i // COLUMNS)) * PANEL
        flat = (flat - (flat.max(0) + flat.min(0)) / 2) * (-scale, scale) + corner + PANEL / 2 + (0, 10)
        pen = ImageDraw.Draw(sheet)
        for parent, joint, colour in pictures.Panel(name, points[None], body).bones():
            pen.line((*flat[parent], *flat[joint]), fill=colour, width=3)
        for joint, (x, y) in enumerate(flat):
            pen.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=pictures.TEXT)
            pen.text((x + 4, y - 5), str(joint), fill="#555560", font=small)
        pen.text(tuple(corner + (10, 8)), name, fill=pictures.TEXT, font=font)
    out = Path(__file__).with_name("skeletons.png")
    sheet.quantize(32).save(out, optimize=True)
    print(f"wrote {out} ({H36M_17.name} and {len(names) - 1} others)")


if __name__ == "__main__":
    main()
