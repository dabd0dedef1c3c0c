"""Small files of the published forms, for tests."""

import numpy as np

from posekernels.archive import write_npz
from posekernels.pose.camera import denormalise_screen, h36m_cameras, project, world_to_camera
from posekernels.pose.skeleton import H36M_17, H36M_17_OF_32

ACTIONS = {"Walking": 9, "Walking 1": 7, "Sitting": 6, "SittingDown 1": 5}


def motion(frames: int, joints: int = 32, seed: int = 0) -> np.ndarray:
    """Something the size of a person, that moves; world metres, z up."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform((-0.4, -0.4, 0), (0.4, 0.4, 1.7), (joints, 3))
    return (rest + rng.normal(0, 0.03, (frames, joints, 3)).cumsum(0)).astype(np.float32)


def tables(subjects=("S1", "S5", "S9", "S11"), actions=None):
    """(positions_3d, positions_2d, metadata), ground-truth keypoints in pixels."""
    positions, keypoints = {}, {}
    for s, subject in enumerate(subjects):
        positions[subject], keypoints[subject] = {}, {}
        for a, (action, frames) in enumerate((actions or ACTIONS).items()):
            world = motion(frames, seed=10 * s + a)
            positions[subject][action] = world
            keypoints[subject][action] = []
            for camera in h36m_cameras(subject):
                seen = world_to_camera(world[:, H36M_17_OF_32], camera.orientation, camera.translation)
                pixels = denormalise_screen(project(seen, camera.intrinsics), camera.width, camera.height)
                keypoints[subject][action].append(np.concatenate((pixels, pixels[-1:])))  # 2D is longer
    metadata = {"num_joints": 17, "keypoints_symmetry": [list(H36M_17.left), list(H36M_17.right)]}
    return positions, keypoints, metadata


def write(root, positions, keypoints, metadata, source="gt"):
    write_npz(root / "data_3d_h36m.npz", positions_3d=positions)
    write_npz(root / f"data_2d_h36m_{source}.npz", positions_2d=keypoints, metadata=metadata)
