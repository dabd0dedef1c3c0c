"""The definition of ``norm_activation``: plain differentiable PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._dropout import Seed, dropout
from ..._recompute import gradients


def norm_activation(
    x, weight, bias, eps: float, slope: float, rate: float, seed: Seed
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean [C], biased variance [C]) of [..., C]; only y has a gradient."""
    var, mean = torch.var_mean(x.flatten(0, -2), 0, correction=0)
    z = (x - mean) * torch.rsqrt(var + eps) * weight + bias
    return dropout(F.leaky_relu(z, slope), rate, seed).contiguous(), mean.detach(), var.detach()


def norm_activation_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    options = eps, slope, rate, seed
    return tuple(gradients(lambda *tensors: norm_activation(*tensors, *options), (x, weight, bias), (grad, None, None)))
