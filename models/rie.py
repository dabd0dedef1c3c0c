"""RIE (Shan et al., ACM MM 2021): a window of 2D keypoints to the 3D pose of its middle frame, by five body parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels._tables import table
from posekernels.arrays import in_autocast_dtype
from posekernels.checks import check_sizes
from posekernels.ops import (
    Layer,
    TemporalNetworks,
    norm_activation,
    relative_encoding,
    strided_temporal_conv,
    temporal_networks,
)
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.prepared import PreparedWeights

from .layers import folded_batch_norm, folded_layer
from .lifting import LiftsWindows

PIECE = 4096  # frames of a clip at once: about 50 MB
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


class Step(NamedTuple):
    """One layer of networks side by side: ``residual + Drop(LReLU(BN(conv(x))))``; the last one is bare."""

    convs: list[nn.Module]  # Conv1d with stride = width, or Linear
    norms: list[nn.BatchNorm1d] | None = None
    residual: int | None = None  # the earlier step whose result is added
    tap: int = 0  # which of its frames


def train_steps(steps: list[Step], xs, dropout: float) -> tuple[Tensor, ...]:
    """The steps with batch statistics and dropout."""
    results: list[tuple[Tensor, ...]] = []
    for step in steps:
        weights, biases = [c.weight for c in step.convs], [c.bias for c in step.convs if c.bias is not None]
        ys = strided_temporal_conv([in_autocast_dtype(x) for x in (results[-1] if results else xs)], weights, biases)
        if step.norms is not None:  # statistics keep the precision of the weights
            ys = tuple(_act(y.to(norm.weight.dtype), norm, dropout) for y, norm in zip(ys, step.norms))
        if step.residual is not None:
            others = results[step.residual]
            ys = tuple(y + r[:, step.tap :: r.shape[1] // y.shape[1]] for y, r in zip(ys, others))
        results.append(ys)
    return results[-1]


def _act(y: Tensor, norm: nn.BatchNorm1d, dropout: float) -> Tensor:
    """Drop(LReLU(BN(y))) of [B, T, C]; the running statistics follow."""
    rows = y.shape[0] * y.shape[1]
    y, mean, var = norm_activation(y, norm.weight, norm.bias, eps=norm.eps, negative_slope=SLOPE, dropout=dropout)
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_(var.to(norm.running_var) * (rows / (rows - 1)), norm.momentum)
    return y


def call_steps(steps: list[Step], xs, dropout: float) -> tuple[Tensor, ...]:
    """The steps, every module called itself. A convolution's own stride is 1: every width-th frame of it counts."""

    def product(conv: nn.Module, x: Tensor) -> Tensor:
        width = getattr(conv, "kernel_size", (1,))[0]
        return conv(x.mT)[:, :, ::width].mT if isinstance(conv, nn.Conv1d) else conv(x)

    results: list[tuple[Tensor, ...]] = []
    for step in steps:
        ys = tuple(product(conv, x) for conv, x in zip(step.convs, results[-1] if results else xs))
        if step.norms is not None:
            normed = (norm(y.flatten(0, 1)).view(y.shape) for y, norm in zip(ys, step.norms))
            ys = tuple(F.dropout(F.leaky_relu(y, SLOPE), dropout) for y in normed)
        if step.residual is not None:
            others = results[step.residual]
            ys = tuple(y + r[:, step.tap :: r.shape[1] // y.shape[1]] for y, r in zip(ys, others))
        results.append(ys)
    return results[-1]


def folded(steps: list[Step]) -> list[list[Layer]]:
    """The steps in evaluation, network by network, the batch norms folded."""
    networks: list[list[Layer]] = [[] for _ in steps[0].convs]
    for step in steps:
        for n, (network, conv) in enumerate(zip(networks, step.convs)):
            if step.norms is None:
                network.append(folded_layer(conv))
            else:
                network.append(folded_layer(conv, step.norms[n], SLOPE, step.residual, step.tap))
    return networks


class TemporalEncoder(nn.Module):
    """One body part: convolutions that shrink the window to one frame. The parts run together (``encoder_steps``).

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


def encoder_steps(encoders: list[TemporalEncoder], causal: bool) -> list[Step]:
    """[B, R, c_in] -> [B, 1, L]."""
    steps = [Step([e.expand for e in encoders], [e.expand_norm for e in encoders])]
    for i in range(0, len(encoders[0].convs), 2):
        width = encoders[0].convs[i].kernel_size[0]
        steps.append(Step([e.convs[i] for e in encoders], [e.norms[i] for e in encoders]))
        convs, norms = [e.convs[i + 1] for e in encoders], [e.norms[i + 1] for e in encoders]
        steps.append(Step(convs, norms, residual=i, tap=width - 1 if causal else width // 2))
    return [*steps, Step([e.shrink for e in encoders])]


class FullyConnected(nn.Module):
    """in -> 1024 -> k residual pairs of 1024 -> out. Several run together (``connected_steps``)."""

    def __init__(self, in_features: int, out_features: int, pairs: int):
        super().__init__()
        self.first = nn.Linear(in_features, HIDDEN)
        self.first_norm = nn.BatchNorm1d(HIDDEN)
        self.linears = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(2 * pairs))
        self.norms = nn.ModuleList(nn.BatchNorm1d(HIDDEN) for _ in range(2 * pairs))
        self.last = nn.Linear(HIDDEN, out_features)


def connected_steps(networks: list[FullyConnected]) -> list[Step]:
    """[B, 1, in] -> [B, 1, out]."""
    steps = [Step([n.first for n in networks], [n.first_norm for n in networks])]
    for i in range(0, len(networks[0].linears), 2):
        steps.append(Step([n.linears[i] for n in networks], [n.norms[i] for n in networks]))
        steps.append(Step([n.linears[i + 1] for n in networks], [n.norms[i + 1] for n in networks], residual=i))
    return [*steps, Step([n.last for n in networks])]


def joined(groups: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The features of each group side by side; one concatenation for all groups, of which each gets a slice."""
    widths = [sum(feature.shape[-1] for feature in group) for group in groups]
    return torch.cat([feature for group in groups for feature in group], dim=-1).split(widths, dim=-1)


Runner = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


class Networks(NamedTuple):
    """The networks of RIE, each a function of one tensor per network that runs side by side."""

    features: Runner  # parts and the whole body -> their features
    fusions: Runner | None
    decoders: Runner
    later_features: Runner | None = None  # the encoders past their first layer
    whole_body: Runner | None = None
    first: tuple[Layer, ...] = ()  # that layer of each part


def trained(net: RIE) -> Networks:
    """As the networks run in training."""

    def connected(networks: nn.ModuleDict) -> Runner:
        return lambda xs: train_steps(connected_steps(list(networks.values())), xs, net.fc_dropout)

    def features(xs):
        local = train_steps(net.encoder_steps(), xs[:-1], net.dropout)
        return *local, *train_steps(connected_steps([net.whole_body]), xs[-1:], net.fc_dropout)

    return Networks(features, connected(net.fusions) if net.stage > 1 else None, connected(net.decoders))


def called(net: RIE) -> Networks:
    """As they run where modules must be called themselves (``OneCall``): in training and in evaluation."""

    def runner(steps: list[Step], dropout: float) -> Runner:
        return partial(call_steps, steps, dropout=dropout if net.training else 0.0)

    def connected(networks: Sequence[FullyConnected]) -> Runner:
        return runner(connected_steps(list(networks)), net.fc_dropout)

    encoders, whole_body = runner(net.encoder_steps(), net.dropout), connected([net.whole_body])
    fusions = connected(net.fusions.values()) if net.stage > 1 else None
    decoders = connected(net.decoders.values())
    return Networks(lambda xs: (*encoders(xs[:-1]), *whole_body(xs[-1:])), fusions, decoders)


def evaluated(net: RIE) -> Networks:
    """As they run in evaluation: whole chains of layers in one call, what follows from the weights alone prepared."""

    def runner(networks: list[list[Layer]]) -> Runner:
        return partial(temporal_networks, networks=TemporalNetworks(networks))

    def connected(networks: nn.ModuleDict) -> Runner:
        return runner(folded(connected_steps(list(networks.values()))))

    encoders, whole_body = folded(net.encoder_steps()), folded(connected_steps([net.whole_body]))
    rest = [
        [y._replace(residual=y.residual if y.residual is None else y.residual - 1) for y in e[1:]] for e in encoders
    ]
    return Networks(
        runner(encoders + whole_body),
        connected(net.fusions) if net.stage > 1 else None,
        connected(net.decoders),
        runner(rest),
        runner(whole_body),
        tuple(layers[0] for layers in encoders),
    )


class RIE(LiftsWindows):
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

    decided_by = {"frames": "filter_widths, whose product it is"}

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
        check_sizes("rie", latent=latent, channels=channels)
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
        self.target = self.frames - 1 if causal else self.frames // 2  # the frame of the window that comes out
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
        self._evaluated = PreparedWeights(evaluated)
        self.register_buffer("order", torch.argsort(order), persistent=False)  # parts one after the other -> joints

    def check(self, keypoints: Tensor) -> None:
        """Raises ValueError unless ``keypoints`` is [B, R, J, 2]."""
        want = (self.frames, self.skeleton.num_joints, 2)
        if keypoints.dim() != 4 or tuple(keypoints.shape[1:]) != want:
            raise ValueError(f"rie: keypoints must be [B, {', '.join(map(str, want))}], got {list(keypoints.shape)}")

    def encoder_steps(self) -> list[Step]:
        return encoder_steps(list(self.encoders.values()), self.causal)

    def networks(self) -> Networks:
        """How the networks run now: in training, in evaluation, or module by module."""
        if not self._evaluated.fits(self):
            return called(self)
        if self.training:
            return trained(self)
        return self._evaluated(self) or evaluated(self)

    def features(self, keypoints: Tensor, networks: Networks | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """[B, R, J, 2] -> one [B, 1, L] per part, and [B, 1, L] of the whole body in the middle frame."""
        self.check(keypoints)
        parts = relative_encoding(keypoints, self.parts)  # differences: before anything is rounded
        middle = keypoints[:, keypoints.shape[1] // 2].flatten(1)[:, None]
        xs = [in_autocast_dtype(x) for x in (*parts, middle)]
        *local, whole = (networks or self.networks()).features(xs)
        return tuple(local), whole

    def local_features_dilated(self, keypoints: Tensor) -> tuple[Tensor, ...]:
        """[B, T >= R, J, 2] -> one [B, T - R + 1, L] per part, all relative to frame T // 2; in evaluation."""
        parts = relative_encoding(keypoints, self.parts)
        return tuple(e.dilated(x, self.causal) for e, x in zip(self.encoders.values(), parts))

    def fused_features(self, local: tuple[Tensor, ...], networks: Networks | None = None) -> tuple[Tensor, ...]:
        """What the other parts say of each part: [B, 1, L] per part."""
        others = joined([local[:i] + local[i + 1 :] for i in range(len(local))])
        return (networks or self.networks()).fusions(others)

    def decode(self, local: tuple[Tensor, ...], whole: Tensor, networks: Networks) -> Tensor:
        """Features -> [B, 1, J, 3]."""
        if self.stage == 1:
            parts = joined([(l, whole) for l in local])
        else:
            parts = joined([(l, f, whole) for l, f in zip(local, self.fused_features(local, networks))])
        return torch.cat(networks.decoders(parts), dim=-1).unflatten(-1, (-1, 3))[:, :, self.order]

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, R, J, 2] normalised screen units -> [B, 1, J, 3] metres.

        Published quirk: the root is a free output, trained towards 0.
        """
        networks = self.networks()
        return self.decode(*self.features(keypoints, networks), networks)

    def every_frame(self, clips: Tensor) -> Tensor:
        return torch.stack([self.sequence(clip) for clip in clips])

    @torch.no_grad()
    def sequence(self, keypoints: Tensor, chunk: int = 32) -> Tensor:
        """Every frame of a clip, in evaluation: [T, J, 2] -> [T, J, 3], the clip's ends repeated around it.

        Equal to ``self(windows)`` with one window per frame. A window is relative to its own middle frame, so all that
        windows share is what is linear in the keypoints: the encoders' first convolution, computed once per frame of
        the clip and corrected by the middle frame of each window. The encoders take ``chunk`` windows at a time.
        """
        T, J = keypoints.shape[0], self.skeleton.num_joints
        if self.training or keypoints.dim() != 3 or tuple(keypoints.shape[1:]) != (J, 2) or T == 0:
            state = " in training" if self.training else ""
            raise ValueError(f"rie: sequence takes [T, {J}, 2] in evaluation, got {list(keypoints.shape)}{state}")
        networks, pad = self.networks(), self.frames // 2
        if not networks.first:  # module by module: window by window
            ends = (2 * pad, 0) if self.causal else (pad, pad)
            clip = torch.cat((keypoints[:1].expand(ends[0], -1, -1), keypoints, keypoints[-1:].expand(ends[1], -1, -1)))
            windows = clip.unfold(0, self.frames, 1).movedim(-1, 1)
            return torch.cat([self(part)[:, 0] for part in windows.split(chunk)])
        before, after = (2 * pad, 0) if self.causal else (pad, pad)
        x = torch.cat((keypoints[:1].expand(before, -1, -1), keypoints, keypoints[-1:].expand(after, -1, -1)))
        middle = x[pad : pad + T]  # of the window that starts at frame t of x
        poses = []
        for t in range(0, T, PIECE):  # so that memory does not grow with the clip
            count = min(PIECE, T - t)
            poses += self._piece(x[t : t + count + self.frames - 1], middle[t : t + count], networks, chunk)
        return torch.cat(poses)

    def _piece(self, x: Tensor, middle: Tensor, networks: Networks, chunk: int) -> list[Tensor]:
        """``sequence`` of the T windows that start at the first T frames of x [T + frames - 1, J, 2], in parts."""
        T = len(middle)
        shared, own = zip(*(self._first_layer(x, middle, *part) for part in zip(self.parts, networks.first)))
        width = networks.first[0].weight.shape[2]
        C = shared[0].shape[1]
        buffers = x.new_empty(len(shared), min(chunk, T), self.frames // width, C)  # stays in the cache
        poses, local = [], []
        for t in range(0, T, chunk):
            count = min(chunk, T - t)
            parts = buffers[:, :count].unbind()
            for a, d, part in zip(shared, own, parts):  # a[t + i + width * k] - d[t + i] for window i of the chunk
                windows = a.as_strided(part.shape, (C, width * C, 1), a.storage_offset() + t * C)
                F.leaky_relu_(torch.sub(windows, d[t : t + count, None], out=part), SLOPE)
            local.append(networks.later_features(parts))
            done = t + count
            if len(local) == 8 or done == T:  # what follows has wide layers: many windows at a time
                features = tuple(torch.cat(part) for part in zip(*local))
                frames = middle[done - len(features[0]) : done].flatten(1)[:, None]
                poses.append(self.decode(features, networks.whole_body((frames,))[0], networks)[:, 0])
                local = []
        return poses

    @staticmethod
    def _first_layer(x: Tensor, middle: Tensor, joints: tuple[int, ...], layer: Layer) -> tuple[Tensor, Tensor]:
        """What a part's first layer is before its activation: [frames, C] for each first frame under the filter, less
        [T, C] for each window."""
        raw, to_root, to_middle = layer.weight.chunk(3, dim=1)  # [C, 2 * joints, w] each
        scale, shift = layer.affine.to(x.dtype)
        joints = table(joints, x.device)
        own = x.index_select(1, joints)
        part = torch.cat((own.flatten(1), (own - x[:, :1]).flatten(1)), dim=1)  # [frames, 4 * joints]
        filters = torch.cat((raw + to_middle, to_root), dim=1)
        along = F.conv1d(part.mT[None], filters)[0].mT * scale + shift
        return along.contiguous(), F.linear(middle.index_select(1, joints).flatten(1), to_middle.sum(2)) * scale
