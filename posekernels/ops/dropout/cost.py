"""What one ``dropout`` must compute and move; the benchmark's floor."""

from __future__ import annotations


def flops(count: int) -> int:
    """One product per element. Drawing the mask, about 20 integer operations per element, is not counted."""
    return count


def bytes_moved(count: int, element: int = 4) -> int:
    """Bytes read and written at least once, ``element`` bytes to a number."""
    return 2 * element * count
