"""Strided Transformer (Li et al., IEEE TMM 2022): what its paper and program say about training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from posekernels.pose.metrics import action_group, mpjpe, p_mpjpe


class ActionErrors:
    """P1 and P2 by action, in millimetres, as the published program adds them up: batch by batch, sample by sample.

    Args:
        published_mixed_batch_p2: reproduce the published flaw: in a batch that holds more than one action label
            ("Walking" and "Walking 1" are two), every sample is credited with the batch's mean P2. Published digits
            come from batches of 256 in order. Off, each sample counts as itself.
    """

    def __init__(self, published_mixed_batch_p2: bool = False):
        self.published_mixed_batch_p2 = published_mixed_batch_p2
        self.samples: dict[str, list[tuple[float, float]]] = {}

    def add(self, predicted: Tensor, target: Tensor, labels: Sequence[str]) -> None:
        """Add a batch: [B, J, 3] metres twice, root at 0, and the B samples' action labels."""
        if len(labels) != len(predicted):
            raise ValueError(f"ActionErrors: {len(predicted)} samples need as many labels, got {len(labels)}")
        p1 = mpjpe(predicted, target, per_frame=True).double() * 1000
        p2 = p_mpjpe(predicted, target, per_frame=True).double() * 1000
        if self.published_mixed_batch_p2 and len(set(labels)) > 1:
            p2 = p2.mean().expand_as(p2)
        for label, one, two in zip(labels, p1.tolist(), p2.tolist()):
            self.samples.setdefault(action_group(label), []).append((one, two))

    def per_action(self) -> dict[str, dict[str, float]]:
        """{action: {"P1": mm, "P2": mm}}, sorted by action: the mean over its samples."""
        return {
            action: {name: math.fsum(s[i] for s in samples) / len(samples) for i, name in enumerate(("P1", "P2"))}
            for action, samples in sorted(self.samples.items())
        }

    def average(self) -> dict[str, float]:
        """{"P1": mm, "P2": mm}: the plain mean over actions, the figure the paper reports."""
        table = self.per_action()
        return {
            n: math.fsum(row[n] for row in table.values()) / len(table) if table else math.nan for n in ("P1", "P2")
        }
