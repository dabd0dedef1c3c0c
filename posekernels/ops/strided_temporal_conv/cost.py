"""What one forward ``strided_temporal_conv`` must compute and move; the benchmark's floor."""

from __future__ import annotations


def flops(B: int, T: int, width: int, channels: list[tuple[int, int]]) -> int:
    """Operations of the products, ``channels`` being (Ci, Co) of each group."""
    return sum(2 * B * T * Ci * Co for Ci, Co in channels)


def bytes_moved(
    B: int, T: int, width: int, channels: list[tuple[int, int]], element: int = 4, *, residual: bool = False
) -> int:
    """Bytes read and written at least once, ``element`` bytes to a number."""
    frames = T // width
    numbers = sum(B * T * Ci + (2 if residual else 1) * B * frames * Co + width * Ci * Co for Ci, Co in channels)
    return element * numbers
