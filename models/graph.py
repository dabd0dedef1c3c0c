"""Graph layers over a skeleton that several networks share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.ops import graph_conv
from posekernels.pose.skeleton import H36M_17, Skeleton


def modulated_adjacency(skeleton: Skeleton = H36M_17) -> Tensor:
    """[J, J] the fixed adjacency of the modulated networks: rows divided by degree, then a diagonal of exactly 1.

    Published quirk: each row sums to two, and the matrix is not symmetric.
    """
    adjacency = skeleton.adjacency()
    adjacency = adjacency / adjacency.sum(1, keepdim=True)
    return adjacency.fill_diagonal_(1)


class ModulatedGraphConv(nn.Module):
    """Modulated graph convolution (Zou & Tang, ICCV 2021), [..., J, Cin] -> [..., J, Cout].

    Args:
        in_features, out_features: Cin, Cout.
        weights: 2 for a weight of its own for the self connection, 1 for one weight for all joints.
        skeleton: fixes J and the adjacency that ``adjacency_offset`` is learnt upon.
    """

    def __init__(self, in_features: int, out_features: int, weights: int = 2, skeleton: Skeleton = H36M_17):
        super().__init__()
        joints = skeleton.num_joints
        self.weight = nn.Parameter(torch.empty(weights, in_features, out_features))
        self.modulation = nn.Parameter(torch.empty(joints, out_features))
        self.adjacency_offset = nn.Parameter(torch.full((joints, joints), 1e-6))
        self.bias = nn.Parameter(torch.empty(out_features))
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        nn.init.xavier_uniform_(self.modulation, gain=1.414)
        nn.init.uniform_(self.bias, -1 / math.sqrt(out_features), 1 / math.sqrt(out_features))
        self.register_buffer("fixed_adjacency", modulated_adjacency(skeleton), persistent=False)
        self.register_buffer("diagonal", torch.eye(joints), persistent=False)

    def adjacency(self) -> Tensor:
        """[K, J, J]: the symmetrised sum of fixed and learnt; diagonal and rest apart when there are two weights."""
        matrix = self.fixed_adjacency + self.adjacency_offset
        matrix = (matrix + matrix.T) / 2
        if self.weight.shape[0] == 1:
            return matrix[None]
        return torch.stack((matrix * self.diagonal, matrix * (1 - self.diagonal)))

    def forward(self, x: Tensor, **epilogue) -> Tensor:
        """``epilogue``: scale, shift, residual, activation of ``graph_conv``."""
        return graph_conv(x, self.weight, self.adjacency(), self.bias, modulation=self.modulation, **epilogue)


class NormedGraphConv(nn.Module):
    """Modulated graph convolution, batch norm over batch and joints, ReLU; [B, J, Cin] -> [B, J, Cout]."""

    def __init__(self, in_features: int, out_features: int, weights: int, skeleton: Skeleton):
        super().__init__()
        self.conv = ModulatedGraphConv(in_features, out_features, weights, skeleton)
        self.norm = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not self.training:  # running statistics are constants: fold them into the convolution's epilogue
            scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
            shift = self.norm.bias - self.norm.running_mean * scale
            return self.conv(x, scale=scale, shift=shift, activation="relu", residual=residual)
        h = self.conv(x)
        h = F.relu(self.norm(h.flatten(0, 1)).view_as(h))
        return h if residual is None else h + residual


class GraphResidual(nn.Module):
    """x + GC(GC(x)); nothing after the sum."""

    def __init__(self, features: int, weights: int, skeleton: Skeleton):
        super().__init__()
        self.conv1 = NormedGraphConv(features, features, weights, skeleton)
        self.conv2 = NormedGraphConv(features, features, weights, skeleton)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), residual=x)


class ModulatedGCN(nn.Module):
    """Modulated GCN (Zou & Tang, ICCV 2021) without its non-local block: one frame of 2D joints -> ``outputs`` each.

    Args:
        hidden: channels between the layers.
        outputs: channels per joint that come out; plain numbers, no activation.
        weights: 2 or 1, see ``ModulatedGraphConv``.
        depth: residual layers.
        skeleton: of input and output.
    """

    def __init__(
        self, hidden: int = 256, outputs: int = 3, weights: int = 2, depth: int = 4, skeleton: Skeleton = H36M_17
    ):
        super().__init__()
        self.skeleton, self.outputs = skeleton, outputs
        self.input = NormedGraphConv(2, hidden, weights, skeleton)
        self.layers = nn.ModuleList(GraphResidual(hidden, weights, skeleton) for _ in range(depth))
        self.output = ModulatedGraphConv(hidden, outputs, weights, skeleton)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] normalised screen units -> [B, T, J, outputs]. Frames are independent of each other."""
        joints = self.skeleton.num_joints
        if keypoints.dim() != 4 or keypoints.shape[2:] != (joints, 2):
            raise ValueError(f"keypoints must be [B, T, {joints}, 2], got {list(keypoints.shape)}")
        x = self.input(keypoints.flatten(0, 1))
        for layer in self.layers:
            x = layer(x)
        return self.output(x).unflatten(0, keypoints.shape[:2])
