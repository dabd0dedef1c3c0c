"""Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller in tensor arithmetic: the definition of our random numbers.

Counter-based: a number is a function of (seed, where it is used) alone, so results do not depend on batch, chunk,
order, backend or device. The integers are the same everywhere, bit for bit; the normals to 1e-6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b. int64 overflows at 63 bits, so b goes in halves of 16."""
    low = a * (b & 0xFFFF)
    high = a * (b >> 16) + (low >> 16)
    return high >> 16, ((high << 16) | (low & 0xFFFF)) & _MASK


Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Words, seed: int | Tensor) -> Words:
    """Four random words for each counter of four words; int64 tensors that hold 32-bit values, broadcast.

    Args:
        counter: the least significant word first.
        seed: the 64-bit key, its low half first; taken modulo 2**64. A number, or a tensor of one int64.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals, float64, for each pair of random words.

    Of each word the upper 24 bits count, so that the uniform numbers are exact in float32 too and every backend takes
    the logarithm of the same value: u = ((a >> 8) + 1) / 2**24 in (0, 1], angle = 2 pi (b >> 8) / 2**24. No normal
    passes 5.77.
    """
    radius = (-2 * torch.log(((a >> 8) + 1).double() / 2**24)).sqrt()
    angle = (b >> 8).double() * (2 * math.pi / 2**24)
    return radius * angle.cos(), radius * angle.sin()


def normals(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> Tensor:
    """[..., 4] standard normals, float64: words (0, 1) make numbers (0, 1), words (2, 3) make (2, 3)."""
    a, b, c, d = philox4x32(counter, seed)
    return torch.stack((*box_muller(a, b), *box_muller(c, d)), dim=-1)
