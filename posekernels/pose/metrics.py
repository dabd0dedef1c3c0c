"""Errors of 3D poses, and their averages over actions and subjects as the papers report them.

All J joints count, the root included (with its target at 0). Predictions and targets are [..., J, 3] in any unit of
length, which the result keeps; ``PoseScores`` takes metres and reports millimetres. Everything runs on the tensors'
device. Source: data_h36m section 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..arrays import accepts_poses
from ..ops import procrustes_error


def _check(op: str, predicted: Tensor, target) -> None:
    if not isinstance(target, Tensor):
        raise TypeError(f"{op}: target must be of the kind of predicted, got {type(target).__qualname__}")
    if predicted.shape != target.shape or predicted.dim() < 2 or predicted.shape[-1] != 3:
        raise ValueError(
            f"{op}: predicted and target must both be [..., J, 3], got {list(predicted.shape)} and {list(target.shape)}"
        )


def _mean(errors: Tensor, per_frame: bool) -> Tensor:
    return errors.mean(-1) if per_frame else errors.mean()


@accepts_poses
def mpjpe(predicted: Tensor, target: Tensor, per_frame: bool = False) -> Tensor:
    """Mean Euclidean distance over frames and joints (protocol 1).

    Args:
        predicted, target: [..., J, 3].
        per_frame: return [...], the mean over joints only.
    """
    _check("mpjpe", predicted, target)
    return _mean((predicted - target).norm(dim=-1), per_frame)


@accepts_poses
def weighted_mpjpe(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``mpjpe`` with each distance times ``weights`` [..., J] before the mean (not divided by the weights' sum)."""
    _check("weighted_mpjpe", predicted, target)
    distances = (predicted - target).norm(dim=-1)
    if weights.shape != distances.shape:
        raise ValueError(f"weighted_mpjpe: weights must be {list(distances.shape)}, got {list(weights.shape)}")
    return (weights * distances).mean()


@accepts_poses
def p_mpjpe(predicted: Tensor, target: Tensor, per_frame: bool = False, published_degenerate: bool = False) -> Tensor:
    """``mpjpe`` after each frame's best similarity transform, scale included, reflections excluded (protocol 2).

    The op ``procrustes_error``, in the precision of the input.

    Args:
        predicted, target: [..., J, 3].
        per_frame: return [...].
        published_degenerate: NaN for a frame whose prediction or target has all joints in one point, as the published
            division by zero gives. By default such a frame gets its true optimum: the distance to the target's mean.
    Returns:
        A frame that holds NaN or infinity has NaN.
    """
    _check("p_mpjpe", predicted, target)
    errors = procrustes_error(predicted, target)
    if published_degenerate:
        point = [(x == x[..., :1, :]).all(-1).all(-1) for x in (predicted, target)]
        errors = torch.where(point[0] | point[1], math.nan, errors)
    return errors if per_frame else errors.mean()


@accepts_poses
def n_mpjpe(predicted: Tensor, target: Tensor, per_frame: bool = False) -> Tensor:
    """``mpjpe`` after each frame's best scale about the origin, s = <p, t> / <p, p>; no centring (protocol 3).

    A frame predicted as all zeros keeps s = 1 (the published division by zero gives NaN; no scale changes its error).
    """
    _check("n_mpjpe", predicted, target)
    power = predicted.square().sum((-2, -1), keepdim=True)
    scale = (predicted * target).sum((-2, -1), keepdim=True) / torch.where(power == 0, 1.0, power)
    return mpjpe(torch.where(power == 0, 1.0, scale) * predicted, target, per_frame)


@accepts_poses
def mean_velocity_error(predicted: Tensor, target: Tensor) -> Tensor:
    """``mpjpe`` of the frame-to-frame differences of one sequence [T, J, 3], per frame, not per second (MPJVE).

    Raises:
        ValueError: fewer than two frames.
    """
    _check("mean_velocity_error", predicted, target)
    if predicted.dim() < 3 or predicted.shape[-3] < 2:
        raise ValueError(f"mean_velocity_error: needs at least 2 frames [T, J, 3], got {list(predicted.shape)}")
    return mpjpe(predicted.diff(dim=-3), target.diff(dim=-3))


def action_group(action: str) -> str:
    """The group of an action: its first word ("Walking 1" -> "Walking")."""
    return action.split(" ")[0]


