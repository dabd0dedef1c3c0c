"""MixSTE (Zhang et al., CVPR 2022): a clip of 2D joints to 3D, attention over joints and over frames by turns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.ops import transformer_block
from posekernels.ops.transformer_block.attention import attention
from posekernels.pose.skeleton import H36M_17, HUMANEVA_15
from posekernels.prepared import OneCall, peculiar

from .layers import DropPath, Mlp
from .lifting import LiftsChunks

EPS = 1e-6  # of all norms but the head's


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Training takes ``joint_attention`` and ``temporal_attention`` with their gradients, on tensors that stay in the
    order [B, T, J, C].
    """

    EIGHT_BITS = ("qkv", "proj", "mlp.fc1", "mlp.fc2")  # the layers that ``posekernels.fp8`` takes

    def __init__(self, channels: int, heads: int, hidden: int, qkv_bias: bool, scale: float | None, drop_path: float):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm1 = nn.LayerNorm(channels, eps=EPS)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=EPS)
        self.mlp = Mlp(channels, hidden)
        self.drop_path = DropPath(drop_path)
        self._one_call = OneCall()

    def forward(self, x: Tensor, norm: nn.LayerNorm, *, over_frames: bool) -> Tensor:
        """[B, T, J, C] -> [B, T, J, C]: attention among a frame's joints or over a joint's frames; ``norm`` last."""
        fits = self._one_call.fits(self)
        if fits and peculiar(norm, self.training) is None and not self.training and not torch.is_grad_enabled():
            groups = x.transpose(1, 2) if over_frames else x
            y = transformer_block(groups, *self.weights(norm), heads=self.heads, scale=self.scale, eps=EPS)
            return y.transpose(1, 2) if over_frames else y
        B, T, J, C = x.shape
        h = self.norm1(x)
        if over_frames and fits:  # projected apart, (joint, head) is one axis of q, k and v: nothing is transposed
            weights, biases = self.qkv.weight.chunk(3), (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
            layers = zip(weights, biases)
            q, k, v = (F.linear(h, w, b).reshape(B, T, J * self.heads, C // self.heads) for w, b in layers)
        elif over_frames:
            q, k, v = (part.reshape(B, T, J * self.heads, C // self.heads) for part in self.qkv(h).chunk(3, dim=-1))
        else:
            q, k, v = self.qkv(h).reshape(B * T, J, 3, self.heads, C // self.heads).unbind(2)
        x = x + self.drop_path(self.proj(attention(q, k, v, scale=self.scale).reshape(x.shape)))
        return norm(x + self.drop_path(self.mlp(self.norm2(x))))

    def weights(self, norm: nn.LayerNorm) -> tuple[Tensor | None, ...]:
        """As ``transformer_block`` takes them."""
        layers = (self.norm1, self.qkv, self.proj, self.norm2, self.mlp.fc1, self.mlp.fc2, norm)
        return tuple(t for layer in layers for t in (layer.weight, layer.bias))


class MixSTE(LiftsChunks):
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
        self.skeleton = {s.num_joints: s for s in (H36M_17, HUMANEVA_15)}.get(joints)
        self.embed = nn.Linear(in_channels, channels)
        self.joint_position = nn.Parameter(torch.zeros(1, joints, channels))
        self.frame_position = nn.Parameter(torch.zeros(1, frames, channels))
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        args = (channels, heads, int(channels * mlp_ratio), qkv_bias, scale)
        self.spatial = nn.ModuleList(Block(*args, rate) for rate in rates)
        self.temporal = nn.ModuleList(Block(*args, rate) for rate in rates)
        # Published quirk: one norm after every spatial block and one after every temporal block, shared by all depths.
        self.spatial_norm = nn.LayerNorm(channels, eps=EPS)
        self.temporal_norm = nn.LayerNorm(channels, eps=EPS)
        self.head_norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 3)

    def check(self, keypoints: Tensor) -> None:
        """Raises ValueError unless ``keypoints`` is [B, T, J, 2]."""
        want = (self.frames, self.joints, self.in_channels)
        if keypoints.dim() != 4 or keypoints.shape[1:] != want:
            raise ValueError(
                f"mixste: keypoints must be [B, {want[0]}, {want[1]}, {want[2]}] (the network was built for "
                f"{want[0]} frames), got {list(keypoints.shape)}"
            )

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] normalised screen units -> [B, T, J, 3] metres; the root is predicted like the others."""
        self.check(keypoints)
        x = self.embed(keypoints) + self.joint_position
        for depth, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal)):
            x = spatial(x, self.spatial_norm, over_frames=False)
            if depth == 0:
                x = x + self.frame_position[:, :, None]
            x = temporal(x, self.temporal_norm, over_frames=True)
        return self.head(self.head_norm(x))
