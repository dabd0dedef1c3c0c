"""What one forward ``norm_activation`` must compute and move; the benchmark's floor."""

from __future__ import annotations


def flops(rows: int, C: int) -> int:
    """Two passes for the statistics (a subtraction, a product and two sums), then norm, activation and mask."""
    return 9 * rows * C


def bytes_moved(rows: int, C: int, element: int = 4) -> int:
    """Bytes read and written at least once, ``element`` bytes to a number."""
    return element * (2 * rows * C + 4 * C)
