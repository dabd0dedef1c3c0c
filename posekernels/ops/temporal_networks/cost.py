"""What one forward ``temporal_networks`` must compute and move; the benchmark's floor."""

from __future__ import annotations

Layers = list[tuple[int, int, int]]  # (Ci, Co, width) of each layer of one network


def flops(B: int, frames: int, networks: list[Layers]) -> int:
    """Operations of the products; ``frames`` are those of every network's input."""
    total = 0
    for layers in networks:
        T = frames
        for Ci, Co, width in layers:
            total += 2 * B * T * Ci * Co
            T //= width
    return total


def bytes_moved(B: int, frames: int, networks: list[Layers], element: int = 4) -> int:
    """Bytes of weights, inputs and results, read and written once; what lies between layers stays in the cache."""
    numbers = 0
    for layers in networks:
        T = frames
        numbers += B * T * layers[0][0]
        for Ci, Co, width in layers:
            numbers += Ci * Co * width + 2 * Co
            T //= width
        numbers += B * T * layers[-1][1]
    return element * numbers
