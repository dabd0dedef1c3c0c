"""What one forward ``relative_encoding`` must compute and move; the benchmark's floor."""

from __future__ import annotations


def flops(B: int, T: int, F: int, sizes: list[int]) -> int:
    """Two subtractions per coordinate of each part's joints."""
    return 2 * B * T * F * sum(sizes)


def bytes_moved(B: int, T: int, J: int, F: int, sizes: list[int], element: int = 4) -> int:
    """Bytes read and written at least once, ``element`` bytes to a number."""
    return element * (B * T * J * F + 3 * B * T * F * sum(sizes))
