"""GCNpose (GraFormer, Zhao et al., CVPR 2022): one frame of 2D joints to 3D; DiffPose's start in the frame setting."""

from __future__ import annotations

from torch import Tensor

from posekernels.ops import graph_transformer
from posekernels.pose.skeleton import H36M_17, Skeleton

from .graph import ChebBlock, GraphTransformer
from .lifting import LiftsFrames


class GCNpose(LiftsFrames, GraphTransformer):
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
        # 3 channels out, whatever a published configuration says.
        super().__init__("gcnpose", ChebBlock, channels, layers, heads, dropout, in_channels, 3, skeleton)
        self.in_channels = in_channels

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, J, 2] normalised screen units -> [B, J, 3] metres; the root is predicted like the others."""
        self.check(keypoints)
        weights = self.in_one_call(keypoints)
        if weights is not None:
            return graph_transformer(keypoints, weights)
        return self.layer_by_layer(keypoints)

    def poses(self, keypoints: Tensor) -> Tensor:
        return self(keypoints)
