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
from .metrics import action_group

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


@dataclass
class HypothesisScores:
    """Sums up poses with their hypotheses into the published tables: per action group, and the mean over groups.

    Args:
        published_p2: reproduce the published program's P2, which credits every pose of a batch that mixes action groups
            with the mean of the batch. By default each pose counts with its own error.
        with_pck: also PCK and AUC, as on MPI-INF-3DHP.
        without_truth: also what can be had without knowing the truth: P1 of the mean and of the joint-wise median of
            the hypotheses.
    """

    published_p2: bool = False
    with_pck: bool = False
    without_truth: bool = False
    records: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # group -> column -> per pose

    def add(self, poses: Tensor, target: Tensor, actions: Sequence[str], **more: Tensor) -> None:
        """Add a batch: poses [B, S, J, 3], target [B, J, 3], metres, and the action of each pose.

        ``more``: further columns by name, [B], in what they are reported in.
        """
        if len(actions) != poses.shape[0]:
            raise ValueError(f"HypothesisScores: {len(actions)} actions for {poses.shape[0]} poses")
        groups = [action_group(a) for a in actions]
        p2 = procrustes_error(poses, target[:, None]).amin(1)
        if self.published_p2 and len(set(groups)) > 1:
            p2 = p2.mean().expand_as(p2)
        columns = {"P1": 1000 * best_hypothesis(poses, target).error.double(), "P2": 1000 * p2.double()}
        if self.with_pck:
            columns["PCK"] = 100 * pck(poses, target).amax(1).double()
            columns["AUC"] = 100 * auc(poses, target).amax(1).double()
        if self.without_truth:
            for name, pose in (("mean P1", poses.mean(1)), ("median P1", poses.median(1).values)):
                columns[name] = 1000 * (pose - target).norm(dim=-1).mean(-1).double()
        for name, values in (columns | more).items():
            for group, value in zip(groups, values.tolist()):
                self.records.setdefault(group, {}).setdefault(name, []).append(value)

    def merge(self, other: HypothesisScores) -> None:
        """Add everything ``other`` (of another process) has seen."""
        for group, columns in other.records.items():
            for name, values in columns.items():
                self.records.setdefault(group, {}).setdefault(name, []).extend(values)

    def frames(self) -> int:
        """Poses seen."""
        return sum(len(columns["P1"]) for columns in self.records.values())

    def per_action(self) -> dict[str, dict[str, float]]:
        """{action group: {"P1": mm, "P2": mm, "PCK" and "AUC": percent, ...}}, sorted by name."""
        return {
            group: {name: math.fsum(v) / len(v) for name, v in self.records[group].items()}
            for group in sorted(self.records)
        }

    def average(self) -> dict[str, float]:
        """The plain mean over action groups of every column: the figure papers report."""
        table = list(self.per_action().values())
        return {name: math.fsum(row[name] for row in table) / len(table) for name in table[0]} if table else {}
