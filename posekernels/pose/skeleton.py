"""Joint layouts: names, parents, left and right, root."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """One joint layout.

    Args:
        name: of the layout.
        joints: the joints' names, in order.
        parents: index of each joint's parent; -1 for the root.
        left, right: mirrored pairs, ``left[i]`` with ``right[i]``.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def __post_init__(self):
        if not len(self.joints) == len(self.parents) or len(self.left) != len(self.right):
            raise ValueError(
                f"skeleton {self.name}: {len(self.joints)} joints, {len(self.parents)} parents, "
                f"{len(self.left)} left, {len(self.right)} right: counts must match"
            )

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        return self.parents.index(-1)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, joint) pairs."""
        return tuple((p, j) for j, p in enumerate(self.parents) if p >= 0)

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """The joint that each joint becomes in a mirror; a permutation that is its own inverse."""
        order = list(range(self.num_joints))
        for l, r in zip(self.left, self.right):
            order[l], order[r] = r, l
        return tuple(order)

    def adjacency(self) -> Tensor:
        """[J, J] float32, 0/1, symmetric, no self loops."""
        matrix = torch.zeros(self.num_joints, self.num_joints)
        for parent, joint in self.bones:
            matrix[parent, joint] = matrix[joint, parent] = 1
        return matrix


H36M_17 = Skeleton(
    "h36m-17",
    (
        "pelvis",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "spine",
        "thorax",
        "nose",
        "head",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
    ),
    (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)
