"""GCNdiff (Gong et al., DiffPose, CVPR 2023): the noise in a pose (u, v, x, y, z per joint) at a timestep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels._tables import table
from posekernels.ops import GraphDenoiser, graph_transformer
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.prepared import captured, outside_inference_mode

from .graph import ChebBlock, GraphTransformer
from .layers import KeepsBuffers


class TimeEmbedding(KeepsBuffers):
    """Timestep [B] -> [B, 4C]: sine half, cosine half, two linear layers. Published quirk: the denominator is C/2-1."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / max(half - 1, 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.odd = channels % 2  # an odd width is filled with one zero
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        dtype = getattr(self.fc1.weight, "dtype", torch.float32)  # a quantized layer's is a method
        angle = t.to(torch.promote_types(dtype, torch.float32))[:, None] * self.frequencies
        waves = F.pad(torch.cat((angle.sin(), angle.cos()), dim=1), (0, self.odd))
        return self.fc2(F.silu(self.fc1(waves.to(dtype))))


class TimedChebBlock(ChebBlock):
    """A ``ChebBlock`` shifted by a projection of the time embedding."""

    def __init__(self, channels: int, skeleton: Skeleton):
        super().__init__(channels, skeleton)
        self.time = nn.Linear(4 * channels, channels)

    def time_shift(self, embedding: Tensor) -> Tensor:
        return self.time(F.silu(embedding))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return super().forward(x, self.time_shift(embedding))


_SEQUENCES = 64  # of timesteps, whose shifts are kept


def _one_timestep(t: Tensor) -> bool:
    """Whether all poses are known to be at one timestep; neither a GPU nor what records a graph is asked."""
    return t.device.type == "cpu" and not captured() and len(t) > 0 and bool((t == t[0]).all())


class GCNdiff(GraphTransformer):
    """Noisy poses and their timesteps -> the noise.

    Args:
        channels: C. The time embedding is always 4 C wide.
        layers: pairs of a graph attention layer and a Chebyshev block.
        heads: of the attention.
        dropout: on the output of each attention sub-layer, in training; others are fixed at 0.1.
        in_channels, out_channels: numbers per joint.
        skeleton: fixes the joints and the graph.
    """

    def __init__(
        self,
        channels: int = 96,
        layers: int = 5,
        heads: int = 4,
        dropout: float = 0.25,
        in_channels: int = 5,
        out_channels: int = 5,
        skeleton: Skeleton = H36M_17,
    ):
        sizes = channels, layers, heads, dropout, in_channels, out_channels
        super().__init__("gcndiff", TimedChebBlock, *sizes, skeleton)
        self.time_embedding = TimeEmbedding(channels)

    def time_shifts(self, timesteps: list[float]) -> Tensor:
        """[S, L, C]: what each timestep adds in each layer, for ``denoise_loop``; kept like ``prepared()``."""
        return self._shifts(self.prepared(), tuple(timesteps))

    def _shifts(self, weights: GraphDenoiser, timesteps: tuple[float, ...]) -> Tensor:
        kept = weights.made("time shifts", dict)
        shifts = kept.get(timesteps)
        if shifts is None:
            device = self.conv_in.weight.device
            # They are kept, for calls outside too.
            with outside_inference_mode(), torch.no_grad(), torch.autocast(device.type, enabled=False):
                shifts = self._time_shifts(self.time_embedding(table(timesteps, device, torch.float64)))
            if len(kept) >= _SEQUENCES:
                kept.clear()
            kept[timesteps] = shifts
        return shifts

    def _time_shifts(self, time: Tensor) -> Tensor:
        """[len(time), L, C]: what each embedding adds in each layer."""
        return torch.stack([block.time_shift(time) for block in self.blocks], dim=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, J, 5] and timesteps [B] -> noise [B, J, 5]. Poses are independent of each other."""
        self.check(x)
        if t.shape != x.shape[:1]:
            raise ValueError(f"gcndiff: t must be [{len(x)}], one timestep per pose, got {list(t.shape)}")
        # What records a graph for other programs takes the layers: their batch stays free.
        weights = None if captured() else self.in_one_call(x)
        if weights is not None and _one_timestep(t):
            return graph_transformer(x, weights, self._shifts(weights, (t[0].item(),))[0])
        time = self.time_embedding(t)
        if weights is not None:
            return graph_transformer(x, weights, self._time_shifts(time))
        return self.layer_by_layer(x, time)
