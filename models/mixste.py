"""MixSTE (Zhang et al., CVPR 2022): a clip of 2D joints to 3D, attention over joints and over frames by turns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.ops import transformer_block

from .layers import DropPath, Mlp

EPS = 1e-6  # of all norms but the head's


class Block(nn.Module):
    """A pre-norm transformer block over axis -2: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, channels: int, heads: int, hidden: int, qkv_bias: bool, scale: float | None, drop_path: float):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm1 = nn.LayerNorm(channels, eps=EPS)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=EPS)
        self.mlp = Mlp(channels, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """[B, G, N, C] -> [B, G, N, C], attention among the N tokens; ``norm`` comes last."""
        if not self.training and not torch.is_grad_enabled():
            return transformer_block(x, *self.weights(norm), heads=self.heads, scale=self.scale, eps=EPS)
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # each [B, G, N, H, C/H]
        h = attention(q, k, v, self.scale).flatten(-2)
        x = x + self.drop_path(self.proj(h))
        return norm(x + self.drop_path(self.mlp(self.norm2(x))))

    def weights(self, norm: nn.LayerNorm) -> tuple[Tensor | None, ...]:
        """As ``transformer_block`` takes them."""
        layers = (self.norm1, self.qkv, self.proj, self.norm2, self.mlp.fc1, self.mlp.fc2, norm)
        return tuple(t for layer in layers for t in (layer.weight, layer.bias))


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """softmax(q k' scale) v for [..., N, H, D]."""
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(-2, -3)


class MixSTE(nn.Module):
    """2D keypoints of a clip -> 3D joints of every frame.

    Args:
        frames: T, fixed by the temporal position embedding.
        joints: J.
        channels: C, a multiple of ``heads``.
        depth: pairs of a spatial and a temporal block.
        mlp_ratio: hidden width of the MLPs over C.
        qkv_bias, scale: of the attention; the scale is (C / heads)^-0.5 when None.
        drop_path: stochastic depth of the last block, rising evenly from 0; 0.1 in MixSTE's own training.
    """

    def __init__(
        self,
        frames: int = 243,
        joints: int = 17,
        channels: int = 512,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 2.0,
        in_channels: int = 2,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if channels <= 0 or heads <= 0 or channels % heads:
            raise ValueError(f"mixste: channels must be a positive multiple of heads={heads}, got {channels}")
        if frames < 1 or depth < 1:
            raise ValueError(f"mixste: frames and depth must be at least 1, got {frames} and {depth}")
        self.frames, self.joints, self.in_channels = frames, joints, in_channels
        self.embed = nn.Linear(in_channels, channels)
        self.joint_position = nn.Parameter(torch.zeros(1, joints, channels))
        self.frame_position = nn.Parameter(torch.zeros(1, frames, channels))
        rates = torch.linspace(0, drop_path, depth).tolist()
        args = (channels, heads, int(channels * mlp_ratio), qkv_bias, scale)
        self.spatial = nn.ModuleList(Block(*args, rate) for rate in rates)
        self.temporal = nn.ModuleList(Block(*args, rate) for rate in rates)
        # Published quirk: one norm after every spatial block and one after every temporal block, shared by all depths.
        self.spatial_norm = nn.LayerNorm(channels, eps=EPS)
        self.temporal_norm = nn.LayerNorm(channels, eps=EPS)
        self.head_norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 3)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] normalised screen units -> [B, T, J, 3] metres; the root is predicted like the others."""
        want = (self.frames, self.joints, self.in_channels)
        if keypoints.dim() != 4 or keypoints.shape[1:] != want:
            raise ValueError(
                f"mixste: keypoints must be [B, {want[0]}, {want[1]}, {want[2]}] (the network was built for "
                f"{want[0]} frames), got {list(keypoints.shape)}"
            )
        x = self.embed(keypoints) + self.joint_position
        for depth, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal)):
            x = spatial(x, self.spatial_norm)
            if depth == 0:
                x = x + self.frame_position[:, :, None]
            x = temporal(x.transpose(1, 2), self.temporal_norm).transpose(1, 2)
        return self.head(self.head_norm(x))
