"""RIE (Shan et al., ACM MM 2021): a window of 2D keypoints to the 3D pose of its middle frame, by five body parts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.ops import relative_encoding, strided_temporal_conv
from posekernels.pose.skeleton import H36M_17, Skeleton

from .layers import folded_batch_norm

SLOPE = 0.2  # of every leaky ReLU
HIDDEN = 1024  # width of every fully connected network: a constant of the published one

# The order of the parts is the published one; the published *names* of limbs are mirrored: models/published/rie.py.
PARTS = {
    "h36m-17": {
        "torso": (0, 7, 8, 9, 10),
        "right_arm": (14, 15, 16),
        "left_arm": (11, 12, 13),
        "right_leg": (1, 2, 3),
        "left_leg": (4, 5, 6),
    },
    "humaneva-15": {  # ours: the published grouping for 15 joints was never given
        "torso": (0, 1, 14),
        "right_arm": (5, 6, 7),
        "left_arm": (2, 3, 4),
        "right_leg": (11, 12, 13),
        "left_leg": (8, 9, 10),
    },
}


def _act(y: Tensor, norm: nn.BatchNorm1d, dropout: float) -> Tensor:
    """Drop(LReLU(BN(y))) of [B, T, C] in training."""
    y = norm(y.flatten(0, 1)).view_as(y)
    return F.dropout(F.leaky_relu(y, SLOPE), dropout)


def _layer(convs, norms, xs, dropout: float, residual=(), stride: int = 1, tap: int = 0) -> tuple[Tensor, ...]:
    """residual + Drop(LReLU(BN(conv(x)))) for networks side by side; in evaluation one op, the batch norm folded."""
    weights = [conv.weight for conv in convs]
    biases = [conv.bias for conv in convs] if convs[0].bias is not None else []
    if norms[0].training:
        ys = strided_temporal_conv(xs, weights, biases)
        ys = tuple(_act(y, norm, dropout) for y, norm in zip(ys, norms))
        return tuple(y + r[:, tap::stride] for y, r in zip(ys, residual)) if residual else ys
    scale, shift = zip(*(folded_batch_norm(norm) for norm in norms))
    return strided_temporal_conv(
        xs,
        weights,
        biases,
        scale=scale,
        shift=shift,
        negative_slope=SLOPE,
        residual=residual,
        residual_stride=stride,
        residual_tap=tap,
    )


class TemporalEncoder(nn.Module):
    """One body part: convolutions that shrink the window to one frame. Run together by ``encode``.

    Args:
        in_channels: of the part's relative encoding.
        widths: odd filter widths; their product is the window.
        channels: C of every convolution; latent: L of the result.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], channels: int, latent: int):
        super().__init__()
        self.expand = nn.Conv1d(in_channels, channels, widths[0], bias=False)
        self.expand_norm = nn.BatchNorm1d(channels)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for width in widths[1:]:
            self.convs.append(nn.Conv1d(channels, channels, width, bias=False))
            self.convs.append(nn.Conv1d(channels, channels, 1, bias=False))
            self.norms.extend(nn.BatchNorm1d(channels) for _ in range(2))
        self.shrink = nn.Conv1d(channels, latent, 1)

    def dilated(self, x: Tensor, causal: bool) -> Tensor:
        """[B, T, c_in] -> [B, T - R + 1, L]: the same weights slid over every frame, in evaluation.

        The encodings in ``x`` are relative to one middle frame, so only that frame's result is the windowed one.
        """

        def act(y, norm):
            scale, shift = folded_batch_norm(norm)
            return F.leaky_relu(y * scale[:, None] + shift[:, None], SLOPE)

        y = act(self.expand(x.mT), self.expand_norm)
        dilation = self.expand.kernel_size[0]
        for i in range(0, len(self.convs), 2):
            wide, narrow = self.convs[i : i + 2]
            reach = (wide.kernel_size[0] - 1) * dilation
            first = reach if causal else reach // 2
            u = act(F.conv1d(y, wide.weight, dilation=dilation), self.norms[i])
            y = y[:, :, first : first + u.shape[2]] + act(narrow(u), self.norms[i + 1])
            dilation *= wide.kernel_size[0]
        return self.shrink(y).mT


def encode(encoders: list[TemporalEncoder], xs, causal: bool, dropout: float) -> tuple[Tensor, ...]:
    """The temporal encoders of all parts side by side: each [B, R, c_in] -> [B, 1, L]."""
    ys = _layer([e.expand for e in encoders], [e.expand_norm for e in encoders], xs, dropout)
    for i in range(0, len(encoders[0].convs), 2):
        width = encoders[0].convs[i].kernel_size[0]
        us = _layer([e.convs[i] for e in encoders], [e.norms[i] for e in encoders], ys, dropout)
        narrow, norms = [e.convs[i + 1] for e in encoders], [e.norms[i + 1] for e in encoders]
        ys = _layer(narrow, norms, us, dropout, ys, width, width - 1 if causal else width // 2)
    return strided_temporal_conv(ys, [e.shrink.weight for e in encoders], [e.shrink.bias for e in encoders])


class FullyConnected(nn.Module):
    """in -> 1024 -> k residual pairs of 1024 -> out. Run together by ``connect``."""

    def __init__(self, in_features: int, out_features: int, pairs: int):
        super().__init__()
        self.first = nn.Linear(in_features, HIDDEN)
        self.first_norm = nn.BatchNorm1d(HIDDEN)
        self.linears = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(2 * pairs))
        self.norms = nn.ModuleList(nn.BatchNorm1d(HIDDEN) for _ in range(2 * pairs))
        self.last = nn.Linear(HIDDEN, out_features)


