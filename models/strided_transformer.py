"""Strided Transformer (Li et al., IEEE TMM 2022): a window of 2D joints to the 3D pose of its centre frame.

A vanilla transformer over all frames, then strided layers that shorten the window to one frame.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels._dropout import draw_seed
from posekernels.arrays import in_autocast_dtype
from posekernels.checks import check_sizes
from posekernels.ops import Layer, TemporalNetworks, dropout, encoder_layer, temporal_attention, temporal_networks
from posekernels.pose.skeleton import H36M_17, HUMANEVA_15
from posekernels.prepared import OneCall, PreparedWeights, peculiar

from .layers import AnnotatedNorm, folded_batch_norm, folded_layer
from .lifting import LiftsWindows

STRIDES = {27: (3, 3, 3), 81: (9, 3, 3), 243: (3, 9, 9), 351: (3, 9, 13)}  # 81 and 243 are public derivatives'
POSITIONS = 3  # strided layers that have a position embedding; the published network always stores three


def lengths(frames: int, strides: tuple[int, ...]) -> list[int]:
    """Frames before the first strided layer and after each of them."""
    found = [frames]
    for stride in strides:
        found.append((found[-1] - 1) // stride + 1)
    return found


class Attention(nn.Module):
    """The four projections of multi-head attention. Published quirk: they start as copies of each other."""

    def __init__(self, channels: int):
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key, self.value, self.output = (copy.deepcopy(self.query) for _ in range(3))


class EncoderLayer(nn.Module):
    """Pre-norm attention, then a feed-forward block whose convolution leaves every ``stride``-th frame.

    Args:
        channels, hidden, heads: C, width of the feed-forward block, attention heads.
        stride: None for the vanilla layer (no convolution over time), else of the convolution of kernel 3.
        dropout: of attention weights, hidden units and both branches, in training.
    """

    EIGHT_BITS = (*(f"attention.{name}" for name in ("query", "key", "value", "output")), "hidden", "conv")

    def __init__(self, channels: int, hidden: int, heads: int, stride: int | None, dropout: float):
        super().__init__()
        self.heads, self.stride, self.dropout = heads, stride, dropout
        self.norm_attention = AnnotatedNorm(channels)
        self.attention = Attention(channels)
        self.norm_feed_forward = AnnotatedNorm(channels)
        if stride is None:
            self.hidden, self.conv = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        else:
            self.hidden, self.conv = nn.Conv1d(channels, hidden, 1), nn.Conv1d(hidden, channels, 3, stride, 1)
        self._one_call = OneCall()

    def tensors(self) -> list[Tensor]:
        """The weights in the order in which ``encoder_layer`` takes them."""
        a, hidden, conv = self.attention, self.hidden.weight, self.conv.weight
        return [
            self.norm_attention.gain,
            self.norm_attention.shift,
            *(p for linear in (a.query, a.key, a.value, a.output) for p in (linear.weight, linear.bias)),
            self.norm_feed_forward.gain,
            self.norm_feed_forward.shift,
            hidden.flatten(1),
            self.hidden.bias,
            conv if conv.dim() == 3 else conv[:, :, None],
            self.conv.bias,
        ]

    def forward(self, z: Tensor, position: Tensor | None = None) -> Tensor:
        """[B, T, C] -> [B, (T - 1) // stride + 1, C]; ``position`` [P >= T, C] is added to ``z`` first."""
        if not self._one_call.fits(self):
            return self._module_by_module(z, position)
        return self.in_one_call(z, position, self.tensors())

    def in_one_call(self, z: Tensor, position: Tensor | None, tensors: list[Tensor]) -> Tensor:
        """``forward`` with ``tensors()``, where the modules do what these say."""
        dropout = self.dropout if self.training else 0.0
        return encoder_layer(
            z,
            position,
            *tensors,
            heads=self.heads,
            stride=self.stride or 1,
            eps=self.norm_attention.eps,
            dropout=dropout,
            seed=draw_seed(z.device) if dropout else 0,
        )

    def _module_by_module(self, z: Tensor, position: Tensor | None) -> Tensor:
        """The same with every module called itself."""
        a, rate = self.attention, self.dropout if self.training else 0.0
        if position is not None:
            z = z + position[: z.shape[1]]
        u = self.norm_attention(z)
        q, k, v = (f(u).unflatten(-1, (self.heads, -1)) for f in (a.query, a.key, a.value))
        mixed = temporal_attention(q, k, v, dropout=rate, seed=draw_seed(z.device) if rate else 0).flatten(2)
        z = z + dropout(a.output(mixed), rate)
        u = self.norm_feed_forward(z)
        if self.stride is None:
            y = self.conv(dropout(F.relu(self.hidden(u)), rate))
        else:
            y = self.conv(dropout(F.relu(self.hidden(u.mT)), rate)).mT
        return z[:, :: self.stride or 1] + dropout(y, rate)


class Head(nn.Module):
    """Batch norm, then a linear layer per frame: [B, T, C] -> [B, T, J, 3]."""

    def __init__(self, channels: int, joints: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.conv = nn.Conv1d(channels, 3 * joints, 1)

    def forward(self, z: Tensor) -> Tensor:
        if peculiar(self.norm, self.training) or peculiar(self.conv, self.training):
            return self.conv(batch_norm(self.norm, z).mT).mT.unflatten(-1, (-1, 3))
        if self.training:
            return F.linear(batch_norm(self.norm, z), self.conv.weight[:, :, 0], self.conv.bias).unflatten(-1, (-1, 3))
        return F.linear(z, *self.folded()).unflatten(-1, (-1, 3))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the linear layer that this is in evaluation."""
        scale, shift = folded_batch_norm(self.norm)
        weight = self.conv.weight[:, :, 0]
        return weight * scale, self.conv.bias + weight @ shift


def batch_norm(norm: nn.BatchNorm1d, z: Tensor) -> Tensor:
    """``norm`` over [B, T, C], statistics over batch and frames."""
    return norm(z.flatten(0, 1)).view(z.shape)


class Evaluated(NamedTuple):
    """What follows from the weights of a network alone, for inference."""

    embedding: TemporalNetworks
    layers: list[list[Tensor]]  # ``EncoderLayer.tensors`` of each
    head: TemporalNetworks
    full_head: TemporalNetworks


def evaluated(net: StridedTransformer) -> Evaluated:
    def head(module: Head) -> TemporalNetworks:
        weight, bias = module.folded()
        return TemporalNetworks([[Layer(weight, torch.stack((torch.ones_like(bias), bias)))]])

    embedding = TemporalNetworks([[folded_layer(net.embed, net.embed_norm, negative_slope=0.0)]])
    # Detached: a view of a weight would hold it, and torch.utils.swap_tensors refuses what others hold.
    layers = [[t.detach() for t in layer.tensors()] for layer in (*net.vanilla, *net.strided)]
    return Evaluated(embedding, layers, head(net.head), head(net.full_head))


class StridedTransformer(LiftsWindows):
    """2D keypoints of a window of frames -> root-relative 3D joints of its centre frame (and of every frame).

    Args:
        frames: F, odd. Default 351; where only ``strides`` is given, their product.
        strides: of the strided layers, T -> (T - 1) // s + 1 frames each. Default: the table ``STRIDES``. Where more
            than one frame is left, that many poses come out, and ``lift`` and ``stream`` refuse the network.
        layers: vanilla layers.
        channels, hidden, heads: C, width of the feed-forward blocks, attention heads.
        joints, out_joints: in 2D and in 3D; ``lift`` mirrors 17 to 17 (Human3.6M) and 15 to 15 (HumanEva).
        dropout, embedding_dropout: in training; everywhere in both transformers, and after the embedding.
    Raises:
        ValueError: an even F, an F without strides, heads that do not divide C, a size below its least.
    """

    def __init__(
        self,
        frames: int | None = None,
        strides: tuple[int, ...] | None = None,
        *,
        layers: int = 3,
        channels: int = 256,
        hidden: int = 512,
        heads: int = 8,
        joints: int = 17,
        out_joints: int = 17,
        dropout: float = 0.1,
        embedding_dropout: float = 0.25,
    ):
        super().__init__()
        check_sizes("strided_transformer", channels=channels, hidden=hidden, heads=heads)
        check_sizes("strided_transformer", joints=joints, out_joints=out_joints)
        check_sizes("strided_transformer", 0, layers=layers)
        if frames is not None:
            check_sizes("strided_transformer", frames=frames)
        if frames is None:
            frames = math.prod(strides) if strides else 351
        if strides is None:
            if frames not in STRIDES:
                raise ValueError(
                    f"strided_transformer: no published strides for frames={frames} (there are for "
                    f"{', '.join(map(str, STRIDES))}); pass strides=(...) that reduce {frames} frames to 1"
                )
            strides = STRIDES[frames]
        strides = tuple(strides)
        if frames % 2 == 0:
            raise ValueError(f"strided_transformer: frames must be odd (a window has a centre), got {frames}")
        if not strides or any(not isinstance(s, int) or s < 1 for s in strides):
            raise ValueError(f"strided_transformer: strides must be integers of at least 1, got {strides}")
        if channels % heads:
            raise ValueError(f"strided_transformer: heads must divide channels={channels}, got {heads}")
        self.frames, self.strides, self.joints = frames, strides, joints
        self.skeleton = {(s.num_joints,) * 2: s for s in (H36M_17, HUMANEVA_15)}.get((joints, out_joints))
        self.embedding_dropout = embedding_dropout
        self.embed = nn.Conv1d(2 * joints, channels, 1)
        self.embed_norm = nn.BatchNorm1d(channels)
        self.position = nn.Parameter(torch.randn(1, frames, channels))
        vanilla = EncoderLayer(channels, hidden, heads, None, dropout)  # published: layers start as copies of one
        self.vanilla = nn.ModuleList(copy.deepcopy(vanilla) for _ in range(layers))
        # Published quirk: three embeddings of full length, of which a layer reads as many rows as it has frames.
        self.strided_positions = nn.ParameterList(torch.randn(1, frames, channels) for _ in range(POSITIONS))
        self.strided = nn.ModuleList(EncoderLayer(channels, hidden, heads, s, dropout) for s in strides)
        for layer in self.strided[1:]:
            layer.attention.load_state_dict(self.strided[0].attention.state_dict())
        self.head = Head(channels, out_joints)
        self.full_head = Head(channels, out_joints)
        # Published quirk: final norms that every checkpoint stores and nothing reads.
        self.unread_norms = nn.ModuleList(AnnotatedNorm(channels) for _ in range(2))
        unread = [*self.unread_norms.parameters(), *list(self.strided_positions)[len(strides) :]]
        for parameter in unread:
            parameter.requires_grad_(False)
        self._evaluated = PreparedWeights(evaluated)

    @property
    def target(self) -> int:
        """The frame of the window whose pose comes out.

        Raises:
            ValueError: strides that leave more than one frame.
        """
        steps = lengths(self.frames, self.strides)
        if steps[-1] != 1:
            raise ValueError(
                f"strided_transformer: strides {self.strides} reduce frames={self.frames} to {steps[-1]} frames, not "
                f"to 1 ({' -> '.join(map(str, steps))})"
            )
        return self.frames // 2

    def embedding(self, keypoints: Tensor, made: Evaluated | None = None) -> Tensor:
        """[B, T, J, 2] -> [B, T, C]: linear, batch norm, ReLU, dropout; each frame by itself in eval mode."""
        made, x = made or self._evaluated(self), keypoints.flatten(2)
        if made is not None:
            return temporal_networks([in_autocast_dtype(x)], made.embedding)[0]
        if peculiar(self.embed, self.training) or peculiar(self.embed_norm, self.training):
            e = F.relu(batch_norm(self.embed_norm, self.embed(x.mT).mT))
            return dropout(e, self.embedding_dropout, self.training)
        weight, bias = self.embed.weight[:, :, 0], self.embed.bias
        if self.training:
            e = F.relu(batch_norm(self.embed_norm, F.linear(x, weight, bias)))
            return dropout(e, self.embedding_dropout)
        scale, shift = folded_batch_norm(self.embed_norm)
        return F.relu(F.linear(x, weight * scale[:, None], bias * scale + shift))

    def encode(
        self, embedded: Tensor, full: bool = False, made: Evaluated | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """What ``forward`` does after the embedding: [B, F, C] -> [B, L, J, 3], and [B, F, J, 3] if ``full``."""
        made = made or self._evaluated(self)
        if made is not None:
            embedded = in_autocast_dtype(embedded)

        def run(i: int, layer: EncoderLayer, z: Tensor, position: Tensor | None) -> Tensor:
            return layer(z, position) if made is None else layer.in_one_call(z, position, made.layers[i])

        def pose(head: Head, z: Tensor, prepared: str) -> Tensor:
            if made is None:
                return head(z)
            return temporal_networks([z], getattr(made, prepared))[0].unflatten(-1, (-1, 3))

        z, position = embedded, self.position[0]
        for i, layer in enumerate(self.vanilla):
            z, position = run(i, layer, z, position), None
        if position is not None:
            z = z + position
        every = pose(self.full_head, z, "full_head") if full else None
        for i, layer in enumerate(self.strided):
            z = run(len(self.vanilla) + i, layer, z, self.strided_positions[i][0] if i < POSITIONS else None)
        single = pose(self.head, z, "head")
        return (single, every) if full else single

    def forward(self, keypoints: Tensor, full: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """[B, F, J, 2] normalised screen units -> [B, L, J, 3] metres: the pose of frame (F - 1) / 2, L = 1.

        L is what the strides leave of F; only for L = 1 the published program says which frame it is.

        Args:
            full: also return the pose of every frame, [B, F, J, 3], as (single, every).

        Published quirk: the root is predicted like the others; set it to 0 afterwards.
        """
        if keypoints.dim() != 4 or keypoints.shape[1:] != (self.frames, self.joints, 2):
            raise ValueError(
                f"strided_transformer: keypoints must be [B, {self.frames}, {self.joints}, 2] "
                f"(this network has frames={self.frames}), got {list(keypoints.shape)}"
            )
        made = self._evaluated(self)
        return self.encode(self.embedding(keypoints, made), full, made)
