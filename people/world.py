"""Lifted people standing in one world, z up: where they are, which way is up, where the floor is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from posekernels.pose.smoothing import savitzky_golay

from .lifter import Person, focal_of, stretches


def root_path(person: Person, size: tuple[int, int], focal: float) -> np.ndarray:
    """[T, 3] metres, camera axes: where the root must be for the pose to project onto the keypoints.

    Least squares over the joints, weighted by their scores: f (X + x) = u (Z + z) and the same with y.
    """
    ray = (person.points - np.array(size) / 2) / focal  # [T, 17, 2]
    weight = np.sqrt(np.maximum(person.scores, 0.05))[..., None]
    zero = np.zeros_like(ray[..., 0])
    rows_x = np.stack((zero + 1, zero, -ray[..., 0]), -1) * weight
    rows_y = np.stack((zero, zero + 1, -ray[..., 1]), -1) * weight
    right = (ray * person.poses[..., 2:] - person.poses[..., :2]) * weight
    matrix, right = np.concatenate((rows_x, rows_y), 1), np.concatenate((right[..., 0], right[..., 1]), 1)
    present = person.present
    path = np.full((len(ray), 3), np.nan)
    normal = np.einsum("tni,tnj->tij", matrix[present], matrix[present]) + 1e-9 * np.eye(3)
    path[present] = np.linalg.solve(normal, np.einsum("tni,tn->ti", matrix[present], right[present])[..., None])[..., 0]
    path[..., 2] = np.maximum(path[..., 2], 0.5)  # in front of the camera, whatever the fit says
    return path


def upright(people: list[Person]) -> np.ndarray:
    """[3, 3] rotation from camera axes to z-up axes, so that people stand upright on average and face as filmed.

    Up is the median direction from ankles to neck, which gravity decides for whoever walks or stands.
    """
    poses = np.concatenate([p.poses[p.present] for p in people])
    spine = poses[:, 8] - (poses[:, 3] + poses[:, 6]) / 2
    up = np.median(spine / np.maximum(np.linalg.norm(spine, axis=-1, keepdims=True), 1e-9), axis=0)
    if up[1] > -0.5:  # lying or upside down on average: no telling; a level camera then
        up = np.array([0.0, -1, 0])
    up /= np.linalg.norm(up)
    away = np.array([0.0, 0, 1]) - up[2] * up
    away /= np.linalg.norm(away)
    return np.stack((np.cross(away, up), away, up))


def stand(
    people: list[Person],
    size: tuple[int, int] | None,
    focal: float | None = None,
    *,
    ground: str = "clip",
    tilt: str | float = "auto",
    smooth: int = 1,
) -> None:
    """Give every person ``world``, metres, z up, floor at 0, everybody in the same world; and ``off``.

    Args:
        ground: "clip" puts the lowest points of each person's whole path on the floor, "frame" those of every frame,
            "none" keeps heights relative to the camera.
        tilt: of the camera, degrees downwards; "auto" decides by the people (``upright``).
        smooth: frames of the Savitzky-Golay window over the path, which is rougher than the pose.
    """
    if tilt == "auto":
        turn = upright(people)
    else:
        a = np.radians(float(tilt))
        turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])
    reach = focal_of(size, focal)
    for person in people:
        path, person.off = np.zeros((len(person.poses), 3)), None
        if size is not None and reach is not None:
            path = root_path(person, size, reach)
            for part in stretches(person.present, 0):
                path[part] = savitzky_golay(path[part], smooth, 1)
            placed = person.poses + path[:, None]
            projected = placed[..., :2] / placed[..., 2:] * reach + np.array(size) / 2
            off = np.linalg.norm(projected - person.points, axis=-1)[(person.scores > 0) & person.present[:, None]]
            person.off = float(np.median(off)) if len(off) else None
        world = (person.poses + path[:, None]) @ turn.T
        if ground != "none":
            lowest = world[..., 2].min(-1)
            floor = lowest if ground == "frame" else np.nanpercentile(lowest, 10)
            world[..., 2] -= np.reshape(floor, (-1, 1))
        person.world = world.astype(np.float32)


@dataclass
class Lifted:
    """All that a run of ``posekernels lift`` found out, as files hold it."""

    people: list[Person]
    fps: float
    size: tuple[int, int] | None
    source: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.people[0].poses)
