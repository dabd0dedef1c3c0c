"""People in images: YOLO-pose (Ultralytics' v8, 11 and later) through onnxruntime, with an ONNX file the user has.

One network finds everybody and their 17 joints (COCO). Both forms that its program exports are read: the raw one, whose
boxes still overlap, and the one exported with ``nms=True``. Needs the extra ``onnx``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from posekernels.archive import DataError

from .detect import FOUND, Detector, clothes, overlap
from .rtmpose import GREY, Network
from .tracking import Sighting

JOINTS = 17
SAME = 0.6  # overlap from which two boxes are of one person


class YoloPose(Detector):
    """One network for people and joints.

    Args:
        file: ONNX, one image [1, 3, height, width] in. people: at most so many, the surest.
    Raises:
        DataError: a file that is not such a network, saying what it is.
    """

    layout = "coco-17"

    def __init__(self, file: str | Path, people: int = 4):
        super().__init__(people)
        self.network = Network(file, "--yolo-pose")
        shapes = [o.shape for o in self.network(np.zeros((self.network.height, self.network.width, 3), np.float32))]
        raw, reduced = 5 + 3 * JOINTS, 6 + 3 * JOINTS
        if len(shapes) != 1 or len(shapes[0]) != 3 or (shapes[0][1] != raw and shapes[0][2] != reduced):
            raise DataError(f"{file}: expected [1, {raw}, N] or, of nms=True, [1, N, {reduced}] out, got {shapes}")
        self.reduced = shapes[0][2] == reduced

    def __call__(self, image: np.ndarray) -> list[Sighting]:
        self.frame += 1
        picture, height, width = Image.fromarray(image), self.network.height, self.network.width
        scale = min(width / picture.width, height / picture.height)
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
        left, top = (width - small.width) // 2, (height - small.height) // 2
        square = np.full((height, width, 3), GREY, np.float32)
        square[top : top + small.height, left : left + small.width] = np.asarray(small)
        found = self.network(square / 255)[0][0]
        if self.reduced:
            boxes, scores, joints = found[:, :4], found[:, 4], found[:, 6:]
        else:
            found = found.T
            half = found[:, 2:4] / 2
            boxes, scores, joints = (
                np.concatenate((found[:, :2] - half, found[:, :2] + half), 1),
                found[:, 4],
                found[:, 5:],
            )
        sure = scores > FOUND
        boxes, scores, joints = boxes[sure], scores[sure], joints[sure].reshape(-1, JOINTS, 3)
        order, people = np.argsort(-scores, kind="stable"), []
        while len(order) and len(people) < self.people:
            points = (joints[order[0], :, :2] - (left, top)) / scale
            seen = Sighting(points.astype(np.float32), joints[order[0], :, 2].clip(0, 1).astype(np.float32))
            seen.clothes = clothes(image, seen, self.layout)
            people.append(seen)
            order = order[1:][overlap(boxes[order[0]], boxes[order[1:]]) < SAME]
        return people
