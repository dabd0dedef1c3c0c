"""Evaluation of 2D-to-3D lifting, clip by clip: the same figures on one process and on many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from posekernels.pose.metrics import COLUMNS, MEANINGS, PoseScores, action_group, p_mpjpe, published_p2

from .data.clips import Clip


@dataclass
class Report:
    """Figures of one evaluation, in millimetres unless their name says otherwise.

    Args:
        rows: {action group: {column: value}}.
        figures: {column: value}, the plain mean over groups: the number that papers report.
        by_subject: the same for every test subject alone.
    """

    rows: dict[str, dict[str, float]]
    figures: dict[str, float]
    by_subject: dict[str, Report] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: PoseScores) -> Report:
        alone = {s: cls(scores.per_action(s), scores.average(s)) for s in scores.subjects()}
        return cls(scores.per_action(), scores.average(), alone)

    def table(self, title: str, baseline: Report | None = None) -> str:
        """Lines for a terminal: one per action, the average, that of ``baseline``, and what the columns are."""
        columns = list(self.figures)
        width = max([len("mean pose"), *map(len, self.rows)]) + 2
        cells = [max(9, len(c) + 2) for c in columns]

        def line(name: str, values: dict[str, float]) -> str:
            digits = {c: 2 if c == "MPJVE" else 1 for c in columns}
            return f"{name:<{width}}" + "".join(f"{values[c]:>{w}.{digits[c]}f}" for c, w in zip(columns, cells))

        rule = "-" * (width + sum(cells))
        lines = [title, f"{'mm':<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(columns, cells)), rule]
        lines += [line(name, values) for name, values in self.rows.items()]
        lines += [rule, line("average", self.figures)]
        if baseline is not None and set(columns) <= set(baseline.figures):
            lines.append(line("mean pose", baseline.figures))
        meanings = [f"{c}: {MEANINGS[c]}" for c in columns if c in MEANINGS]
        lines += ["; ".join(meanings)] if meanings else []
        return "\n".join(lines)


def target_of(clip: Clip) -> np.ndarray:
    """[T, J, 3] metres relative to the root, the root at 0: what lifters are trained and measured on.

    Raises:
        ValueError: a clip without ground truth.
    """
    if clip.positions is None:
        raise ValueError(f"{clip.subject} {clip.action}, camera {clip.camera}: no ground truth to compare with")
    target = clip.positions.copy()
    target[:, 0] = 0
    return target


def evaluate_clips(
    predict: Callable[[Clip], np.ndarray | Tensor], clips: Sequence[Clip], place, published_batch: int | None = None
) -> PoseScores:
    """Score ``predict`` on ``clips``, those of ``place.rank`` here and the rest elsewhere.

    Args:
        predict: clip -> [T, J, 3] metres relative to the root; joint 0 counts too, its target is 0.
        place: a ``train.place.Place`` (rank, world, gather).
        published_batch: P2 by ``metrics.published_p2`` over batches of so many frames of the clips, end to end.
    Returns:
        The same scores on every process, whatever their number.
    """
    mine = {}
    for index in range(place.rank, len(clips), place.world):
        clip, scores = clips[index], PoseScores()
        predicted, target = torch.as_tensor(predict(clip)).detach().to("cpu", torch.float32), target_of(clip)
        with torch.autocast("cpu", enabled=False):  # figures are float32 whatever the network ran in
            scores.add(predicted, torch.from_numpy(target), clip.action, clip.subject)
            aligned = p_mpjpe(predicted, torch.from_numpy(target), per_frame=True) if published_batch else None
        mine[index] = scores, aligned
    merged = {k: v for part in place.gather(mine) for k, v in part.items()}
    scores = PoseScores()
    for index in sorted(merged):
        scores.merge(merged[index][0])
    if published_batch:
        _mix(scores, [merged[index][1] for index in sorted(merged)], published_batch)
    return scores


def _mix(scores: PoseScores, aligned: list[Tensor], batch: int) -> None:
    """Let P2 of ``scores``, a record per clip, be the published one; ``aligned``: errors of every clip's frames."""
    groups = [action_group(group) for _, group, frames, _ in scores.records for _ in range(frames)]
    errors = published_p2(1000 * torch.cat(aligned).double(), groups, batch)
    at, records = COLUMNS.index("P2"), []
    for (subject, group, frames, values), p2 in zip(scores.records, errors.split([len(a) for a in aligned])):
        records.append((subject, group, frames, (*values[:at], p2.mean().item(), *values[at + 1 :])))
    scores.records = records


def evaluate_pairs(
    predict: Callable[[Clip], tuple[Tensor, Tensor]],
    clips: Sequence[Clip],
    place,
    published_batch: int | None = None,
) -> tuple[PoseScores, PoseScores]:
    """``evaluate_clips`` of each of the two results of ``predict``, which runs once per clip."""
    second: dict[int, Tensor] = {}

    def first(clip: Clip) -> Tensor:
        one, other = predict(clip)
        second[id(clip)] = other.cpu()
        return one

    before = evaluate_clips(first, clips, place, published_batch)
    return before, evaluate_clips(lambda clip: second[id(clip)], clips, place, published_batch)


def mean_pose(clips: Sequence[Clip]) -> np.ndarray:
    """[J, 3]: the mean root-relative pose over all frames of ``clips``, in camera space."""
    total = sum(target_of(c).sum(0, dtype=np.float64) for c in clips)
    return (total / sum(len(c.positions) for c in clips)).astype(np.float32)


def evaluate_mean_pose(train: Sequence[Clip], test: Sequence[Clip], place) -> PoseScores:
    """The baseline that looks at nothing: every frame of ``test`` is the mean pose of ``train``."""
    pose = mean_pose(train)
    return evaluate_clips(lambda clip: np.broadcast_to(pose, clip.positions.shape).copy(), test, place)
