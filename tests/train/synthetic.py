"""A small made-up data set for lifting, learnable: a body that swings its limbs, seen by two cameras."""

from __future__ import annotations

import numpy as np

from posekernels.pose.camera import camera_to_world, h36m_cameras, project, world_to_camera
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.clips import Clip, LiftingData

BONES = {1: (0.13, 0, 0), 2: (0, 0, -0.44), 3: (0, 0, -0.45), 4: (-0.13, 0, 0), 5: (0, 0, -0.44), 6: (0, 0, -0.45)}
BONES |= {7: (0, 0, 0.24), 8: (0, 0, 0.25), 9: (0, -0.03, 0.1), 10: (0, 0, 0.1), 11: (-0.15, 0, 0), 12: (0, 0, -0.28)}
BONES |= {13: (0, 0, -0.25), 14: (0.15, 0, 0), 15: (0, 0, -0.28), 16: (0, 0, -0.25)}


def motion(frames: int, seed: int) -> np.ndarray:
    """[T, 17, 3] metres, world axes, feet near the floor."""
    random = np.random.default_rng(seed)
    time = np.arange(frames) / 50
    world = np.zeros((frames, 17, 3))
    world[:, 0] = np.stack((0.4 * np.sin(time), 0.3 * np.cos(time), 0.92 + 0.02 * np.sin(8 * time)), 1)
    turn = time + random.uniform(0, 6)
    for joint, parent in enumerate(H36M_17.parents):
        if parent < 0:
            continue
        bone = np.tile(np.array(BONES[joint], float), (frames, 1))
        if joint in (2, 3, 5, 6, 12, 13, 15, 16):
            side = 1 if joint in H36M_17.left else -1
            swing = 0.6 * side * np.sin(4 * time + random.uniform(0, 0.5)) + 0.2 * random.standard_normal()
            bone = np.stack((bone[:, 0], -np.sin(swing) * bone[:, 2], np.cos(swing) * bone[:, 2]), 1)
        x, y = bone[:, 0].copy(), bone[:, 1].copy()
        bone[:, 0], bone[:, 1] = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        world[:, joint] = world[:, parent] + bone
    return world.astype(np.float32)


def clips(subject: str, actions: dict[str, int], cameras=(0, 2)) -> list[Clip]:
    """One clip per action ({name: frames}) and camera."""
    found = []
    for seed, (action, frames) in enumerate(actions.items()):
        world = motion(frames, seed + len(subject) * 7 + int(subject[1:]))
        for index in cameras:
            camera = h36m_cameras(subject)[index]
            positions = world_to_camera(world, camera.orientation, camera.translation)
            keypoints = project(positions, camera.intrinsics)
            positions[:, 1:] -= positions[:, :1]
            found.append(
                Clip(
                    subject,
                    action,
                    index,
                    keypoints.astype(np.float32),
                    positions.astype(np.float32),
                    camera.intrinsics,
                    camera.orientation,
                    camera.translation,
                )
            )
    return found


def synthetic(frames: int = 30) -> LiftingData:
    """Training clips of S1, test clips of S9, unequal in length."""
    train = clips("S1", {"Walking": frames, "Walking 1": frames - 3, "Sitting": frames + 4})
    test = clips("S9", {"Walking": frames - 8, "Sitting 1": 7})
    return LiftingData("synthetic", H36M_17, H36M_17.left, H36M_17.right, train, test)


def world_of(clip: Clip) -> np.ndarray:
    """[T, 17, 3]: a clip's ground truth back in the world."""
    camera = clip.positions.copy()
    camera[:, 1:] += camera[:, :1]
    return camera_to_world(camera, clip.orientation, clip.translation)
