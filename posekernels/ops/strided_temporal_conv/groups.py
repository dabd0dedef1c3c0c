"""``strided_temporal_conv`` as the adapters of both GPU backends take it: groups, each with sizes of its own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .reference import at


class Group(NamedTuple):
    """One network's layer: y = lrelu(scale * (windows(x) weight' + bias) + shift) + residual[:, tap::stride]."""

    x: Tensor  # [B, T, Ci]
    weight: Tensor  # [Co, Ci, w] or [Co, Ci]
    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    residual: Tensor | None  # [B, T / w * stride, Co]
    slope: float
    stride: int
    tap: int


def rows_of(x: Tensor, width: int) -> tuple[Tensor, int]:
    """x with its windows in rows, and the distance of the rows: a slice of wider rows is not copied."""
    rows_apart = x.shape[1] == width and x.stride(2) == 1 and (width == 1 or x.stride(1) == x.shape[2])
    return (x, x.stride(0)) if rows_apart else (x.contiguous(), width * x.shape[2])


def groups_of(x, weight, bias, scale, shift, residual, slope, stride, tap) -> list[Group]:
    """The raw op's arguments, group by group."""
    lists = (bias, scale, shift, residual)
    return [Group(x[i], weight[i], *(at(v, i) for v in lists), slope, stride, tap) for i in range(len(x))]
