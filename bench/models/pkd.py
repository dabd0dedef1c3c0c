"""PKD at its Human3.6M size: one window, 32 and 256; a training iteration's forward and backward at 256."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create
from posekernels.ops.temporal_mlp import cost


def make() -> torch.nn.Module:
    """Weights as large as trained ones: those of a fresh network are 1e-9, and norms then amplify rounding."""
    torch.manual_seed(0)
    net = create("pkd")
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name not in ("transform", "inverse"):
                spread = tensor.shape[-1] ** -0.5 if name.endswith("weight") else 0.1
                tensor.normal_(float(name.endswith("scale")), spread)
    return net


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 50, 22, 3, generator=torch.Generator().manual_seed(0)) * 0.3,)


CASES = [
    ModelCase(
        "pkd",
        make=make,
        inputs=inputs,
        batches=(1, 32, 256),
        flops=lambda batch: cost.forecast_flops(batch, 66, 50, 10, 48, 12),
        training_batch=256,
    )
]
