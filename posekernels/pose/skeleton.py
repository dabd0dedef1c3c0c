"""Joint layouts: names, parents, left and right, root. ``skeleton("h36m-17")`` finds one by name in ``SKELETONS``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .._checks import nearest


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

    def reduced(self, name: str, keep: tuple[int, ...], attach: dict[int, int] | None = None) -> Skeleton:
        """The layout with only the joints ``keep``, in that order; a removed parent becomes its nearest kept ancestor.

        Args:
            name: of the new layout.
            keep: joints of this layout, each once; the root among them.
            attach: {joint: parent} in the new numbering, set after the reduction.
        Raises:
            ValueError: a joint outside the layout or given twice, no root, or half of a mirrored pair.
        """
        new = {old: i for i, old in enumerate(keep)}
        if len(new) != len(keep) or not set(keep) <= set(range(self.num_joints)) or self.root not in new:
            raise ValueError(
                f"skeleton {name}: keep must name joints of {self.name} once each, the root too, got {keep}"
            )
        parents = []
        for joint in keep:
            parent = self.parents[joint]
            while parent >= 0 and parent not in new:
                parent = self.parents[parent]
            parents.append(new.get(parent, -1))
        for joint, parent in (attach or {}).items():
            parents[joint] = parent
        left = tuple(new[j] for j in self.left if j in new)
        right = tuple(new[j] for j in self.right if j in new)
        return Skeleton(name, tuple(self.joints[j] for j in keep), tuple(parents), left, right)

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

H36M_16 = H36M_17.reduced("h36m-16", keep=(*range(9), *range(10, 17)))
"""Without the nose: what the original Modulated GCN was trained on."""

H36M_32 = Skeleton(
    "h36m-32",
    (
        *("hips", "right_up_leg", "right_leg", "right_foot", "right_toe_base", "right_toe_site"),
        *("left_up_leg", "left_leg", "left_foot", "left_toe_base", "left_toe_site"),
        *("spine", "spine1", "neck", "head", "head_site"),
        *("left_shoulder", "left_arm", "left_fore_arm", "left_hand"),
        *("left_hand_thumb", "left_thumb_site", "left_wrist_end", "left_wrist_site"),
        *("right_shoulder", "right_arm", "right_fore_arm", "right_hand"),
        *("right_hand_thumb", "right_thumb_site", "right_wrist_end", "right_wrist_site"),
    ),
    (
        -1,
        0,
        1,
        2,
        3,
        4,
        0,
        6,
        7,
        8,
        9,
        0,
        11,
        12,
        13,
        14,
        12,
        16,
        17,
        18,
        19,
        20,
        19,
        22,
        12,
        24,
        25,
        26,
        27,
        28,
        27,
        30,
    ),
    left=(6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23),
    right=(1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29, 30, 31),
)

H36M_17_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The joints of ``H36M_32`` that ``H36M_17`` keeps, in its order (its shoulders are then re-attached to the thorax)."""

CMU_38 = Skeleton(
    "cmu-38",
    (
        *("hips", "left_hip_joint", "left_up_leg", "left_leg", "left_foot", "left_toe_base", "left_toe_site"),
        *("right_hip_joint", "right_up_leg", "right_leg", "right_foot", "right_toe_base", "right_toe_site"),
        *("lower_back", "spine", "spine1", "neck", "neck1", "head", "head_site"),
        *("left_shoulder", "left_arm", "left_fore_arm", "left_hand"),
        *("left_finger_base", "left_hand_index1", "left_index_site", "left_thumb", "left_thumb_site"),
        *("right_shoulder", "right_arm", "right_fore_arm", "right_hand"),
        *("right_finger_base", "right_hand_index1", "right_index_site", "right_thumb", "right_thumb_site"),
    ),
    (-1, 0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18)
    + (15, 20, 21, 22, 23, 24, 25, 23, 27, 15, 29, 30, 31, 32, 33, 34, 32, 36),
    left=(1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28),
    right=(7, 8, 9, 10, 11, 12, 29, 30, 31, 32, 33, 34, 35, 36, 37),
)

H36M_17_OF_CMU_38 = (0, 8, 9, 10, 2, 3, 4, 14, 16, 17, 18, 21, 22, 23, 30, 31, 32)
"""The joints of ``CMU_38`` that stand for those of ``H36M_17``."""

HUMANEVA_15 = Skeleton(
    "humaneva-15",
    (
        *("pelvis", "thorax", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
        *("left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "head"),
    ),
    (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
    left=(2, 3, 4, 8, 9, 10),
    right=(5, 6, 7, 11, 12, 13),
)

SKELETONS = {s.name: s for s in (H36M_17, H36M_16, H36M_32, CMU_38, HUMANEVA_15)}


def skeleton(name: str) -> Skeleton:
    """The layout called ``name``.

    Raises:
        ValueError: an unknown name; the nearest one is told.
    """
    if name not in SKELETONS:
        raise ValueError(f"no skeleton named {name!r}{nearest(name, SKELETONS)} (skeletons: {', '.join(SKELETONS)})")
    return SKELETONS[name]
