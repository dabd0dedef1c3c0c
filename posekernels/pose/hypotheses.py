"""Scores of many hypotheses per pose: best-of-S errors, and the fraction of joints within reach.

Best-of-S needs the truth to choose: it is an oracle, and no way to pick a pose in practice. Poses are [B, S, J, 3],
targets [B, J, 3], metres; all J joints count, the root included. Source: ws_anl section 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..ops import best_hypothesis, procrustes_error
from .metrics import action_group, published_p2

PCK_THRESHOLD = 0.150  # metres
AUC_150 = tuple(i / 1000 for i in range(150))  # what the multi-hypothesis papers' code uses
AUC_31 = tuple(i / 1000 for i in range(0, 151, 5))  # the official 3DHP script's grid


def pck(poses: Tensor, target: Tensor, threshold: float = PCK_THRESHOLD) -> Tensor:
    """[..., S]: fraction of joints of poses [..., S, J, 3] strictly nearer than ``threshold`` to target [..., J, 3].

    A root that both sides put at 0 always counts as correct.
    """
    distance = (poses - target.unsqueeze(-3)).norm(dim=-1)
    return (distance < threshold).to(poses.dtype).mean(-1).where(~distance.isnan().any(-1), math.nan)


def auc(poses: Tensor, target: Tensor, thresholds: Sequence[float] = AUC_31) -> Tensor:
    """[..., S]: ``pck`` averaged over ``thresholds``. Papers differ in the grid and the joints: say which you used."""
    distance = (poses - target.unsqueeze(-3)).norm(dim=-1)
    grid = torch.tensor(thresholds, dtype=distance.dtype, device=distance.device)
    reached = (distance[..., None] < grid).to(poses.dtype).mean((-1, -2))
    return reached.where(~distance.isnan().any(-1), math.nan)


def median_pose(poses: Tensor) -> Tensor:
    """[..., J, 3]: the median of hypotheses [..., S, J, 3], coordinate by coordinate; of an even number the mean of the
    two in the middle, where ``Tensor.median`` takes the lower one."""
    S = poses.shape[-3]
    ordered = poses.sort(-3).values
    return (ordered.select(-3, (S - 1) // 2) + ordered.select(-3, S // 2)) / 2


def spread(poses: Tensor) -> Tensor:
    """[..., J]: how far apart hypotheses [..., S, J, 3] are, joint by joint, in their unit: the root of the mean
    squared distance to their mean. Small where they agree."""
    return (poses - poses.mean(-3, keepdim=True)).square().sum(-1).mean(-2).sqrt()


def fitting_root(poses: Tensor, ray: Tensor) -> Tensor:
    """[..., 3] where the root must be for poses [..., J, 3] to be seen along rays [..., J, 2] (X/Z, Y/Z).

    Least squares of X + x = ray (Z + z), at least half a metre in front of the camera.
    """
    right = ray * poses[..., 2:] - poses[..., :2]
    middle, mean = ray.mean(-2, keepdim=True), right.mean(-2)
    away = ray - middle
    depth = -(away * right).sum((-1, -2)) / away.square().sum((-1, -2)).clamp(min=1e-12)
    depth = depth.clamp(min=0.5)[..., None]
    return torch.cat((mean + middle.squeeze(-2) * depth, depth), -1)


def by_reprojection(poses: Tensor, keypoints: Tensor, intrinsics: Tensor, root: Tensor | None = None) -> Tensor:
    """One pose out of many without the truth: each joint from the hypothesis whose projection is nearest its keypoint.

    Args:
        poses: [..., S, J, 3] metres, camera axes, relative to the root.
        keypoints: [..., J, 2] screen units, as detected.
        intrinsics: [9] or [..., 9] of the camera, as for ``camera.project``; lens distortion is left out.
        root: [..., 3] metres, where the root is in camera space; None: where each hypothesis fits the keypoints best.
    Returns:
        [..., J, 3]
    Raises:
        ValueError: shapes that do not belong together; a camera without a focal length (zeros stand for unknown).
    Source: the joint-wise aggregation of D3DP, Shan et al., ICCV 2023.
    """
    if poses.shape[-1] != 3 or keypoints.shape != (*poses.shape[:-3], poses.shape[-2], 2):
        raise ValueError(
            "by_reprojection: poses must be [..., S, J, 3] and keypoints [..., J, 2], got "
            f"{list(poses.shape)} and {list(keypoints.shape)}"
        )
    if intrinsics.shape[-1:] != (9,) or not (intrinsics[..., :2] > 0).all():
        raise ValueError(f"by_reprojection: intrinsics must be [..., 9], focal lengths above 0, got {intrinsics}")
    focal, centre = intrinsics[..., None, :2], intrinsics[..., None, 2:4]
    ray = ((keypoints - centre) / focal).unsqueeze(-3)
    root = fitting_root(poses, ray.expand(*poses.shape[:-1], 2)) if root is None else root.unsqueeze(-2)
    points = poses + root.unsqueeze(-2)
    error = (points[..., :2] / points[..., 2:] - ray).norm(dim=-1)
    chosen = error.argmin(-2, keepdim=True)[..., None].expand(*poses.shape[:-3], 1, poses.shape[-2], 3)
    return poses.gather(-3, chosen).squeeze(-3)


@dataclass
class HypothesisScores:
    """Sums up poses with their hypotheses into the published tables: per action group, and the mean over groups.

    Args:
        published_batches: P2 by ``metrics.published_p2`` over batches of this size. By default each pose counts with
            its own error.
        with_pck: also PCK and AUC, as on MPI-INF-3DHP.
        without_truth: also what can be had without knowing the truth: P1 of the mean and of the joint-wise median of
            the hypotheses.
    """

    published_batches: int | Sequence[int] | None = None
    with_pck: bool = False
    without_truth: bool = False
    # number of the first pose in the test -> (groups of the poses, column -> [B])
    parts: dict[int, tuple[list[str], dict[str, Tensor]]] = field(default_factory=dict)

    def add(
        self, poses: Tensor, target: Tensor, actions: Sequence[str], first: int | None = None, **more: Tensor
    ) -> None:
        """Add poses [B, S, J, 3], target [B, J, 3], metres, and the action of each pose.

        Args:
            first: the number of the first of them in the whole test; None: they follow those that were added.
            more: further columns by name, [B], in what they are reported in.
        """
        if len(actions) != poses.shape[0]:
            raise ValueError(f"HypothesisScores: {len(actions)} actions for {poses.shape[0]} poses")
        if not len(actions):
            return
        p2 = procrustes_error(poses, target[:, None]).amin(1)
        columns = {"P1": 1000 * best_hypothesis(poses, target).error.double(), "P2": 1000 * p2.double()}
        if self.with_pck:
            columns["PCK"] = 100 * pck(poses, target).amax(1).double()
            columns["AUC"] = 100 * auc(poses, target).amax(1).double()
        if self.without_truth:
            for name, pose in (("mean P1", poses.mean(1)), ("median P1", median_pose(poses))):
                columns[name] = 1000 * (pose - target).norm(dim=-1).mean(-1).double()
        first = self.frames() if first is None else first
        self.parts[first] = [action_group(a) for a in actions], columns | more

    def merge(self, other: HypothesisScores) -> None:
        """Add everything ``other`` (of another process, which numbered its poses) has seen."""
        self.parts |= other.parts

    def frames(self) -> int:
        """Poses seen."""
        return sum(len(groups) for groups, _ in self.parts.values())

    def per_action(self) -> dict[str, dict[str, float]]:
        """{action group: {"P1": mm, "P2": mm, "PCK" and "AUC": percent, ...}}, sorted by name."""
        if not self.parts:
            return {}
        parts = [self.parts[first] for first in sorted(self.parts)]
        groups = [group for part, _ in parts for group in part]
        columns = {name: torch.cat([part[name] for _, part in parts]) for name in parts[0][1]}
        if self.published_batches is not None:
            columns["P2"] = published_p2(columns["P2"], groups, self.published_batches)
        of = {group: [i for i, g in enumerate(groups) if g == group] for group in sorted(set(groups))}
        return {
            group: {name: math.fsum(column[rows].tolist()) / len(rows) for name, column in columns.items()}
            for group, rows in of.items()
        }

    def average(self) -> dict[str, float]:
        """The plain mean over action groups of every column: the figure papers report."""
        table = list(self.per_action().values())
        return {name: math.fsum(row[name] for row in table) / len(table) for name in table[0]} if table else {}
