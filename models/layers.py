"""Small layers that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.ops import Layer, annotated_norm, dropout
from posekernels.prepared import derived


class KeepsBuffers(nn.Module):
    """A module whose own buffers move with its parameters but keep their dtype: they would not survive 16 bits."""

    def _apply(self, fn, recurse=True):
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            if moved.dtype != buffer.dtype:  # the old one has the digits that are lost, but on "meta", where none has
                self._buffers[name] = (moved if buffer.is_meta else buffer).to(moved.device, buffer.dtype)
        return self


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
        h = dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return dropout(self.fc2(h), self.dropout, self.training)


def folded_batch_norm(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """(scale, shift), [C] each: what ``norm`` does in evaluation. Under ``torch.no_grad`` kept until that changes."""

    def fold() -> tuple[Tensor, Tensor]:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return scale, norm.bias - norm.running_mean * scale

    if torch.is_grad_enabled():
        return fold()
    # PyTorch's batch norm writes its statistics unseen; the counter beside them does show that it did.
    statistics = norm.running_mean, norm.running_var, norm.num_batches_tracked
    return derived("folded", fold, norm.weight, norm.bias, *statistics)


def folded_layer(
    layer: nn.Linear | nn.Conv1d,
    norm: nn.BatchNorm1d | None = None,
    negative_slope: float = 1.0,
    residual: int | None = None,
    tap: int = 0,
) -> Layer:
    """``lrelu(norm(layer(x))) + residual`` in evaluation, as ``temporal_networks`` takes it."""
    bias = layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
    scale, shift = torch.ones_like(bias), bias
    if norm is not None:
        scale, shift = folded_batch_norm(norm)
        shift = shift + scale * bias
    return Layer(layer.weight, torch.stack((scale, shift)), negative_slope, residual, tap)


class AnnotatedNorm(nn.Module):
    """The Annotated Transformer's norm over the last axis: *unbiased* std, eps *outside* the root (no LayerNorm)."""

    def __init__(self, features: int, eps: float = 1e-6):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return annotated_norm(x, self.gain, self.shift, eps=self.eps)