def published_p2(errors: Tensor, groups: Sequence[str], batches: int | Sequence[int]) -> Tensor:
    """P2 as HTNet, WS-ANL, the Strided Transformer and DiffPose (single frames) publish it.

    A published flaw: each pose of a batch that mixes action groups counts with the batch's mean, so that the figures
    of actions depend on the batch size. The mean over all poses stays what it is.

    Args:
        errors: [N] of all poses, in the order of the test. groups: [N] their action groups.
        batches: poses in a batch; the last one may be smaller. Or the size of each batch, as for ``torch.split``.
    Returns:
        [N] errors to average by action.
    """
    groups = list(groups)
    if errors.dim() != 1 or len(groups) != len(errors):
        raise ValueError(f"published_p2: errors must be [N] with N groups, got {list(errors.shape)}, {len(groups)}")
    parts, first = [], 0
    for part in errors.split(batches if isinstance(batches, int) else list(batches)):
        mixed = len(set(groups[first : first + len(part)])) > 1
        parts.append(part.mean().expand_as(part) if mixed else part)
        first += len(part)
    return torch.cat(parts)


COLUMNS = ("P1", "P2", "P3", "MPJVE")
MEANINGS = {
    "P1": "MPJPE",
    "P2": "P-MPJPE, aligned",
    "P3": "N-MPJPE, scaled",
    "MPJVE": "of the step from frame to frame",
}


@dataclass
class PoseScores:
    """Sums up sequences into the published tables: per action group, their mean, each subject alone.

    Within a group each sequence counts by its number of frames T (MPJVE too, although it has T - 1 differences); the
    reported figure is the plain mean over groups. Sums are exact (``math.fsum``), so the order of the sequences and how
    they were split over processes cannot change a digit. All results in millimetres.
    """

    records: list[tuple[str, str, int, tuple[float, ...]]] = field(default_factory=list)

    def add(self, predicted: Tensor, target: Tensor, action: str, subject: str = "") -> None:
        """Add one sequence (or batch) in metres.

        Args:
            predicted, target: [T, J, 3] metres; MPJVE needs one whole sequence in order (undefined for T = 1).
            action: name, with or without a take number. subject: for ``by_subject``.
        """
        if predicted.dim() != 3 or predicted.shape[0] == 0:
            raise ValueError(f"PoseScores: predicted must be [T >= 1, J, 3], got {list(predicted.shape)}")
        frames = predicted.shape[0]
        values = [metric(predicted, target) for metric in (mpjpe, p_mpjpe, n_mpjpe)]
        values.append(mean_velocity_error(predicted, target) if frames > 1 else values[0] * math.nan)
        values_mm = (torch.stack(values).double() * 1000).tolist()
        self.records.append((subject, action_group(action), frames, tuple(values_mm)))

    def merge(self, other: PoseScores) -> None:
        """Add everything ``other`` (of another process) has seen."""
        self.records += other.records

    def frames(self) -> int:
        """Frames seen."""
        return sum(r[2] for r in self.records)

    def subjects(self) -> list[str]:
        """Subjects seen, sorted."""
        return sorted({r[0] for r in self.records})

    def per_action(self, subject: str | None = None) -> dict[str, dict[str, float]]:
        """{action group: {column of ``COLUMNS``: millimetres}}, sorted by name; of one subject when it is given."""
        records = [r for r in self.records if subject is None or r[0] == subject]
        table = {}
        for group in sorted({r[1] for r in records}):
            mine = [r for r in records if r[1] == group]
            table[group] = {c: _weighted(mine, i) for i, c in enumerate(COLUMNS)}
        return table

    def average(self, subject: str | None = None) -> dict[str, float]:
        """{column: millimetres}: the plain mean over action groups, the figure papers report."""
        table = self.per_action(subject)
        return {c: math.fsum(row[c] for row in table.values()) / len(table) if table else math.nan for c in COLUMNS}

    def frame_average(self, subject: str | None = None) -> dict[str, float]:
        """{column: millimetres}: the mean over all frames, whatever their action."""
        records = [r for r in self.records if subject is None or r[0] == subject]
        return {c: _weighted(records, i) for i, c in enumerate(COLUMNS)}

    def by_subject(self) -> dict[str, dict[str, dict[str, float]]]:
        """{subject: its ``per_action``}."""
        return {s: self.per_action(s) for s in self.subjects()}


def _weighted(records: list, column: int) -> float:
    """The mean weighted by frames; a velocity of a single frame, which is undefined, does not count."""
    if column == COLUMNS.index("MPJVE"):
        records = [r for r in records if r[2] > 1]
    frames = sum(r[2] for r in records)
    return math.fsum(r[3][column] * r[2] for r in records) / frames if frames else math.nan
