"""What ``auto`` makes of compiled kernels on the card that is not there."""

from __future__ import annotations

import os
import tempfile
from unittest import mock

import torch

from posekernels import _dispatch, _first_use, ops
from tests.ptx import mutants
from tests.ptx.device import gpu


def three_calls(broken: bool) -> tuple[list[int], list[str], bool]:
    """Runs a graph convolution three times, with Triton's kernel and the reference alone.

    Returns:
        launches after each call; verdicts; whether all results are the reference's.
    """
    change = mutants.MUTANTS["swapped words of an mma operand"].ptx[1] if broken else None
    x, weight, adjacency = torch.randn(5, 17, 16), torch.randn(1, 16, 32), torch.randn(1, 17, 17)
    x, weight, adjacency = (t.bfloat16() for t in (x, weight, adjacency))
    two = {name: _dispatch.OPS["graph_conv"][name] for name in ("triton", "reference")}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"XDG_CACHE_HOME": folder}),
        mock.patch.object(_first_use, "_card", lambda device: "a card"),
        mock.patch.dict(_dispatch.OPS, {"graph_conv": two}),
        gpu(change=change) as device,
    ):
        _first_use._verdicts.cache_clear()
        want = ops.graph_conv(x, weight, adjacency, backend="reference")
        counts, right = [], True
        for _ in range(3):
            got = ops.graph_conv(x, weight, adjacency, backend="auto")
            right &= _first_use.difference(got, want) is None
            counts.append(len(device.launches))
        found = dict(_first_use._verdicts())
        _first_use._verdicts.cache_clear()
    return counts, [f"{key}: {verdict}" for key, verdict in found.items()], right