def connect(networks: list[FullyConnected], xs, dropout: float) -> tuple[Tensor, ...]:
    """Fully connected networks side by side: each [B, 1, in] -> [B, 1, out]."""
    ys = _layer([n.first for n in networks], [n.first_norm for n in networks], xs, dropout)
    for i in range(0, len(networks[0].linears), 2):
        us = _layer([n.linears[i] for n in networks], [n.norms[i] for n in networks], ys, dropout)
        ys = _layer([n.linears[i + 1] for n in networks], [n.norms[i + 1] for n in networks], us, dropout, ys)
    return strided_temporal_conv(ys, [n.last.weight for n in networks], [n.last.bias for n in networks])


class RIE(nn.Module):
    """A window of 2D keypoints -> the root-relative 3D pose of its middle frame (its last one when causal).

    Args:
        filter_widths: odd; their product is the window R.
        stage: 1 (no fusion of the parts), 2 or 3 (one architecture; they differ in what is trained).
        latent: L, width of a feature vector; channels: C of the temporal convolutions.
        dropout, fc_dropout: of the temporal encoders and of the fully connected networks, in training.
        causal: the window ends at the target frame. Published quirk: the middle frame of the window stays the reference
            of the temporal encoding and the input of the global network.
        skeleton: H36M_17, or HUMANEVA_15 with a grouping of our own.
    """

    def __init__(
        self,
        filter_widths: tuple[int, ...] = (3, 3, 3, 3, 3),
        stage: int = 1,
        latent: int = 256,
        channels: int = 256,
        dropout: float = 0.2,
        fc_dropout: float = 0.25,
        causal: bool = False,
        skeleton: Skeleton = H36M_17,
    ):
        super().__init__()
        filter_widths = tuple(filter_widths)
        if not filter_widths or any(width < 1 or width % 2 == 0 for width in filter_widths):
            raise ValueError(f"rie: filter_widths must be odd numbers, at least one, got {list(filter_widths)}")
        if stage not in (1, 2, 3):
            raise ValueError(f"rie: stage must be 1, 2 or 3, got {stage}")
        if skeleton.name not in PARTS:
            raise ValueError(f"rie: no body parts for skeleton {skeleton.name!r} (known: {', '.join(PARTS)})")
        self.skeleton, self.stage, self.causal = skeleton, stage, causal
        self.dropout, self.fc_dropout = dropout, fc_dropout
        self.frames = math.prod(filter_widths)
        self.parts = tuple(PARTS[skeleton.name].values())
        names = list(PARTS[skeleton.name])
        features = 2 * skeleton.num_joints
        encoders = (TemporalEncoder(6 * len(part), filter_widths, channels, latent) for part in self.parts)
        self.encoders = nn.ModuleDict(zip(names, encoders))
        self.whole_body = FullyConnected(features, latent, pairs=2)
        if stage > 1:
            fusions = (FullyConnected((len(names) - 1) * latent, latent, pairs=1) for _ in names)
            self.fusions = nn.ModuleDict(zip(names, fusions))
        width = (2 if stage == 1 else 3) * latent
        decoders = (FullyConnected(width, 3 * len(part), pairs=1) for part in self.parts)
        self.decoders = nn.ModuleDict(zip(names, decoders))
        order = torch.tensor([joint for part in self.parts for joint in part])
        self.register_buffer("order", torch.argsort(order), persistent=False)  # parts one after the other -> joints

    def check(self, keypoints: Tensor) -> None:
        """Raises ValueError unless ``keypoints`` is [B, R, J, 2]."""
        want = (self.frames, self.skeleton.num_joints, 2)
        if keypoints.dim() != 4 or tuple(keypoints.shape[1:]) != want:
            raise ValueError(f"rie: keypoints must be [B, {', '.join(map(str, want))}], got {list(keypoints.shape)}")

    def local_features(self, keypoints: Tensor) -> tuple[Tensor, ...]:
        """[B, R, J, 2] -> one [B, 1, L] per part."""
        self.check(keypoints)
        return encode(list(self.encoders.values()), relative_encoding(keypoints, self.parts), self.causal, self.dropout)

    def local_features_dilated(self, keypoints: Tensor) -> tuple[Tensor, ...]:
        """[B, T >= R, J, 2] -> one [B, T - R + 1, L] per part, all relative to frame T // 2; in evaluation."""
        parts = relative_encoding(keypoints, self.parts)
        return tuple(e.dilated(x, self.causal) for e, x in zip(self.encoders.values(), parts))

    def global_feature(self, keypoints: Tensor) -> Tensor:
        """[B, R, J, 2] -> [B, 1, L] from the middle frame alone."""
        middle = keypoints[:, keypoints.shape[1] // 2].flatten(1)
        return connect([self.whole_body], (middle[:, None],), self.fc_dropout)[0]

    def fused_features(self, local: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the other parts say of each part: [B, 1, L] per part."""
        others = [torch.cat(local[:i] + local[i + 1 :], dim=-1) for i in range(len(local))]
        return connect(list(self.fusions.values()), others, self.fc_dropout)

    def decode(self, local: tuple[Tensor, ...], whole: Tensor) -> Tensor:
        """Features -> [B, 1, J, 3]."""
        if self.stage == 1:
            parts = [torch.cat((l, whole), dim=-1) for l in local]
        else:
            parts = [torch.cat((l, f, whole), dim=-1) for l, f in zip(local, self.fused_features(local))]
        joints = torch.cat(connect(list(self.decoders.values()), parts, self.fc_dropout), dim=-1)
        return joints.unflatten(-1, (-1, 3))[:, :, self.order]

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, R, J, 2] normalised screen units -> [B, 1, J, 3] metres.

        Published quirk: the root is a free output, trained towards 0.
        """
        return self.decode(self.local_features(keypoints), self.global_feature(keypoints))
