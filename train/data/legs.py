"""Legs of motion capture as straight as people's: where a capture has its knees depends on markers and models."""

from __future__ import annotations

import numpy as np
import torch

from posekernels.pose.angles import LEGS, knee_angles

STRAIGHT = 5.0  # degrees of bend that a straight knee shows: of a man who stands, triangulated from OpenPose's joints
SHARE = 0.03  # of a performer's frames have a straight knee, whatever is performed
MOST = 18.0  # degrees: knees are straightened by no more
KNOWN = 1500  # frames: of whom there are fewer, less is known
STEADY = 25  # frames over which a knee's axis is averaged: a straight leg does not show it


def straight_legs(recordings: list[np.ndarray]) -> list[np.ndarray]:
    """One performer's recordings [T, 17, 3] metres, 50 per second, with legs that come to be straight.

    Many performers' knees are never straighter than 165 degrees, often one less than the other, though everybody's are
    straight at each step. What is missing is taken off the bend in all frames, half of it by turning the thigh and half
    by turning the shin, about the knee's axis. Bones keep their lengths, and hips their place.
    """
    found = [recording.astype(np.float32) for recording in recordings]
    bends = 180 - np.concatenate([knee_angles(points) for points in found])
    for (hip, knee, ankle), bent in zip(LEGS, bends.T):
        bones = [(points[:, knee] - points[:, hip], points[:, ankle] - points[:, knee]) for points in found]
        most = MOST * min(1, len(bent) / KNOWN)
        half = np.radians(np.clip(np.quantile(bent, SHARE) - STRAIGHT, 0, most)) / 2
        for points, (thigh, shin) in zip(found, bones):
            axis = _knee_axis(thigh, shin, points[:, 1] - points[:, 4])
            points[:, knee] = points[:, hip] + _turned(thigh, axis, -half)
            points[:, ankle] = points[:, knee] + _turned(shin, axis, half)
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-6)


def _knee_axis(thigh: np.ndarray, shin: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[T, 3] unit vectors about which knees bend, across the leg; where it is straight all the time, to the right."""
    across = np.cross(_unit(shin), _unit(thigh)) + 0.05 * _unit(right)
    around = torch.from_numpy(np.ascontiguousarray(across.T))
    around = torch.nn.functional.avg_pool1d(around, STEADY, 1, STEADY // 2, count_include_pad=False).numpy().T
    along = _unit(thigh + shin)
    return _unit(around - (around * along).sum(-1, keepdims=True) * along)


def _turned(vectors: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """[T, 3] turned by radians about unit axes [T, 3] (Rodrigues)."""
    along = (vectors * axis).sum(-1, keepdims=True) * axis
    return along + np.cos(angle) * (vectors - along) + np.sin(angle) * np.cross(axis, vectors)
