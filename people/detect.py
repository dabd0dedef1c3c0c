"""People in images: BlazePose through ai-edge-litert, with weights out of a pinned package of MediaPipe.

No download site is needed, only a package index, of Python or of npm (``fetch``). The networks are Google's,
Apache-2.0. Needs the extra ``video``.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from posekernels.extras import needs
from posekernels.limits import processors
from posekernels.pose.skeleton import skeleton

from .fetch import Pinned, Source
from .tracking import Sighting

_MODULES = "mediapipe/modules"
_LANDMARKS = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
NETWORKS = Pinned(
    what="the detector's weights",
    names=("pose_detection.tflite", "pose_landmark_full.tflite"),
    sources=(
        Source(
            requirement="mediapipe==0.10.21",
            package="mediapipe-0.10.21-cp312-cp312-manylinux_2_28_x86_64.whl",
            sha256="956eb1ebc275c629e61b085b2cab89c3a5b9e93bad1bb107348d98dafb5a4bb5",
            files={
                f"{_MODULES}/pose_detection/pose_detection.tflite": (
                    "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
                ),
                f"{_MODULES}/pose_landmark/pose_landmark_full.tflite": _LANDMARKS,
            },
            target=("--python-version", "312", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"),
        ),
        Source(  # pose_detection is another file here, and gives the same numbers to the bit
            requirement="@mediapipe/pose@0.5.1675469404",
            package="mediapipe-pose-0.5.1675469404.tgz",
            sha256="8bb349a7b3a3ba699df23be804ddd3b3eab810b50b15406894be257859388a84",
            files={
                "package/pose_solution_packed_assets.data": (
                    "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85"
                ),
                "package/pose_landmark_full.tflite": _LANDMARKS,
            },
        ),
    ),
    folder="blazepose",
    notice="pose_detection.tflite and pose_landmark_full.tflite are BlazePose, by Google LLC, from the Python package\n"
    "mediapipe 0.10.21 (PyPI) or the npm package @mediapipe/pose 0.5.1675469404, under the Apache License 2.0.\n",
    size="about 40 MB, 9 MB of it kept",
    variable="POSEKERNELS_BLAZEPOSE_WHEEL",
)
FOUND, FOLLOWED = 0.5, 0.5  # scores from which a detection, and a followed person, count
JOINTS = 33


# -- regions of interest ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Region:
    """A turned square in an image: centre and side in pixels, angle in radians (of its up against the image's)."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, centre: np.ndarray, top: np.ndarray) -> Region:
        """A square around a person from the middle of the hips and a point on the circle around the body (above)."""
        dx, dy = (top - centre).tolist()
        angle = math.pi / 2 - math.atan2(-dy, dx)
        return cls(float(centre[0]), float(centre[1]), 2.5 * math.hypot(dx, dy), angle)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """[N, 2] in the unit square to pixels of the image."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        return ((points - 0.5) * self.side) @ np.array([[c, s], [-s, c]]) + (self.x, self.y)

    def cut(self, image: Image.Image, height: int, width: int | None = None) -> np.ndarray:
        """[height, width, 3] uint8: what is in the square, or in ``width / height`` of its middle; black outside of the
        image."""
        width = height if width is None else width
        c, s = (f(self.angle) * self.side / height for f in (math.cos, math.sin))
        w, h = width / 2, height / 2
        matrix = (c, -s, self.x - c * w + s * h, s, c, self.y - s * w - c * h)
        return np.asarray(image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def squares(width: int, height: int) -> list[Region]:
    """Where to look for people: the whole image, then squares along its longer side that overlap by half or more.

    The detector sees a square of 224 pixels, in which people of a wide picture are small; in the parts they are larger.
    """
    long, short = max(width, height), min(width, height)
    found = [Region(width / 2, height / 2, long, 0.0)]
    if long > 1.2 * short:
        for at in np.linspace(short / 2, long - short / 2, 1 + math.ceil(2 * (long / short - 1))).tolist():
            found.append(Region(*((at, height / 2) if width > height else (width / 2, at)), short, 0.0))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off stderr what compiled libraries write there for information; all else is passed on afterwards."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nobody reads it
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            with open(2, "wb", closefd=False) as out:
                out.writelines(line for line in said if not line.startswith(b"INFO:"))


def anchors() -> np.ndarray:
    """[2254, 2] centres of the detector's boxes in the unit square: grids of 28, 14, 7 with 2, 2, 6 boxes a cell."""
    found = []
    for grid, boxes in ((28, 2), (14, 2), (7, 6)):
        centre = (np.arange(grid) + 0.5) / grid
        y, x = np.meshgrid(centre, centre, indexing="ij")
        found.append(np.repeat(np.stack((x.ravel(), y.ravel()), 1), boxes, 0))
    return np.concatenate(found)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[N] intersection over union of a box (x1, y1, x2, y2) with boxes [N, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.prod(np.maximum(high - low, 0), -1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], -1) - both
    return both / np.maximum(area, 1e-12)


def clothes(image: np.ndarray, sighting: Sighting, layout: str) -> np.ndarray:
    """[2, 3] medians of red, green, blue, 0 to 1, over the trunk and the thighs; NaN for what is out of the image.

    Args:
        image: [H, W, 3] uint8.
    """
    names, found = skeleton(layout).joints, np.full((2, 3), np.nan, np.float32)
    sides = [[names.index(f"{side}_{part}") for side in ("left", "right")] for part in ("shoulder", "hip", "knee")]
    shoulders, hips, knees = (sighting.points[pair] for pair in sides)
    across, along = np.meshgrid(np.linspace(0.25, 0.75, 5), np.linspace(0.15, 0.85, 8))
    trunk = _between(_between(shoulders[0], shoulders[1], across), _between(hips[0], hips[1], across), along)
    thighs = np.stack([_between(hip, knee, np.linspace(0.2, 0.8, 12)) for hip, knee in zip(hips, knees)])
    for part, points in enumerate((trunk, thighs)):
        points = points.reshape(-1, 2)
        x, y = np.round(points[np.isfinite(points).all(-1)]).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
        if inside.sum() >= 6:
            found[part] = np.median(image[y[inside], x[inside]], axis=0) / 255
    return found


def _between(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + share[..., None] * (b - a)


class Detector(ABC):
    """What ``lift`` asks of a detector: ``sightings = detector(image)``, images in the order of the video.

    A sighting has the joints of one person in pixels, how sure each is, and the box around them. All that a detector
    may know of the images before are their number, ``frame``, and ``regions``, where it follows somebody: a search that
    was cut short goes on from these.

    Args:
        people: at most so many.
    """

    layout: str  # of the joints it finds: a name of posekernels.pose.skeleton

    def __init__(self, people: int = 4):
        self.people = people
        self.regions: list[Region] = []
        self.frame = 0

    @abstractmethod
    def __call__(self, image: np.ndarray) -> list[Sighting]:
        """[H, W, 3] uint8 RGB to the people in it, pixels."""


class Finder(Detector):
    """A detector that searches for people now and then, and follows them in between.

    Args:
        people: at most so many. every: frames between searches for newcomers; in between people are only followed.
    """

    def __init__(self, people: int = 4, every: int = 5):
        super().__init__(people)
        self.every = every

    @abstractmethod
    def find(self, image: Image.Image) -> list[Region]:
        """Everybody in an image, the surest first; some may be there twice."""

    @abstractmethod
    def follow(self, image: Image.Image, region: Region) -> tuple[Sighting, Region] | None:
        """The person in a region, and where to look in the next frame; None if there is nobody."""

    def __call__(self, image: np.ndarray) -> list[Sighting]:
        picture = Image.fromarray(image)
        regions = list(self.regions)
        if len(regions) < self.people and (not regions or self.frame % self.every == 0):
            for new in self.find(picture):
                near = any(math.hypot(new.x - r.x, new.y - r.y) < 0.2 * max(new.side, r.side) for r in regions)
                if not near and len(regions) < self.people:
                    regions.append(new)
        self.frame += 1
        self.regions, sightings = [], []
        for region in regions:
            found = self.follow(picture, region)
            if found is None:
                continue
            seen, ahead = found
            same = (np.linalg.norm(seen.points - other.points, axis=-1).mean() < 0.1 * seen.size for other in sightings)
            if not any(same):  # two regions on one person: keep the older
                seen.clothes = clothes(image, seen, self.layout)
                sightings.append(seen)
                self.regions.append(ahead)
        return sightings


class BlazePose(Finder):
    """MediaPipe's detector and landmarks.

    Args:
        people, every: as for ``Finder``. threads: of the networks.
    Raises:
        DataError: ai-edge-litert is not installed, or the weights cannot be had.
    """

    layout = "blazepose-33"

    def __init__(self, people: int = 4, every: int = 5, threads: int | None = None):
        runtime = needs("ai_edge_litert.interpreter", "video", "finding people in images")
        super().__init__(people, every)
        files = NETWORKS.get()
        with quiet():
            self.detector, self.landmarker = (
                runtime.Interpreter(model_path=str(path), num_threads=threads or processors()) for path in files
            )
            for network in (self.detector, self.landmarker):
                network.allocate_tensors()
        self.anchors = anchors()

    @staticmethod
    def _run(network, image: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
        """Results by shape."""
        network.set_tensor(network.get_input_details()[0]["index"], image[None].astype(np.float32))
        network.invoke()
        return {tuple(o["shape"]): network.get_tensor(o["index"]) for o in network.get_output_details()}

    def find(self, image: Image.Image) -> list[Region]:
        return [region for square in squares(*image.size) for region in self._find_in(image, square)]

    def _find_in(self, image: Image.Image, square: Region) -> list[Region]:
        """Everybody in a part of an image, the surest first."""
        found = self._run(self.detector, square.cut(image, 224) / 127.5 - 1)
        raw, logit = found[(1, 2254, 12)][0], found[(1, 2254, 1)][0, :, 0]
        sure = logit > math.log(FOUND / (1 - FOUND))
        raw, score = raw[sure] / 224, logit[sure]
        points = raw.reshape(-1, 6, 2).copy()  # centre and size of the box, then four points
        centres = self.anchors[sure]
        points[:, 0] += centres
        points[:, 2:] += centres[:, None]
        boxes = np.concatenate((points[:, 0] - points[:, 1] / 2, points[:, 0] + points[:, 1] / 2), 1)
        order, regions = np.argsort(-score), []
        while len(order):
            same = overlap(boxes[order[0]], boxes[order]) > 0.3
            weight = 1 / (1 + np.exp(-score[order[same]]))
            middle, top = np.einsum("n,nkc->kc", weight / weight.sum(), points[order[same], 2:4])
            regions.append(Region.around(*square.to_image(np.stack((middle, top)))))
            order = order[~same]
        return regions

    def follow(self, image: Image.Image, region: Region) -> tuple[Sighting, Region] | None:
        found = self._run(self.landmarker, region.cut(image, 256) / np.float32(255))
        if found[(1, 1)].item() < FOLLOWED:
            return None
        marks = found[(1, 195)].reshape(39, 5)
        points = region.to_image(marks[:, :2] / 256)
        scores = 1 / (1 + np.exp(-np.clip(marks[:JOINTS, 3], -50, 50)))
        seen = Sighting(points[:JOINTS].astype(np.float32), scores.astype(np.float32))
        return seen, Region.around(points[33], points[34])
