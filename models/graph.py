"""Graph layers over a skeleton that several networks share."""

from __future__ import annotations

import math

import torch
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
