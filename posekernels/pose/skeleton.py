"""Joint layouts: names, parents, left and right, root. ``skeleton("h36m-17")`` finds one by name in ``SKELETONS``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .._tables import table
from ..checks import nearest


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

    def reduced(
        self, name: str, keep: tuple[int, ...], attach: dict[int, int] | None = None, root: int | None = None
    ) -> Skeleton:
        """The layout with only the joints ``keep``, in that order; a removed parent becomes its nearest kept ancestor.

        Args:
            name: of the new layout.
            keep: joints of this layout, each once; the root among them.
            attach: {joint: parent} in the new numbering, set after the reduction.
            root: the kept joint of this layout that stands in for a root that is not kept: what has no kept ancestor
                hangs on it.
        Raises:
            ValueError: a joint outside the layout or given twice, no root, or half of a mirrored pair.
        """
        new = {old: i for i, old in enumerate(keep)}
        root = self.root if root is None else root
        if len(new) != len(keep) or not set(keep) <= set(range(self.num_joints)) or root not in new:
            raise ValueError(
                f"skeleton {name}: keep must name joints of {self.name} once each, the root too, got {keep}"
            )
        parents = []
        for joint in keep:
            parent = self.parents[joint]
            while parent >= 0 and parent not in new:
                parent = self.parents[parent]
            parents.append(new.get(parent, -1 if joint == root else new[root]))
        for joint, parent in (attach or {}).items():
            parents[joint] = parent
        left = tuple(new[j] for j in self.left if j in new)
        right = tuple(new[j] for j in self.right if j in new)
        return Skeleton(name, tuple(self.joints[j] for j in keep), tuple(parents), left, right)

    def mirror(self, points: Tensor) -> Tensor:
        """Points [..., J, C] seen in a mirror: coordinate 0 negated, left and right exchanged. Its own inverse."""
        points = points.index_select(-2, table(self.mirrored, points.device))
        return torch.cat((-points[..., :1], points[..., 1:]), -1)

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

H36M_22_OF_32 = (2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 21, 22, 25, 26, 27, 29, 30)
CMU_25_OF_38 = (3, 4, 5, 6, 9, 10, 11, 12, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26, 28, 30, 31, 32, 34, 35, 37)
H36M_22 = H36M_32.reduced("h36m-22", H36M_22_OF_32, root=12)
CMU_25 = CMU_38.reduced("cmu-25", CMU_25_OF_38, root=14)
"""The joints that forecasters see of Human3.6M and of CMU, in their order. Hips stand still and are none of them: the
lowest joint of the spine stands in as the root, and the legs hang on it."""

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

COCO_17 = Skeleton(
    "coco-17",
    (
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist"),
        *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    (-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    left=(1, 3, 5, 7, 9, 11, 13, 15),
    right=(2, 4, 6, 8, 10, 12, 14, 16),
)
"""COCO: no pelvis and no neck; the nose stands in as the root."""

OPENPOSE_18 = Skeleton(
    "openpose-18",
    (
        *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("right_eye", "left_eye", "right_ear", "left_ear"),
    ),
    (1, -1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15),
    left=(5, 6, 7, 11, 12, 13, 15, 17),
    right=(2, 3, 4, 8, 9, 10, 14, 16),
)
"""OpenPose's model of COCO: its joints in another order, and the neck, which stands in as the root."""

BODY_25 = Skeleton(
    "body-25",
    (
        *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
        *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("right_eye", "left_eye", "right_ear", "left_ear"),
        *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
    ),
    (1, 8, 1, 2, 3, 1, 5, 6, -1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
    left=(5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21),
    right=(2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24),
)
"""OpenPose's default model."""

BODY_25B = Skeleton(
    "body-25b",
    (
        *COCO_17.joints,
        *("upper_neck", "head_top"),
        *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
    ),
    (17, 0, 0, 1, 2, 17, 17, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14, -1, 17, 15, 19, 15, 16, 22, 16),
    left=(1, 3, 5, 7, 9, 11, 13, 15, 19, 20, 21),
    right=(2, 4, 6, 8, 10, 12, 14, 16, 22, 23, 24),
)
"""OpenPose's experimental model: as many joints as ``BODY_25``, in another order; the upper neck stands in as root."""

HALPE_26 = Skeleton(
    "halpe-26",
    (
        *COCO_17.joints,
        *("head", "neck", "hip"),
        *("left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel"),
    ),
    (18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 15, 16, 20, 21, 15, 16),
    left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24),
    right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25),
)
"""AlphaPose, RTMPose and Sports2D: bodies with feet."""

