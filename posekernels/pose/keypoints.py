"""2D keypoints of one joint layout as those of another: COCO-17 detections to Human3.6M's 17 joints."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arrays import accepts_poses
from .skeleton import H36M_17

# COCO-17 joints, left before right
NOSE, EYES, EARS, SHOULDERS, HIPS = 0, (1, 2), (3, 4), (5, 6), (11, 12)
FACE = (*EYES, *EARS)
TORSO = (*SHOULDERS, *HIPS)
# H36M joint -> the COCO joint it is a copy of
COPIES = {9: 0, 11: 5, 14: 6, 12: 7, 15: 8, 13: 9, 16: 10, 4: 11, 1: 12, 5: 13, 2: 14, 6: 15, 3: 16}
LOW_SCORE = 0.3
# low-scored joints among knees and ankles -> {joint: the joint it is replaced by}
REVISIONS = {
    (2, 3, 5, 6): {2: 1, 3: 1, 5: 4, 6: 4},
    (2, 3, 6): {2: 1, 3: 1, 6: 5},
    (3, 5, 6): {3: 2, 5: 4, 6: 4},
    (3, 6): {3: 2, 6: 5},
    (3,): {3: 2},
    (6,): {6: 5},
}


def _check(op: str, keypoints, last: tuple[int, ...]) -> None:
    if not isinstance(keypoints, Tensor):
        raise TypeError(f"{op}: expected a torch.Tensor or numpy.ndarray, got {type(keypoints).__qualname__}")
    if tuple(keypoints.shape[-len(last) :]) != last:
        raise ValueError(f"{op}: the last axes must be {list(last)}, got {list(keypoints.shape)}")


@accepts_poses
def coco_to_h36m(keypoints: Tensor) -> Tensor:
    """COCO-17 pixels [..., 17, 2] to H36M-17 pixels [..., 17, 2], as the published video demos convert them.

    Joints that COCO lacks (pelvis, spine, thorax, head) are built from its shoulders, hips and face, with published
    corrections of nose, spine and thorax that bring them nearer to where Human3.6M's markers are.
    A person that was not detected (all zeros) stays all zeros.
    """
    _check("coco_to_h36m", keypoints, (17, 2))
    c = keypoints

    def mean(joints: tuple[int, ...]) -> Tensor:
        return c[..., joints, :].mean(-2)

    h = torch.empty_like(c)
    for joint, source in COPIES.items():
        h[..., joint, :] = c[..., source, :]
    shoulders, nose = mean(SHOULDERS), c[..., NOSE, :]
    h[..., 0, :] = mean(HIPS)
    h[..., 10, 0] = mean(FACE)[..., 0]
    h[..., 10, 1] = c[..., 1, 1] + c[..., 2, 1] - nose[..., 1]
    h[..., 8, :] = shoulders + (nose - shoulders) / 3
    h[..., 9, :] = nose - (nose - shoulders) / 4
    spine_x = mean(TORSO)[..., 0]
    h[..., 7, 1] = mean(TORSO)[..., 1]
    h[..., 7, 0] = spine_x + 2 * (spine_x - (h[..., 0, 0] + h[..., 8, 0]) / 2)
    h[..., 8, 1] -= (mean(EYES)[..., 1] - nose[..., 1]) * 2 / 3
    return h


@accepts_poses
def coco_scores_to_h36m(scores: Tensor) -> Tensor:
    """Confidences [..., 17] of COCO joints as those of H36M joints."""
    _check("coco_scores_to_h36m", scores, (17,))
    s = torch.empty_like(scores)
    for joint, source in COPIES.items():
        s[..., joint] = scores[..., source]
    s[..., 0] = scores[..., HIPS].mean(-1)
    s[..., 8] = scores[..., SHOULDERS].mean(-1)
    s[..., 7] = (s[..., 0] + s[..., 8]) / 2
    s[..., 10] = scores[..., FACE].mean(-1)
    return s


@accepts_poses
def detected(keypoints: Tensor) -> Tensor:
    """[..., J, 2] -> [...] bool: frames whose coordinates do not sum to exactly zero."""
    _check("detected", keypoints, tuple(keypoints.shape[-2:-1]) + (2,))
    return keypoints.sum((-2, -1)) != 0


@accepts_poses
def revise_legs(keypoints: Tensor, scores: Tensor) -> Tensor:
    """Replace knees and ankles of low confidence by the joint above them, for the published patterns.

    The published demo computes this and then saves the unrevised keypoints.

    Args:
        keypoints: [..., 17, 2] H36M-17; scores: [..., 17].
    Returns:
        [..., 17, 2]; frames without a detection are zero.
    """
    _check("revise_legs", keypoints, (17, 2))
    _check("revise_legs", scores, (17,))
    revised = keypoints.clone()
    joints = (2, 3, 5, 6)
    low = scores[..., joints] < LOW_SCORE
    for pattern, replacements in REVISIONS.items():
        matches = (low == torch.tensor([j in pattern for j in joints], device=low.device)).all(-1)
        for joint, source in replacements.items():
            revised[..., joint, :] = torch.where(matches[..., None], keypoints[..., source, :], revised[..., joint, :])
    return revised * detected(keypoints)[..., None, None]


@accepts_poses
def one_trunk(points: Tensor) -> Tensor:
    """H36M-17 joints [..., 17, C] with the trunk where detectors see it; pixels or metres.

    Pelvis, spine and thorax lie elsewhere in every skeleton (CMU's root 11 cm above the hips). Here 0 is the middle of
    the hips, 8 the middle of the shoulders and 7 the middle of both: in training and in lifting.
    """
    if not isinstance(points, Tensor) or points.dim() < 2 or points.shape[-2] != 17:
        raise ValueError(f"one_trunk: expected joints [..., 17, C], got {list(getattr(points, 'shape', []))}")
    found = points.clone()
    found[..., 0, :] = (points[..., 1, :] + points[..., 4, :]) / 2
    found[..., 8, :] = (points[..., 11, :] + points[..., 14, :]) / 2
    found[..., 7, :] = (found[..., 0, :] + found[..., 8, :]) / 2
    return found


# A standing person from the front, arms hanging: x to the image's right, y down, in units of the trunk (mid-hips to
# mid-shoulders), in Human3.6M's order; the person's right is on the image's left.
STANDING = torch.tensor(
    [[0.0, 0], [-0.19, 0], [-0.19, 0.86], [-0.19, 1.7], [0.19, 0], [0.19, 0.86], [0.19, 1.7]]
    + [[0, -0.5], [0, -1], [0, -1.29], [0, -1.55]]
    + [[0.36, -1], [0.36, -0.42], [0.36, 0.08], [-0.36, -1], [-0.36, -0.42], [-0.36, 0.08]]
)
# (a, b, how long the trunk is at least, in distances from a to b)
TRUNK_BY = (
    *((0, 8, 1.0), (8, 10, 1.8), (11, 14, 1.38), (1, 4, 2.6)),
    *((1, 2, 1.1), (4, 5, 1.1), (11, 12, 1.6), (14, 15, 1.6)),
)


def _steps_between() -> Tensor:
    """[17, 17] bones from joint to joint; a little more where that leads to the other side of the body."""
    adjacency = H36M_17.adjacency()
    steps = adjacency.masked_fill(adjacency == 0, torch.inf).fill_diagonal_(0)
    for via in range(17):
        steps = torch.minimum(steps, steps[:, via, None] + steps[via])
    left, right = (torch.tensor([joint in side for joint in range(17)]) for side in (H36M_17.left, H36M_17.right))
    return steps + 0.1 * (left[:, None] & right | right[:, None] & left)


STEPS = _steps_between()


@accepts_poses
def guess_unseen(points: Tensor, seen: Tensor) -> Tensor:
    """Put joints that were not seen where those of a standing person are in an upright image: legs stand, arms hang.

    Each is put as it lies from the nearest joint seen in ``STANDING``, as large as the trunk and as wide as the
    shoulders or hips are.

    Args:
        points: [..., 17, 2] H36M-17 pixels, y down; what unseen joints hold does not matter.
        seen: [..., 17] bool.
    Returns:
        [..., 17, 2]; 0 where nothing was seen.
    """
    _check("guess_unseen", points, (17, 2))
    _check("guess_unseen", seen, (17,))
    points = torch.where(seen[..., None], points, 0)

    def apart(a: int, b: int) -> Tensor:
        return torch.where((seen[..., a] & seen[..., b])[..., None], points[..., a, :] - points[..., b, :], 0)

    trunk = torch.stack([factor * apart(a, b).norm(dim=-1) for a, b, factor in TRUNK_BY], -1).amax(-1)
    shoulders, hips = apart(11, 14)[..., 0] / 0.72, apart(4, 1)[..., 0] / 0.38
    wide = torch.where(shoulders != 0, shoulders, hips)
    template = STANDING.to(points)
    nearest = torch.where(seen[..., None, :], STEPS.to(points.device), torch.inf).argmin(-1)  # [..., 17]
    offset = (template - template[nearest]) * torch.stack((wide, trunk), -1)[..., None, :]
    anchor = points.gather(-2, nearest[..., None].expand(points.shape))
    return torch.where(seen[..., None], points, torch.where(seen.any(-1)[..., None, None], anchor + offset, 0))


@accepts_poses
@accepts_poses
def centre_on_person(keypoints: Tensor, spread: int = 27) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints relative to the person's root and size, whatever camera saw them.

    Args:
        keypoints: [..., T, J, 2] in any unit; joint 0 is the root.
        spread: odd; the size of a person is averaged over so many frames (beyond the ends the edge frame repeats).
    Returns:
        [..., T, J, 2] with the root at 0 and joints at a mean distance of about 1 from it; [..., T, 2] the roots and
        [..., T] the sizes taken out, in the unit of ``keypoints``. Where all joints coincide, the size is 0 and so is
        the result.
    """
    if not isinstance(keypoints, Tensor):
        raise TypeError(
            f"centre_on_person: expected a torch.Tensor or numpy.ndarray, got {type(keypoints).__qualname__}"
        )
    if keypoints.dim() < 3 or keypoints.shape[-1] != 2:
        raise ValueError(f"centre_on_person: keypoints must be [..., T, J, 2], got {list(keypoints.shape)}")
    if spread < 1 or spread % 2 == 0:
        raise ValueError(f"centre_on_person: spread must be odd and positive, got {spread}")
    centre = keypoints[..., 0, :]
    relative = keypoints - centre[..., None, :]
    size = relative.norm(dim=-1).mean(-1)
    T, half = size.shape[-1], spread // 2
    around = (torch.arange(T)[:, None] + torch.arange(-half, half + 1)).clamp(0, max(T - 1, 0))
    size = size[..., around].mean(-1)
    return relative / size.clamp_min(torch.finfo(size.dtype).tiny)[..., None, None], centre, size
