"""Small layers that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: drops a branch for whole samples (axis 0) in training, scaling the survivors by 1/keep."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        mask = x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * mask / (1 - self.rate)


class Mlp(nn.Module):
    """linear, GELU (erf), dropout, linear, dropout over the last axis."""

    def __init__(self, features: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(h), self.dropout, self.training)


def folded_batch_norm(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """(scale, shift), [C] each: what ``norm`` does in evaluation. Kept until a parameter or statistic changes.

    An edit through ``.data`` does not count as a change; ``load_state_dict``, optimisers and training passes do.
    """
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if torch.is_grad_enabled() and norm.weight.requires_grad:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return scale, norm.bias - norm.running_mean * scale
    state = tuple((t.data_ptr(), t._version) for t in parts)
    if getattr(norm, "_folded_state", None) != state:
        with torch.no_grad():
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            norm._folded = scale, norm.bias - norm.running_mean * scale
        norm._folded_state = state
    return norm._folded


class AnnotatedNorm(nn.Module):
    """The Annotated Transformer's norm over the last axis: *unbiased* std, eps *outside* the root (no LayerNorm)."""

    def __init__(self, features: int, eps: float = 1e-6):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return self.gain * (x - mean) / (std + self.eps) + self.shift
