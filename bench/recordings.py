"""How a recording's cost grows with its length, the people in it at a time, and those who come and go.

Detections are made up and replayed: no image is looked at, and poses are one and the same, so that what is measured is
what keeps people apart, holds them and writes them: ``posekernels lift`` without its networks. So are keypoints in a
file, of one person. Each row is a process of its own: its processor seconds, and the most memory that it held
(``VmHWM``, PyTorch's own 200 to 300 MB included).
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from posekernels.people import detect
from posekernels.people.commands import lift
from posekernels.people.rows import cuts
from posekernels.people.tracking import Sighting
from posekernels.pose.layouts import from_h36m

FPS, SIZE = 30.0, (1920, 1080)
STAY = 9000  # frames that somebody stays: in two hours of ten people at a time, 240 come and go
POINTS = [  # frames, people at a time, what is read: the first ones are for CI, the last of a video is two hours
    *((900, 2, "video"), (1800, 2, "video"), (3600, 2, "video"), (1800, 10, "video"), (7200, 10, "video")),
    *((27000, 10, "video"), (54000, 10, "video"), (216000, 10, "video")),
    *((7200, 1, "keypoints"), (100000, 1, "keypoints"), (300000, 1, "keypoints"), (1000000, 1, "keypoints")),
]
BODY = np.array(  # somebody who stands, metres, x right, y down
    [
        *((0, 0), (-0.13, 0.02), (-0.14, 0.45), (-0.15, 0.88), (0.13, 0.02), (0.14, 0.45), (0.15, 0.88)),
        *((0, -0.25), (0, -0.5), (0.02, -0.6), (0, -0.72)),
        *((0.18, -0.46), (0.22, -0.18), (0.2, 0.06), (-0.18, -0.46), (-0.22, -0.18), (-0.2, 0.06)),
    ],
    np.float32,
)


class Still:
    """A lifter that gives everybody the same pose."""

    class net:
        sees, frames = "screen", 1

    pose = np.concatenate((BODY, np.zeros((17, 1), np.float32)), 1)

    def check_size(self, size) -> None: ...

    def pace(self, fps: float) -> tuple[int, int]:
        return 1, 1

    def __call__(self, points: np.ndarray, size, focal, fps) -> np.ndarray:
        return np.broadcast_to(self.pose, (len(points), 17, 3))


class Replay(detect.Finder):
    """People who walk to and fro in places of their own; in each place somebody new after ``STAY`` frames."""

    layout = "blazepose-33"

    def __init__(self, people: int, stay: int = STAY):
        super().__init__(people)
        self.stay, self.random = stay, np.random.default_rng(0)
        self.clothes = self.random.uniform(0, 1, (1 << 12, 2, 3)).astype(np.float32)
        self.scores = np.full(33, 0.9, np.float32)
        self.body = from_h36m(BODY[None], self.layout)[0].astype(np.float32)

    def find(self, image): ...

    def follow(self, image, region): ...

    def __call__(self, image: np.ndarray) -> list[Sighting]:
        t, found = self.frame, []
        self.frame += 1
        for place in range(self.people):
            visit, since = divmod(t + place * self.stay // self.people, self.stay)
            if since < 100:  # nobody for a while
                continue
            x = SIZE[0] * (place + 0.5) / self.people + 40 * np.sin(0.05 * since)
            points = self.body * (200 + 5 * place) + np.float32((x, 500 + 10 * np.sin(0.3 * since)))
            found.append(Sighting(points, self.scores, self.clothes[(place + visit * self.people) % len(self.clothes)]))
        return found


class Frames:
    """A video of which only the number of its images is known."""

    fps, size, live, files = FPS, SIZE, False, ()

    def __init__(self, count: int):
        self.source, self.count, self.notes = f"{count} frames", count, []

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(np.zeros((1, 1, 3), np.uint8), self.count)


@dataclass
class Row:
    """One recording: what is in it, and what it cost."""

    frames: int
    people: int
    identities: int
    seconds: float
    megabytes: float
    file_megabytes: float
    what: str = "video"

    @classmethod
    def of(cls, frames: int, people: int, identities: int, start: float, out: Path, what: str) -> Row:
        """What this process has cost so far, since ``start``."""
        seconds, status = time.process_time() - start, Path("/proc/self/status").read_text().split("VmHWM:")[1]
        costs = round(seconds, 2), round(int(status.split()[0]) / 1e3), round(out.stat().st_size / 1e6, 1)
        return cls(frames, people, identities, *costs, what)


def read(frames: int, folder: Path) -> Row:
    """Lift and write one person's keypoints, a file of [frames, 17, 3], in this process."""
    source, out = folder / "keypoints.npy", folder / "people.npz"
    with open(source, "wb") as file:
        head = {"descr": "<f4", "fortran_order": False, "shape": (frames, 17, 3)}
        np.lib.format.write_array_header_1_0(file, head)
        for rows in cuts(frames):
            t = np.arange(rows.start, rows.stop)[:, None, None]
            points = np.float32(200 * BODY + (960, 500) + 40 * np.sin(0.05 * t))
            file.write(np.concatenate((points, np.full_like(points[..., :1], 0.9)), -1).tobytes())
    arguments = [str(source), "-o", str(out), "--layout", "h36m-17", "--size", "1920x1080", "--smooth", "0"]
    options, start = lift.parser().parse_args(arguments), time.process_time()
    with redirect_stderr(StringIO()):
        lifted = lift.run(options, [out], out, lifter=Still())
    return Row.of(frames, 1, len(lifted.people), start, out, "keypoints")


def recorded(frames: int, people: int, folder: Path, stay: int = STAY) -> Row:
    """Replay, track, lift, place and write one recording in this process."""
    start, out = time.process_time(), folder / "people.npz"
    options = lift.parser().parse_args(["x.mp4", "-o", str(out), "--people", str(people), "--smooth", "0"])
    clock = lift.Clock()
    from tqdm import tqdm

    search = lift.Search(Frames(frames), lift.partial_of(out), Replay(people, stay), clock, tqdm(disable=True))
    search.open()
    for _ in search:
        pass
    with redirect_stderr(StringIO()):
        lifted = lift.finish([out], search.keypoints(), None, search.video, options, Still(), clock)
    search.close(keep=False)
    return Row.of(frames, people, len(lifted.people), start, out, "video")


def measured(frames: int, people: int, what: str) -> Row:
    """``recorded`` or ``read`` in a process of its own."""
    command = [sys.executable, "-m", "bench.recordings", str(frames), str(people), what]
    return Row(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def table(rows: list[Row]) -> str:
    lines = ["of             frames  people  identities  seconds  memory, MB  file, MB"]
    for r in rows:
        lines.append(
            f"{r.what:<13}{r.frames:>8}{r.people:>8}{r.identities:>12}{r.seconds:>9.1f}{r.megabytes:>12.0f}{r.file_megabytes:>10.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        count, together, came = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        found = recorded(count, together, Path(made)) if came == "video" else read(count, Path(made))
        print(json.dumps(vars(found)))
