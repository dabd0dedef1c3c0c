"""GCNpose (GraFormer, Zhao et al., CVPR 2022): one frame of 2D joints to 3D; DiffPose's start in the frame setting."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from posekernels._derived import PreparedWeights
from posekernels.ops import GraphDenoiser, graph_transformer
from posekernels.pose.skeleton import H36M_17, Skeleton

from .gcndiff import check_pose, check_size
from .graph import ChebBlock, ChebConv, GraphAttention, graph_denoiser


class GCNpose(nn.Module):
    """2D keypoints of single frames -> 3D joints.

    Args: as ``GCNdiff``; there is no time.
    """

    def __init__(
        self,
        channels: int = 96,
        layers: int = 5,
        heads: int = 4,
        dropout: float = 0.25,
        in_channels: int = 2,
        skeleton: Skeleton = H36M_17,
    ):
        super().__init__()
        check_size("gcnpose", channels, layers, heads)
        self.skeleton = skeleton
        self.conv_in = ChebConv(in_channels, channels, skeleton)
        self.blocks = nn.ModuleList(ChebBlock(channels, skeleton) for _ in range(layers))
        first = GraphAttention(channels, heads, dropout, skeleton)
        self.attention = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        self.conv_out = ChebConv(channels, 3, skeleton)  # 3 wide, whatever a published configuration says
        self._prepared = PreparedWeights(graph_denoiser)

    def prepared(self) -> GraphDenoiser:
        """The weights for ``graph_transformer``; made again only after a parameter has changed."""
        return self._prepared(self)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, J, 2] normalised screen units -> [B, J, 3] metres; the root is predicted like the others."""
        check_pose("gcnpose", keypoints, self.skeleton, self.conv_in)
        if not self.training and not torch.is_grad_enabled():
            return graph_transformer(keypoints, self.prepared())
        x = self.conv_in(keypoints)
        for attention, block in zip(self.attention, self.blocks):
            x = block(attention(x))
        return self.conv_out(x)
