"""What one forward ``graph_conv`` must compute and move; the benchmark's floor."""

from __future__ import annotations


def flops(B: int, J: int, Cin: int, Cout: int, K: int, diagonal: int = 0) -> int:
    """Operations of the forward pass, ``diagonal`` of the K matrices having nothing off their diagonal."""
    return 2 * B * J * Cin * Cout * K + 2 * B * J * Cout * ((K - diagonal) * J + diagonal)


def bytes_moved(
    B: int, J: int, Cin: int, Cout: int, K: int, element: int = 4, *, modulated: bool = False, residual: bool = False
) -> int:
    """Bytes read and written at least once, ``element`` bytes to a number."""
    parameters = K * Cin * Cout + K * J * J + Cout + (J * Cout if modulated else 0)
    return element * (B * J * (Cin + (2 if residual else 1) * Cout) + parameters)
