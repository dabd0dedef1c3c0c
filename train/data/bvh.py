"""Reading BVH: the text format of motion capture, a tree of joints with offsets and a table of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.archive import DataError


@dataclass(frozen=True)
class Bvh:
    """A motion, in the file's own units and axes (usually y up).

    Args:
        names: of the J joints; an end site is called after its parent with "_site" behind.
        parents: index of each joint's parent, -1 for the root. offsets: [J, 3] from the parent.
        channels: (joint, "Xposition" | ... | "Zrotation") of each column. frames: [T, columns], degrees for rotations.
        frame_time: seconds.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[int, str], ...]
    frames: np.ndarray
    frame_time: float

    def positions(self) -> np.ndarray:
        """[T, J, 3] joint positions. Rotations apply in the order of the channels: R = R_first R_second R_third."""
        T, J = len(self.frames), len(self.names)
        local = np.broadcast_to(np.eye(3), (T, J, 3, 3)).copy()
        offsets = np.broadcast_to(self.offsets, (T, J, 3)).copy()
        for column, (joint, kind) in enumerate(self.channels):
            axis = "XYZ".index(kind[0])
            if kind.endswith("rotation"):
                local[:, joint] = local[:, joint] @ turn_about(axis, np.radians(self.frames[:, column]))
            else:  # a position channel replaces the offset
                offsets[:, joint, axis] = self.frames[:, column]
        turns, places = np.empty_like(local), np.empty_like(offsets)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turns[:, joint], places[:, joint] = local[:, joint], offsets[:, joint]
            else:
                turns[:, joint] = turns[:, parent] @ local[:, joint]
                places[:, joint] = places[:, parent] + (turns[:, parent] @ offsets[:, joint, :, None])[..., 0]
        return places


def turn_about(axis: int, angle: np.ndarray) -> np.ndarray:
    """[T, 3, 3] rotations about a coordinate axis, column vectors."""
    matrix = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, a, a] = matrix[:, b, b] = np.cos(angle)
    matrix[:, b, a] = np.sin(angle)
    matrix[:, a, b] = -np.sin(angle)
    return matrix


def read_bvh(path: str | Path) -> Bvh:
    """Read a ``.bvh`` file.

    Raises:
        DataError: missing, or not of the format; says where.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return parse_bvh(path.read_text(errors="replace"), str(path))


def parse_bvh(text: str, path: str, cut: bool = False) -> Bvh:
    """A motion from the text of a ``.bvh`` file; ``path`` is for messages.

    Args:
        cut: take the whole frames of a file that ends early, or goes on after the last.
    """
    words = iter(text.replace("Frames:", "Frames: ").replace("Time:", "Time: ").split())
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[int, str]] = []
    stack: list[int] = []
    try:
        for word in words:
            if word in ("ROOT", "JOINT", "End"):
                name = next(words)
                parents.append(stack[-1] if stack else -1)
                names.append(f"{names[stack[-1]]}_site" if word == "End" else name)
            elif word == "{":
                stack.append(len(names) - 1)
            elif word == "}":
                stack.pop()
            elif word == "OFFSET":
                offsets.append([float(next(words)) for _ in range(3)])
            elif word == "CHANNELS":
                channels += [(stack[-1], next(words)) for _ in range(int(next(words)))]
            elif word == "MOTION":
                break
        _frames, count, _frame, _time, seconds = [next(words) for _ in range(5)]
        values = np.array(list(words), np.float64)
        if cut:
            values = values[: min(int(count), len(values) // len(channels)) * len(channels)]
            count = len(values) // len(channels)
        frames = values.reshape(int(count), len(channels))
        motion = Bvh(
            tuple(names),
            tuple(parents),
            np.array(offsets).reshape(len(names), 3),
            tuple(channels),
            frames,
            float(seconds),
        )
    except (StopIteration, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: not a BVH file ({error or 'it ends early'}); expected HIERARCHY, then MOTION with Frames, Frame "
            "Time and one number per channel and frame"
        ) from error
    wrong = [k for _, k in channels if k not in {a + b for a in "XYZ" for b in ("position", "rotation")}]
    if wrong or not names or motion.frame_time <= 0:
        raise DataError(f"{path}: not a BVH file (joints {len(names)}, channel {wrong[:1]}, time {motion.frame_time})")
    return motion
