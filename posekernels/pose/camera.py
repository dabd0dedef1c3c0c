"""Cameras: screen units, rotation by quaternions, world and camera space, projection; the published camera tables.

Camera space: x points right, y down, z away from the camera. World space: z points up. Metres. Every function takes
tensors or NumPy arrays and returns the kind it was given. Source: data_h36m conventions (VideoPose3D), sections 4, 5.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from ..arrays import accepts_poses
from ..checks import check_number, nearest


@accepts_poses
def normalise_screen(pixels: Tensor, width: int, height: int) -> Tensor:
    """Pixels to screen units: the width becomes [-1, 1], the aspect ratio is kept.

    Args:
        pixels: [..., C >= 2]: u, v, then channels (scores) that pass unchanged.
        width, height: of the image, pixels.
    Returns:
        [..., C]: u' = 2u/w - 1, v' = 2v/w - h/w. The height is divided by the *width*, so v' spans +-h/w.
    """
    _check_last("normalise_screen", "pixels", pixels, 2)
    _check_image("normalise_screen", width, height)
    return torch.cat(
        (pixels[..., :1] * 2 / width - 1, pixels[..., 1:2] * 2 / width - height / width, pixels[..., 2:]), -1
    )


@accepts_poses
def denormalise_screen(points: Tensor, width: int, height: int) -> Tensor:
    """The inverse of ``normalise_screen``: u = (u' + 1) w/2, v = (v' + h/w) w/2; further channels pass unchanged."""
    _check_last("denormalise_screen", "points", points, 2)
    _check_image("denormalise_screen", width, height)
    u, v = (points[..., :1] + 1) * width / 2, (points[..., 1:2] + height / width) * width / 2
    return torch.cat((u, v, points[..., 2:]), -1)


@accepts_poses
def rotate(vectors: Tensor, quaternion: Tensor) -> Tensor:
    """Rotate vectors [..., 3] by unit quaternions [..., 4] (w, x, y, z), which broadcast. Nothing is renormalised.

    Equal to v + 2 (w (q x v) + q x (q x v)), q the vector part.
    """
    _check_last("rotate", "vectors", vectors, 3, exact=True)
    _check_last("rotate", "quaternion", quaternion, 4, exact=True)
    w, q = quaternion[..., :1], quaternion[..., 1:]
    q, vectors = torch.broadcast_tensors(q, vectors)
    once = torch.linalg.cross(q, vectors)
    return vectors + 2 * (w * once + torch.linalg.cross(q, once))


@accepts_poses
def conjugate(quaternion: Tensor) -> Tensor:
    """The inverse of unit quaternions [..., 4] (w, x, y, z)."""
    _check_last("conjugate", "quaternion", quaternion, 4, exact=True)
    return torch.cat((quaternion[..., :1], -quaternion[..., 1:]), -1)


@accepts_poses
def world_to_camera(points: Tensor, orientation: Tensor, translation: Tensor) -> Tensor:
    """World to camera space, [..., 3] metres.

    Args:
        points: [..., 3] in the world.
        orientation: [..., 4] unit quaternion (w, x, y, z) from camera to world; broadcasts.
        translation: [..., 3] the camera's centre in the world; broadcasts.
    """
    return rotate(points - translation, conjugate(orientation))


@accepts_poses
def camera_to_world(points: Tensor, orientation: Tensor, translation: Tensor) -> Tensor:
    """Camera to world space, the inverse of ``world_to_camera``."""
    return rotate(points, orientation) + translation


def _pinhole(op: str, points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """(X/Z, Y/Z) clamped to [-1, 1], and the intrinsics with axes added so that they broadcast over poses."""
    _check_last(op, "points", points, 3, exact=True)
    _check_last(op, "intrinsics", intrinsics, 9, exact=True)
    if intrinsics.dim() > 1:  # one camera per leading index
        intrinsics = intrinsics.reshape(*intrinsics.shape[:-1], *(1,) * (points.dim() - intrinsics.dim()), 9)
    return (points[..., :2] / points[..., 2:]).clamp(-1, 1), intrinsics


@accepts_poses
def project(points: Tensor, intrinsics: Tensor) -> Tensor:
    """Camera space to the screen with lens distortion; differentiable.

    Args:
        points: [..., 3] in camera space. Z is not checked: points behind the camera give meaningless results.
        intrinsics: [9] or [B, 9] (one per leading index of ``points``): fx, fy, cx, cy, k1, k2, k3, p1, p2.
    Returns:
        [..., 2] screen units. Human3.6M's model; OpenCV's has other tangential terms in another order.
    """
    a, camera = _pinhole("project", points, intrinsics)
    focal, centre, radial_terms, tangential = camera.split((2, 2, 3, 2), -1)
    r2 = (a * a).sum(-1, keepdim=True)
    radial = 1 + (radial_terms * torch.cat((r2, r2**2, r2**3), -1)).sum(-1, keepdim=True)
    tangent = (tangential * a).sum(-1, keepdim=True)
    return focal * (a * (radial + tangent) + tangential * r2) + centre


@accepts_poses
def project_linear(points: Tensor, intrinsics: Tensor) -> Tensor:
    """``project`` without lens distortion: f a + c. The clamp to [-1, 1] is there too."""
    a, camera = _pinhole("project_linear", points, intrinsics)
    return camera[..., :2] * a + camera[..., 2:4]


@accepts_poses
def looking_at(points: Tensor, ray: Tensor) -> Tensor:
    """From the axes of a camera turned straight at a person to those of the camera that saw the person at ``ray``.

    Args:
        points: [..., J, 3]. ray: [..., 2] the direction (X/Z, Y/Z) the turned camera looks in; 0 changes nothing.
    Returns:
        [..., J, 3], rotated about the camera's centre by the smallest angle that brings the z axis to (ray, 1).
    """
    _check_last("looking_at", "points", points, 3, exact=True)
    _check_last("looking_at", "ray", ray, 2, exact=True)
    x, y = ray.unbind(-1)
    z = (x * x + y * y + 1).rsqrt()  # cosine of the angle
    half = ((1 + z) / 2).sqrt()
    quaternion = torch.stack((half, -y * z / (2 * half), x * z / (2 * half), torch.zeros_like(x)), -1)
    return rotate(points, quaternion[..., None, :])


def _check_image(op: str, width: float, height: float) -> None:
    for name, size in (("width", width), ("height", height)):
        if not check_number(op, name, size) > 0:
            raise ValueError(f"{op}: {name} must be pixels, more than 0, got {size}")


def _check_last(op: str, name: str, value, size: int, exact: bool = False) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor or numpy.ndarray, got {type(value).__qualname__}")
    if value.dim() < 1 or value.shape[-1] < size or (exact and value.shape[-1] != size):
        want = f"{size}" if exact else f"at least {size}"
        raise ValueError(f"{op}: the last axis of {name} must have {want} entries, got {list(value.shape)}")


@dataclass(frozen=True)
class Camera:
    """One camera of a published table, prepared for use.

    Args:
        id: its name in the data set; width, height: of its image, pixels; azimuth: degrees, for drawing.
        intrinsics: [9] float32 for ``project``; None where none are published (HumanEva).
        orientation: [4] float32 unit quaternion (w, x, y, z), camera to world; None where unknown (S2, S3, S4).
        translation: [3] float32, the camera's centre in the world, metres; None where unknown.
    """

    id: str
    width: int
    height: int
    azimuth: float
    intrinsics: np.ndarray | None
    orientation: np.ndarray | None
    translation: np.ndarray | None


@functools.cache
def _table(file: str) -> dict:
    return json.loads(resources.files(__package__).joinpath(file).read_text())


def _prepare(entry: dict, pose: dict | None) -> Camera:
    """Published constants to metres and screen units, rounded to float32 at the very steps where the original is."""
    f32 = np.float32
    intrinsics = None
    if "focal_length" in entry:
        w, h = entry["res_w"], entry["res_h"]
        focal = np.array(entry["focal_length"], f32) / f32(w) * f32(2)  # both components by the width
        centre = np.array(entry["center"], f32) / f32(w) * f32(2)
        centre = (centre.astype(np.float64) - (1, h / w)).astype(f32)  # the shift in float64
        distortion = np.array(entry["radial_distortion"] + entry["tangential_distortion"], f32)
        intrinsics = np.concatenate((focal, centre, distortion))
    return Camera(
        entry["id"],
        entry["res_w"],
        entry["res_h"],
        entry["azimuth"],
        intrinsics,
        None if pose is None else np.array(pose["orientation"], f32),
        None if pose is None else np.array(pose["translation"], f32) / f32(1000),
    )


def h36m_cameras(subject: str) -> tuple[Camera, ...]:
    """The four cameras of a Human3.6M subject, in the order of the published keypoint files.

    S2, S3 and S4 have no published poses: their cameras come without orientation and translation.

    Raises:
        ValueError: an unknown subject; the nearest one is told.
    """
    table = _table("h36m_cameras.json")
    known = (*table["extrinsics"], *table["subjects_without_extrinsics"])
    if subject not in known:
        raise ValueError(f"no Human3.6M subject {subject!r}{nearest(subject, known)} (subjects: {', '.join(known)})")
    poses = table["extrinsics"].get(subject, [None] * len(table["intrinsics"]))
    return tuple(_prepare(entry, pose) for entry, pose in zip(table["intrinsics"], poses))


def humaneva_cameras(subject: str) -> tuple[Camera, ...]:
    """The three cameras C1, C2, C3 of a HumanEva-I subject; no intrinsics are published.

    Args:
        subject: "S1" to "S4", or a key of the published files ("Train/S1", "Unlabeled/S4"). S4 has no poses.
    Raises:
        ValueError: an unknown subject; the nearest one is told.
    """
    table = _table("humaneva_cameras.json")
    name, known = subject.rpartition("/")[2], (*table["extrinsics"], "S4")
    if name not in known:
        raise ValueError(f"no HumanEva subject {subject!r}{nearest(name, known)} (subjects: {', '.join(known)})")
    poses = table["extrinsics"].get(name, [None] * len(table["cameras"]))
    return tuple(_prepare(entry, pose) for entry, pose in zip(table["cameras"], poses))