_HAND = ("wrist", *(f"{finger}_{n}" for finger in ("thumb", "index", "middle", "ring", "pinky") for n in range(1, 5)))
_HAND_PARENTS = (-1, *(0 if n == 1 else 4 * finger + n - 1 for finger in range(5) for n in range(1, 5)))
# the two jaws, brows, eyes ... of the 68 points of a face that change places in a mirror
_FACE_PAIRS = (
    *((j, 16 - j) for j in range(8)),
    *((17 + j, 26 - j) for j in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)),
)  # (on the right of the face, on its left)
_FACE_SIDES = {
    j: f"{side}_face_{right}" for right, left in _FACE_PAIRS for j, side in ((right, "right"), (left, "left"))
}

COCO_133 = Skeleton(
    "coco-133",
    (
        *COCO_17.joints,
        *(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")),
        *(_FACE_SIDES.get(j, f"face_{j}") for j in range(68)),
        *(f"{side}_hand_{part}" for side in ("left", "right") for part in _HAND),
    ),
    (
        *COCO_17.parents,
        *(15, 15, 15, 16, 16, 16),
        *(0 for _ in range(68)),
        *(9 if p < 0 else 91 + p for p in _HAND_PARENTS),
        *(10 if p < 0 else 112 + p for p in _HAND_PARENTS),
    ),
    left=(*COCO_17.left, 17, 18, 19, *(23 + left for _, left in _FACE_PAIRS), *range(91, 112)),
    right=(*COCO_17.right, 20, 21, 22, *(23 + right for right, _ in _FACE_PAIRS), *range(112, 133)),
)
"""COCO-WholeBody: ``COCO_17``, feet, the 68 points of a face, and the hands."""

MPII_16 = Skeleton(
    "mpii-16",
    (
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    (1, 2, 6, 6, 3, 4, -1, 6, 7, 8, 11, 12, 7, 7, 13, 14),
    left=(3, 4, 5, 13, 14, 15),
    right=(2, 1, 0, 12, 11, 10),
)

BLAZEPOSE_33 = Skeleton(
    "blazepose-33",
    (
        *("nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer"),
        *("left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky"),
        *("left_index", "right_index", "left_thumb", "right_thumb", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel"),
        *("left_foot_index", "right_foot_index"),
    ),
    (-1, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16)
    + (11, 12, 23, 24, 25, 26, 27, 28, 27, 28),
    left=(1, 2, 3, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
    right=(4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32),
)
"""MediaPipe's landmarks: no pelvis and no neck; the nose stands in as the root."""

SMPL_24 = Skeleton(
    "smpl-24",
    (
        *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
        *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar"),
        *("head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
        *("left_hand", "right_hand"),
    ),
    (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    left=(1, 4, 7, 10, 13, 16, 18, 20, 22),
    right=(2, 5, 8, 11, 14, 17, 19, 21, 23),
)

CMU_31 = CMU_38.reduced("cmu-31", keep=tuple(j for j, n in enumerate(CMU_38.joints) if not n.endswith("_site")))
"""The 38 without the ends of toes, head, fingers and thumbs: the joints of CMU's own skeleton files."""

_DETECTORS = (COCO_17, OPENPOSE_18, BODY_25, BODY_25B, HALPE_26, MPII_16, BLAZEPOSE_33, COCO_133)
_BODIES = (H36M_17, H36M_16, H36M_22, H36M_32, CMU_25, CMU_31, CMU_38, HUMANEVA_15, SMPL_24)
SKELETONS = {s.name: s for s in (*_BODIES, *_DETECTORS)}


def skeleton(name: str) -> Skeleton:
    """The layout called ``name``.

    Raises:
        ValueError: an unknown name; the nearest one is told.
    """
    if name not in SKELETONS:
        raise ValueError(f"no skeleton named {name!r}{nearest(name, SKELETONS)} (skeletons: {', '.join(SKELETONS)})")
    return SKELETONS[name]
