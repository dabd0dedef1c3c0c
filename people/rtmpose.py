"""People in images: RTMPose (Jiang et al., 2023) or ViTPose (Xu et al., 2022) through onnxruntime, with ONNX files the
user has.

The files are those of the MMPose project: YOLOX as the person detector, exported with its non-maximum suppression, and
a pose network with 17 (COCO), 26 (Halpe) or 133 (COCO-WholeBody) joints: RTMPose, which answers with bins of x and of
y, or one that answers with heat maps, as ViTPose does. Needs the extra ``onnx``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from posekernels.archive import DataError
from posekernels.extras import needs

from .detect import FOUND, Finder, Region
from .tracking import Sighting

LAYOUTS = {17: "coco-17", 26: "halpe-26", 133: "coco-133"}  # by number of joints
MEAN, STD = np.array((123.675, 116.28, 103.53), np.float32), np.array((58.395, 57.12, 57.375), np.float32)
GREY = 114  # where the detector's square is not covered by the image
MARGIN = 1.25  # of a person's box
SURE = 0.3  # score from which a joint is part of the box of the next frame, and their mean is a person


class Network:
    """An ONNX file with one image in: ``outputs = network(image)``, [H, W, 3] float32 of the size in ``height, width``.

    Args:
        option: that names the file, for what is said when it cannot be used.
    Raises:
        DataError: no such file, not an ONNX file, another input than [1, 3, H, W].
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, option: str):
        if not Path(path).is_file():
            raise DataError(f"{option} {path}: no such file")
        runtime = needs("onnxruntime", "onnx", option)
        try:
            self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class of their own
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: onnxruntime cannot read it as a network ({reason})") from error
        given = self.session.get_inputs()[0]
        if len(given.shape) != 4 or given.shape[1] != 3 or not all(isinstance(n, int) for n in given.shape[2:]):
            raise DataError(f"{path}: expected one image [1, 3, height, width] in, got {given.shape}")
        self.name, (self.height, self.width) = given.name, given.shape[2:]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {self.name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])})


def peaks(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heat maps [J, h, w] to where they are highest, [J, 2] x and y between their cells, and how high, [J].

    A peak is taken for a Gaussian: of the logarithms of a cell and its two neighbours, the top of the parabola.
    """
    J, height, width = maps.shape
    at = maps.reshape(J, -1).argmax(-1)
    whole, joint = np.stack((at % width, at // width), -1), np.arange(J)
    logs = np.log(np.maximum(np.pad(maps, ((0, 0), (1, 1), (1, 1)), "edge"), 1e-6))
    points = whole.astype(np.float64)
    for axis, step in enumerate(((0, 1), (1, 0))):  # x, y
        before, here, after = (
            logs[joint, whole[:, 1] + 1 + k * step[0], whole[:, 0] + 1 + k * step[1]] for k in (-1, 0, 1)
        )
        curve = 2 * here - before - after
        points[:, axis] += np.clip(np.where(curve > 1e-6, (after - before) / np.maximum(2 * curve, 1e-6), 0), -0.5, 0.5)
    return points, maps[joint, whole[:, 1], whole[:, 0]]


class RTMPose(Finder):
    """A person detector and a pose network.

    Args:
        detector, pose: ONNX files. people, every: as for ``Finder``.
    Raises:
        DataError: a file that is not such a network, saying what it is.
    """

    def __init__(self, detector: str | Path, pose: str | Path, people: int = 4, every: int = 5):
        super().__init__(people, every)
        self.detector, self.pose = Network(detector, "--rtmpose"), Network(pose, "--rtmpose")
        shapes = [o.shape for o in self.detector(np.zeros((self.detector.height, self.detector.width, 3), np.float32))]
        if len(shapes) != 2 or len(shapes[0]) != 3 or shapes[0][2] != 5 or len(shapes[1]) != 2:
            raise DataError(
                f"{detector}: expected boxes [1, N, 5] and labels [1, N] out, a detector that was exported with its "
                f"non-maximum suppression; got {shapes}"
            )
        shapes = [o.shape for o in self.pose(np.zeros((self.pose.height, self.pose.width, 3), np.float32))]
        if [len(s) for s in shapes] not in ([3, 3], [4]) or shapes[0][1] not in LAYOUTS:
            raise DataError(
                f"{pose}: expected [1, 17, 26 or 133, bins] for x and for y out (RTMPose), or heat maps "
                f"[1, 17, 26 or 133, h, w] (ViTPose), got {shapes}"
            )
        self.layout = LAYOUTS[shapes[0][1]]

    def region(self, low: np.ndarray, high: np.ndarray) -> Region:
        """What the pose network looks at for a box: its height, in pixels, is the region's side."""
        width, height = (high - low).tolist()
        side = MARGIN * max(height, width * self.pose.height / self.pose.width)
        return Region(*((low + high) / 2).tolist(), side, 0.0)

    def find(self, image: Image.Image) -> list[Region]:
        height, width = self.detector.height, self.detector.width
        scale = min(width / image.width, height / image.height)
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        square = np.full((height, width, 3), GREY, np.float32)
        square[: small.height, : small.width] = np.asarray(small)[..., ::-1]  # blue first
        boxes, labels = self.detector(square)
        people = boxes[0][(labels[0] == 0) & (boxes[0][:, 4] > FOUND)]
        corners = people[np.argsort(-people[:, 4], kind="stable"), :4] / scale
        return [self.region(box[:2], box[2:]) for box in corners.astype(np.float64)]

    def follow(self, image: Image.Image, region: Region) -> tuple[Sighting, Region] | None:
        height, width = self.pose.height, self.pose.width
        found = [o[0] for o in self.pose((region.cut(image, height, width) - MEAN) / STD)]
        if len(found) == 2:
            x, y = found  # [J, bins] each
            pixels = np.stack((x.argmax(-1) * (width / x.shape[-1]), y.argmax(-1) * (height / y.shape[-1])), -1)
            scores = np.minimum(x.max(-1), y.max(-1))
        else:
            pixels, scores = peaks(found[0])
            pixels *= (np.array((width, height)) - 1) / (np.array(found[0].shape[:0:-1]) - 1)
        scores = scores.clip(0, 1).astype(np.float32)
        points = region.to_image((pixels - (width / 2, height / 2)) / height + 0.5)
        sure = points[scores > SURE]
        if scores.mean() < SURE or len(sure) < 2:
            return None
        return Sighting(points.astype(np.float32), scores), self.region(sure.min(0), sure.max(0))
