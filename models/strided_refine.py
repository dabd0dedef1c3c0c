"""The Strided Transformer's refine module (as in Cai et al., ICCV 2019): mixes a prediction with the observed rays.

It needs the camera's intrinsics and the true depth of the root, so it has no use in the wild.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posekernels.arrays import in_autocast_dtype
from posekernels.ops import TemporalNetworks, temporal_networks
from posekernels.prepared import PreparedWeights

from .layers import folded_layer

HIDDEN = 1024  # a constant of the published network


def back_project(prediction: Tensor, keypoints: Tensor, intrinsics: Tensor, root: Tensor) -> Tensor:
    """The observed 2D joints lifted to the predicted depths, relative to the root; no lens distortion.

    Args:
        prediction: [B, T, J, 3] metres; its z is the depth of joints 1.. relative to the root.
        keypoints: [B, T, J, 2] screen units.
        intrinsics: [B, >= 4]: fx, fy, cx, cy in screen units.
        root: [B, T, 3] the true root in camera space, metres.
    Returns:
        [B, T, J, 3] with joint 0 at zero.
    """
    depth = prediction[..., 2:] + root[..., None, 2:]
    depth = torch.cat((root[..., None, 2:], depth[..., 1:, :]), -2)  # the predicted depth of the root is ignored
    focal, centre = (intrinsics[:, None, None, i : i + 2] for i in (0, 2))
    points = torch.cat(((keypoints - centre) * depth / focal, depth), -1)
    return points - points[..., :1, :]


def fused(net: StridedRefine) -> TemporalNetworks:
    """Both layers as one op takes them, in evaluation."""
    return TemporalNetworks([[folded_layer(net.hidden, negative_slope=0.0), folded_layer(net.score)]])


class StridedRefine(nn.Module):
    """(prediction, back-projection) -> refined prediction: per joint and axis x, y a weight between the two.

    Args:
        joints: J.
        dropout: in training.
    """

    def __init__(self, joints: int = 17, dropout: float = 0.5):
        super().__init__()
        self.joints = joints
        self.hidden = nn.Linear(6 * joints, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(HIDDEN, 2 * joints)
        self._fused = PreparedWeights(fused)

    def weights(self, prediction: Tensor, projected: Tensor) -> Tensor:
        """[B, T, J, 2] in (0, 1): how much of the prediction's x and y is kept."""
        if prediction.shape != projected.shape or prediction.shape[-2:] != (self.joints, 3):
            raise ValueError(
                f"strided_refine: prediction and back-projection must both be [B, T, {self.joints}, 3], got "
                f"{list(prediction.shape)} and {list(projected.shape)}"
            )
        x = torch.cat((prediction, projected), -1).flatten(-2)
        network = self._fused(self)
        if network is None:
            x = self.score(self.dropout(torch.relu(self.hidden(x))))
        else:  # inference: both layers in one op
            (x,) = temporal_networks([in_autocast_dtype(x)], network)
        return x.sigmoid().unflatten(-1, (self.joints, 2))

    def forward(self, prediction: Tensor, projected: Tensor) -> Tensor:
        """[B, T, J, 3] twice (``prediction`` with its root as predicted, ``projected`` from ``back_project``).

        Returns [B, T, J, 3]: x and y mixed, z the prediction's. Set the root to 0 afterwards.
        """
        s = self.weights(prediction, projected)
        xy = s * prediction[..., :2] + (1 - s) * projected[..., :2]
        return torch.cat((xy, prediction[..., 2:]), -1)
