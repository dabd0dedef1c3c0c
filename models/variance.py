"""The variance models of WS-ANL (Zeng et al., 2024): how large a lifter's error will be, per joint, from its input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.arrays import in_autocast_dtype
from posekernels.ops import Layer, TemporalNetworks, dropout, temporal_networks
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.prepared import PreparedWeights

from .graph import ModulatedGCN
from .layers import folded_layer


class VarianceGCN(ModulatedGCN):
    """The variance model beside HTNet: [B, T, J, 2] -> [B, T, J, 1], the error relative to its mean over a data set.

    Published quirk: called a variance, used as a standard deviation; unbounded, so it can come out negative.

    With ``hidden=128, outputs=3, skeleton=H36M_16`` this is the lifter of the original Modulated GCN.
    """

    def __init__(self, hidden: int = 256, depth: int = 4, outputs: int = 1, skeleton: Skeleton = H36M_17):
        super().__init__(hidden, outputs, weights=2, depth=depth, skeleton=skeleton)


class _LinearNormed(nn.Module):
    """linear, batch norm, ReLU, dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.norm = nn.BatchNorm1d(out_features)
        self.dropout = dropout

    def folded(self, residual: int | None = None) -> Layer:
        return folded_layer(self.linear, self.norm, 0.0, residual)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(F.relu(self.norm(self.linear(x))), self.dropout, self.training)


class _LinearResidual(nn.Module):
    def __init__(self, features: int, dropout: float):
        super().__init__()
        self.first = _LinearNormed(features, features, dropout)
        self.second = _LinearNormed(features, features, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def fused(net: VarianceLinear) -> TemporalNetworks:
    """The whole network as one op takes it, in evaluation."""
    layers = [net.embed.folded()]
    for stage in net.stages:
        layers += [stage.first.folded(), stage.second.folded(residual=len(layers) - 1)]
    return TemporalNetworks([[*layers, folded_layer(net.head)]])


class VarianceLinear(nn.Module):
    """The variance model beside MGCN_lw: a residual network over the whole pose, 12,049 parameters.

    Args:
        hidden: width.
        stages: residual stages.
        dropout: in training, after every ReLU.
        skeleton: of input and output.
    """

    def __init__(self, hidden: int = 64, stages: int = 1, dropout: float = 0.5, skeleton: Skeleton = H36M_17):
        super().__init__()
        self.skeleton, self.outputs = skeleton, 1
        self.embed = _LinearNormed(2 * skeleton.num_joints, hidden, dropout)
        self.stages = nn.ModuleList(_LinearResidual(hidden, dropout) for _ in range(stages))
        self.head = nn.Linear(hidden, skeleton.num_joints)
        self._fused = PreparedWeights(fused)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] normalised screen units -> [B, T, J, 1]."""
        joints = self.skeleton.num_joints
        if keypoints.dim() != 4 or keypoints.shape[2:] != (joints, 2):
            raise ValueError(f"variance_linear: keypoints must be [B, T, {joints}, 2], got {list(keypoints.shape)}")
        network = self._fused(self)
        if network is not None:  # inference: one op
            (y,) = temporal_networks([in_autocast_dtype(keypoints).flatten(2)], network)
            return y.unsqueeze(-1)
        h = self.embed(keypoints.flatten(0, 1).flatten(1))
        for stage in self.stages:
            h = stage(h)
        return self.head(h).unflatten(0, keypoints.shape[:2]).unsqueeze(-1)
