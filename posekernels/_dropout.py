"""Dropout whose mask is a function of (seed, stream, element), the same in backward, in a rerun, on every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from ._philox import philox4x32
from .checks import check_number

_DOMAIN = 0x44524F50  # "DROP": keeps these counters apart from those of other ops under the same seed


def threshold(rate: float) -> int:
    """Words below this are dropped: round(rate * 2**32)."""
    return round(rate * 2**32)


def kernel_arguments(rate: float, seed: int) -> tuple[int, int, float]:
    """(seed, threshold, factor) as the compiled kernels take them."""
    return seed, threshold(rate), 1 / (1 - rate)


def keep_mask(shape: tuple[int, ...], rate: float, seed: int, stream: int, device: torch.device | str) -> Tensor:
    """[*shape] bool, True where an element survives.

    Element i (row-major) takes word ``i % 4`` of ``philox4x32((i // 4 low, i // 4 high, stream, "DROP"), seed)`` and
    survives unless the word is below ``rate * 2**32``.

    Args:
        rate: share of elements dropped, in [0, 1).
        seed: 64 bits.
        stream: tells apart the masks that one call draws.
    """
    count = torch.Size(shape).numel()
    block = torch.arange((count + 3) // 4, dtype=torch.int64, device=device)
    fixed = [torch.full_like(block, word) for word in (stream, _DOMAIN)]
    words = torch.stack(philox4x32((block & 0xFFFFFFFF, block >> 32, *fixed), seed), dim=-1)
    return (words.flatten()[:count] >= threshold(rate)).view(shape)


def dropout(x: Tensor, rate: float, seed: int, stream: int = 0) -> Tensor:
    """``x`` with a share ``rate`` of its elements 0 and the others scaled by 1 / (1 - rate)."""
    if rate == 0:
        return x
    return x.masked_fill(~keep_mask(tuple(x.shape), rate, seed, stream, x.device), 0) / (1 - rate)


def check_rate(op: str, name: str, rate: float) -> None:
    """Raises TypeError or ValueError unless it is a number with 0 <= rate < 1."""
    if type(rate) is float and 0 <= rate < 1:
        return
    check_number(op, name, rate)
    if not 0 <= rate < 1:
        raise ValueError(f"{op}: {name} must be at least 0 and below 1, got {rate}")


def draw_seed() -> int:
    """A fresh 63-bit seed from PyTorch's CPU generator, so ``torch.manual_seed`` fixes it."""
    return int(torch.randint(2**63 - 1, (), dtype=torch.int64))
