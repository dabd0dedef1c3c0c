"""``dropout`` of HTNet's hidden units (256 poses), of a small tensor, and an awkward size; PyTorch's own beside it."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from bench.cases import OpCase
from posekernels.ops import dropout
from posekernels.ops.dropout import cost


def case(rows: int, C: int, **extra) -> OpCase:
    def make():
        return {"x": torch.randn(rows, C, generator=torch.Generator().manual_seed(0))}

    def call(i, backend):
        return dropout(i["x"], 0.1, seed=1, backend=backend)

    # "eager" is the definition, counters in tensor arithmetic; what users have is the peer.
    peers = {"F.dropout": lambda i: F.dropout(i["x"], 0.1)}
    moved = partial(cost.bytes_moved, rows * C)
    size = f"{rows}x{C}"
    return OpCase("dropout", size, make, call, cost.flops(rows * C), moved, ("x",), peers, ("F.dropout",), **extra)


CASES = [case(256 * 17, 1024), case(17, 384, quick=True), case(31, 33)]
