"""Points of one joint layout as those of another, by way of Human3.6M's 17: ``to_h36m``, ``from_h36m``.

Each joint is a weighted sum of a few joints of the other layout, so the same rule serves pixels and metres. Arms and
legs are copied, and survive the way there and back exactly. The trunk and head are called alike but lie elsewhere in
every layout: what is written below places them to within a few centimetres. Joints that 17 joints cannot tell (fingers,
toes, eyes) are put on their nearest known ancestor.

``posekernels.pose.keypoints.coco_to_h36m`` is another, non-linear rule: that of the published video demos, for lifters
trained on Human3.6M's own detections.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..arrays import accepts_poses
from .skeleton import H36M_17, H36M_17_OF_32, H36M_17_OF_CMU_38, skeleton

_SIDES = ("left", "right")
_LIMBS = tuple(f"{side}_{part}" for side in _SIDES for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"))
_SHOULDERS, _HIPS = ({f"{side}_{part}": 0.5 for side in _SIDES} for part in ("shoulder", "hip"))


def _mix(*parts: tuple[float, dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for factor, joints in parts:
        for joint, weight in joints.items():
            total[joint] = total.get(joint, 0.0) + factor * weight
    return total


def _trunk(pelvis: dict, neck: dict, nose: dict, head: dict) -> dict[str, dict[str, float]]:
    return {"pelvis": pelvis, "spine": _mix((0.5, pelvis), (0.5, neck)), "thorax": neck, "nose": nose, "head": head}


# A face of nose and ears: H36M's "nose" lies a quarter of the way back to the shoulders, its "head" is the crown.
_EARS = {"left_ear": 0.5, "right_ear": 0.5}
_FACE_NOSE = _mix((0.75, {"nose": 1.0}), (0.25, _SHOULDERS))
_CROWN = _mix((1.35, _EARS), (-0.35, _SHOULDERS))
_FACE = _trunk(_HIPS, _SHOULDERS, _FACE_NOSE, _CROWN)
# and back: ears and eyes in the middle of the head, the nose in front of them
_EAR_OF = _mix((1 / 1.35, {"head": 1.0}), (0.35 / 1.35, _SHOULDERS))
_NOSE_OF = _mix((4 / 3, {"nose": 1.0}), (-1 / 3, _SHOULDERS))
_FACE_OF = {"nose": _NOSE_OF} | {f"{side}_ear": _EAR_OF for side in _SIDES}
_EYES_OF = {f"{side}_eye": _mix((0.5, _EAR_OF), (0.5, _NOSE_OF)) for side in _SIDES}
_BLAZEPOSE_OF = {f"{side}_eye{part}": _EYES_OF[f"{side}_eye"] for side in _SIDES for part in ("", "_inner", "_outer")}
_HALF_SPINE = {"pelvis": 0.5, "spine": 0.5}

# layout -> (H36M-17 joints from it, its joints from H36M-17), by name; limbs of the same name go without saying
_RULES: dict[str, tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]] = {
    "coco-17": (_FACE, _FACE_OF | _EYES_OF),
    "coco-133": (_FACE, _FACE_OF | _EYES_OF),
    "openpose-18": (_FACE, _FACE_OF | _EYES_OF | {"neck": {"thorax": 1.0}}),
    "blazepose-33": (_FACE, _FACE_OF | _BLAZEPOSE_OF | {f"mouth_{side}": _NOSE_OF for side in _SIDES}),
    "body-25": (
        _trunk({"mid_hip": 1.0}, {"neck": 1.0}, _mix((0.75, {"nose": 1.0}), (0.25, {"neck": 1.0})), _CROWN),
        _FACE_OF | _EYES_OF | {"neck": {"thorax": 1.0}, "mid_hip": {"pelvis": 1.0}},
    ),
    "body-25b": (
        _trunk(_HIPS, _SHOULDERS, _FACE_NOSE, {"head_top": 1.0}),
        _FACE_OF | _EYES_OF | {"upper_neck": {"thorax": 1.0}, "head_top": {"head": 1.0}},
    ),
    "halpe-26": (
        _trunk({"hip": 1.0}, _SHOULDERS, _FACE_NOSE, {"head": 1.0}),
        _FACE_OF | _EYES_OF | {"hip": {"pelvis": 1.0}, "neck": {"thorax": 1.0}, "head": {"head": 1.0}},
    ),
    "mpii-16": (
        _trunk({"pelvis": 1.0}, {"thorax": 1.0}, {"upper_neck": 0.5, "head_top": 0.5}, {"head_top": 1.0}),
        {
            "pelvis": {"pelvis": 1.0},
            "thorax": {"thorax": 1.0},
            "upper_neck": {"nose": 2.0, "head": -1.0},
            "head_top": {"head": 1.0},
        },
    ),
    "smpl-24": (
        {
            "pelvis": {"pelvis": 1.0},
            "spine": {"spine2": 1.0},
            "thorax": {"neck": 1.0},
            "nose": {"head": 1.0},
            "head": {"head": 2.0, "neck": -1.0},
        },
        {
            "pelvis": {"pelvis": 1.0},
            "spine1": _HALF_SPINE,
            "spine2": {"spine": 1.0},
            "spine3": {"spine": 0.5, "thorax": 0.5},
            "neck": {"thorax": 1.0},
            "head": {"nose": 1.0},
            "left_collar": {"thorax": 1.0},
            "right_collar": {"thorax": 1.0},
        },
    ),
}
# layouts that hold H36M-17's joints under other names: where each of the 17 is
_CMU_31_NAMES = skeleton("cmu-31").joints
_PLACES = {
    "h36m-17": tuple(range(17)),
    "h36m-32": H36M_17_OF_32,
    "cmu-38": H36M_17_OF_CMU_38,
    "cmu-31": tuple(_CMU_31_NAMES.index(skeleton("cmu-38").joints[j]) for j in H36M_17_OF_CMU_38),
}
LAYOUTS = (*_PLACES, *_RULES)
"""Layouts that have a rule, by name."""

Rule = tuple[tuple[tuple[int, float], ...], ...]


@functools.cache
def _rule(layout: str, back: bool) -> Rule:
    """For each joint of the target, (source joint, weight) pairs."""
    other = skeleton(layout)
    if layout not in LAYOUTS:
        raise ValueError(f"no rule between {layout} and h36m-17 (there is one for {', '.join(LAYOUTS)})")
    if layout in _PLACES:
        places = _PLACES[layout]
        if not back:
            return tuple(((place, 1.0),) for place in places)
        known = {place: ((joint, 1.0),) for joint, place in enumerate(places)}
    else:
        named = _RULES[layout][back] | {limb: {limb: 1.0} for limb in _LIMBS if limb in other.joints}
        source, target = (H36M_17, other) if back else (other, H36M_17)
        known = {
            target.joints.index(name): tuple((source.joints.index(joint), weight) for joint, weight in parts.items())
            for name, parts in named.items()
        }
        if not back:
            return tuple(known[joint] for joint in range(17))
    for joint in range(other.num_joints):
        at = joint
        while at not in known:
            at = other.parents[at]
        known[joint] = known[at]
    return tuple(known[joint] for joint in range(other.num_joints))


def _apply(op: str, points: Tensor, rule: Rule, joints: int) -> Tensor:
    if not isinstance(points, Tensor):
        raise TypeError(f"{op}: expected a torch.Tensor or numpy.ndarray, got {type(points).__qualname__}")
    if points.dim() < 2 or points.shape[-2] != joints:
        raise ValueError(f"{op}: points must be [..., {joints}, C], got {list(points.shape)}")
    # sums over the few joints involved, not a matrix product: a missing (NaN) joint spoils only what is made of it
    return torch.stack([sum(points[..., j, :] * w for j, w in parts) for parts in rule], -2)


@accepts_poses
def to_h36m(points: Tensor, layout: str) -> Tensor:
    """Points [..., J, C] of a layout in ``LAYOUTS`` as those of H36M-17, [..., 17, C]; pixels or metres.

    Raises:
        ValueError: an unknown layout (the nearest one is told), or another number of joints than it has.
    """
    return _apply("to_h36m", points, _rule(layout, False), skeleton(layout).num_joints)


@accepts_poses
def from_h36m(points: Tensor, layout: str) -> Tensor:
    """Points [..., 17, C] of H36M-17 as those of a layout in ``LAYOUTS``, [..., J, C]; the other way of ``to_h36m``."""
    return _apply("from_h36m", points, _rule(layout, True), 17)


@accepts_poses
def scores_to_h36m(scores: Tensor, layout: str) -> Tensor:
    """Confidences [..., J] of a layout as those of H36M-17, [..., 17]: the lowest of the joints that make up each."""
    rule, joints = _rule(layout, False), skeleton(layout).num_joints
    if scores.shape[-1:] != (joints,):
        raise ValueError(f"scores_to_h36m: scores must be [..., {joints}], got {list(scores.shape)}")
    return torch.stack([scores[..., [j for j, _ in parts]].amin(-1) for parts in rule], -1)
