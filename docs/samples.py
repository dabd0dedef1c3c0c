"""The files that these pages lift: ``python docs/samples.py FOLDER``.

Three seconds of a person who swings on a bar (CMU, train/data/STARTER_NOTICE.md), as other programs write keypoints.
The numbers are projections, not detections.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np

from posekernels.pose.camera import camera_to_world, denormalise_screen
from posekernels.pose.layouts import from_h36m
from posekernels.train.data.motion import load_starter

FPS, SIZE = 25, (1000, 1002)


CLIP = next(c for c in load_starter("gt", "Swing").test if c.action == "Swing")
EVERY = slice(0, 150, 2)  # three seconds at 25 frames per second


def pixels(layout: str) -> np.ndarray:
    """[75, J, 3]: x, y and a score."""
    points = from_h36m(denormalise_screen(CLIP.keypoints[EVERY], *SIZE), layout)
    return np.concatenate((points, np.full((*points.shape[:2], 1), 0.9)), -1).round(2)


def write(folder: Path) -> None:
    """All of them, into a folder that is there."""
    coco, body, blaze = pixels("coco-17"), pixels("body-25"), pixels("blazepose-33")
    flat = [frame.ravel().tolist() for frame in coco]
    xy, scores = coco[..., :2].tolist(), coco[..., 2].tolist()

    (folder / "openpose").mkdir(exist_ok=True)
    for t, frame in enumerate(body):
        people = [{"person_id": [-1], "pose_keypoints_2d": frame.ravel().tolist()}]
        _json(folder / f"openpose/swing_{t:012d}_keypoints.json", {"version": 1.3, "people": people})
    rows = [{"image_id": f"{t}.jpg", "category_id": 1, "keypoints": k, "score": 2.9} for t, k in enumerate(flat)]
    _json(folder / "alphapose.json", rows)
    frames = [
        {"frame_id": t + 1, "instances": [{"keypoints": p, "keypoint_scores": s}]}
        for t, (p, s) in enumerate(zip(xy, scores))
    ]
    _json(folder / "mmpose.json", {"meta_info": {"dataset_name": "coco"}, "instance_info": frames})
    unit = blaze / (*SIZE, 1)  # MediaPipe's are parts of the image's sides
    marks = [[{"x": x, "y": y, "z": 0.0, "visibility": v} for x, y, v in frame.round(4).tolist()] for frame in unit]
    _json(folder / "mediapipe.json", [{"frame": t, "landmarks": frame} for t, frame in enumerate(marks)])
    found = [
        [{"name": "person", "class": 0, "track_id": 1, "keypoints": dict(zip(("x", "y", "visible"), frame.T.tolist()))}]
        for frame in coco
    ]
    _json(folder / "ultralytics.json", [json.dumps(frame) for frame in found])
    images = [{"id": t, "file_name": f"{t}.jpg", "width": SIZE[0], "height": SIZE[1]} for t in range(len(flat))]
    people = [
        {"id": t, "image_id": t, "category_id": 1, "keypoints": k, "num_keypoints": 17} for t, k in enumerate(flat)
    ]
    _json(folder / "coco.json", {"images": images, "annotations": people})
    np.save(folder / "plain.npy", coco.astype(np.float32))
    metadata = {"layout_name": "coco", "num_joints": 17, "video_metadata": {"swing": {"w": SIZE[0], "h": SIZE[1]}}}
    positions = {"swing": {"custom": [coco[..., :2].astype(np.float32)]}}
    np.savez(folder / "videopose3d.npz", positions_2d=positions, metadata=metadata)
    joints = CLIP.positions[EVERY].copy()
    joints[:, 1:] += joints[:, :1]
    joints = camera_to_world(joints, CLIP.orientation, CLIP.translation)
    np.save(folder / "joints.npy", joints.astype(np.float32))  # metres, z up: for posekernels forecast --joints


def _json(path: Path, content) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
