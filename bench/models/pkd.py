"""PKD and siMLPe at their Human3.6M size: one window, 32 and 256; a training iteration (PKD's has two steps) at 256."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from posekernels.models import create
from posekernels.ops.temporal_mlp import cost
from posekernels.train.recipes.pkd import first_losses, second_losses


def make(name: str = "pkd") -> torch.nn.Module:
    """Weights as large as trained ones: those of a fresh network are 1e-9, and norms then amplify rounding."""
    torch.manual_seed(0)
    net = create(name)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name not in ("transform", "inverse"):
                spread = tensor.shape[-1] ** -0.5 if name.endswith("weight") else 0.1
                tensor.normal_(float(name.endswith("scale")), spread)
    return net


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 50, 22, 3, generator=torch.Generator().manual_seed(0)) * 0.3,)


def target(inputs) -> torch.Tensor:
    """[B, 10, 22, 3]: what the training iteration is to predict."""
    return 0.9 * inputs[0][:, -1:].expand(-1, 10, -1, -1)


CASES = [
    ModelCase(
        "pkd",
        make=make,
        inputs=inputs,
        batches=(1, 32, 256),
        flops=lambda batch: cost.forecast_flops(batch, 66, 50, 10, 48, 12),
        training_batch=256,
        losses=(
            lambda net, inputs: first_losses(net, *inputs, target(inputs), 0.1)["loss"],
            lambda net, inputs: second_losses(net, *inputs, target(inputs))["loss"],
        ),
    ),
    ModelCase(
        "simlpe",
        make=lambda: make("simlpe"),
        inputs=inputs,
        batches=(1, 32, 256),
        flops=lambda batch: cost.forecast_flops(batch, 66, 50, 10, 48, pre=False),
        training_batch=256,
    ),
]
