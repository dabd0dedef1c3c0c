"""Dropout whose mask is a function of (seed, stream, element), the same in backward, in a rerun, on every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from ._philox import philox4x32
from .checks import check_number, seed_of

Seed = int | Tensor  # 64 bits; a tensor is [] int64, on the device of what is dropped
_DOMAIN = 0x44524F50  # "DROP": keeps these counters apart from those of other ops under the same seed


def threshold(rate: float) -> int:
    """Words below this are dropped: round(rate * 2**32), and what 32 bits hold."""
    return min(round(rate * 2**32), 2**32 - 1)


def kernel_arguments(rate: float, seed: Seed) -> tuple[int, int, float]:
    """(seed, threshold, factor) as the kernels on a CPU take them."""
    return int(seed), threshold(rate), 1 / (1 - rate)


def seed_tensor(seed: Seed, device: torch.device) -> Tensor:
    """[] int64 on ``device``."""
    if isinstance(seed, Tensor):
        return seed
    return torch.full((), seed, dtype=torch.int64, device=device)


def gpu_arguments(rate: float, seed: Seed, device: torch.device) -> tuple[Tensor | None, int, float]:
    """(seed, threshold, factor) as the kernels on a GPU take them.

    The seed lies in memory: a CUDA graph replays with what is there then, and no kernel is compiled for its value.
    Nothing is there, None, where nothing is dropped.
    """
    return seed_tensor(seed, device) if rate else None, threshold(rate), 1 / (1 - rate)


def keep_mask(shape: tuple[int, ...], rate: float, seed: Seed, stream: int, device: torch.device | str) -> Tensor:
    """[*shape] bool, True where an element survives.

    Element i (row-major) takes word ``i % 4`` of ``philox4x32((i // 4 low, i // 4 high, stream, "DROP"), seed)`` and
    survives unless the word is below ``rate * 2**32``.

    Args:
        rate: share of elements dropped, in [0, 1).
        seed: 64 bits, a number or a tensor of one.
        stream: tells apart the masks that one call draws.
    """
    count = torch.Size(shape).numel()
    block = torch.arange((count + 3) // 4, dtype=torch.int64, device=device)
    fixed = [torch.full_like(block, word) for word in (stream, _DOMAIN)]
    words = torch.stack(philox4x32((block & 0xFFFFFFFF, block >> 32, *fixed), seed), dim=-1)
    return (words.flatten()[:count] >= threshold(rate)).view(shape)


def dropout(x: Tensor, rate: float, seed: Seed, stream: int = 0) -> Tensor:
    """``x`` with a share ``rate`` of its elements 0 and the others scaled by 1 / (1 - rate)."""
    if rate == 0:
        return x
    return x.masked_fill(~keep_mask(tuple(x.shape), rate, seed, stream, x.device), 0) / (1 - rate)


def check_rate(op: str, name: str, rate: float) -> None:
    """Raises TypeError or ValueError unless it is a number with 0 <= rate < 1."""
    if type(rate) is float and 0 <= rate < 1:
        return
    if not isinstance(rate, float):
        check_number(op, name, rate)
    if not 0 <= rate < 1:
        raise ValueError(f"{op}: {name} must be at least 0 and below 1, got {rate}")


def draw_seed(device: torch.device) -> Seed:
    """A fresh 63-bit seed from PyTorch's generator of ``device``, so ``torch.manual_seed`` fixes it.

    A number on a CPU. On a GPU a tensor, which nobody waits for; in a CUDA graph, every replay draws another.
    """
    seed = torch.randint(2**63 - 1, (), dtype=torch.int64, device=device)
    return int(seed) if device.type == "cpu" else seed


def mask_seed(op: str, seed: Seed, like: Tensor) -> Seed:
    """``seed`` as a raw op takes it: a signed integer, or a tensor of one int64 on the device of ``like``.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if not isinstance(seed, Tensor):
        return seed_of(op, seed)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ValueError(f"{op}: seed must be one int64, got {seed.dtype} {list(seed.shape)}")
    if seed.device != like.device:
        raise ValueError(f"{op}: seed must be on {like.device}, got one on {seed.device}")
    return seed
