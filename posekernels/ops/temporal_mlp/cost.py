"""What ``temporal_mlp`` and the forecast around it cost: see README.md beside this file."""

from __future__ import annotations


def flops(B: int, C: int, T: int, N: int, pre: bool, mix: str = "temporal") -> float:
    """Of the maps of N blocks, forward, a multiply-add counted as two; norms are a few per cent more."""
    second = C * T * (T if mix == "temporal" else C)
    return 2.0 * B * N * (second + (C * T * T if pre else 0))


def forecast_flops(B: int, C: int, T: int, S: int, N: int, side_N: int = 0, pre: bool = True) -> float:
    """Of a whole network: transform, input layer, stacks, and per stack the inverse (first) and the output layer."""
    ends = C * T * T + C * C * T + (2 if side_N else 1) * (C * T * S + C * C * S)
    return flops(B, C, T, N, pre) + flops(B, C, T, side_N, False) + 2.0 * B * ends


def parameters(C: int, T: int, N: int, pre: bool) -> int:
    """Numbers in a stack with maps over time and the spatial norm."""
    return N * (T * T + T + 2 * C + (T * T + 3 * T if pre else 0))


def bytes_moved(B: int, C: int, T: int, N: int, pre: bool, itemsize: int) -> float:
    """Read or written at least once: the state in and out, the parameters."""
    return float(itemsize) * (2 * B * C * T + parameters(C, T, N, pre))
