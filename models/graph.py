"""Graph layers over a skeleton that several networks share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels import derived
from posekernels.arrays import in_autocast_dtype
from posekernels.ops import GraphDenoiser, GraphLayer, GraphNetwork, dropout, graph_conv, graph_network
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.prepared import OneCall, PreparedWeights, looked_at, peculiar

from .layers import AnnotatedNorm, folded_batch_norm


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
        """[K, J, J]: the symmetrised sum of fixed and learnt; diagonal and rest apart when there are two weights.

        Under ``torch.no_grad`` it is kept until a parameter changes.
        """
        if torch.is_grad_enabled():
            return self._adjacency()
        return derived("adjacency", self._adjacency, self.adjacency_offset, self.fixed_adjacency)

    def _adjacency(self) -> Tensor:
        matrix = self.fixed_adjacency + self.adjacency_offset
        matrix = (matrix + matrix.T) / 2
        if self.weight.shape[0] == 1:
            return matrix[None]
        return torch.stack((matrix * self.diagonal, matrix * (1 - self.diagonal)))

    def forward(self, x: Tensor, **epilogue) -> Tensor:
        """``epilogue``: scale, shift, residual, activation of ``graph_conv``."""
        return graph_conv(x, self.weight, self.adjacency(), self.bias, modulation=self.modulation, **epilogue)

    def folded(
        self,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        activation: str = "none",
        residual: int | None = None,
    ) -> GraphLayer:
        """The convolution with what comes after it, as a layer of ``graph_network``."""
        affine = torch.stack((torch.ones_like(self.bias), self.bias))
        if scale is not None:
            affine = torch.stack((scale, scale * self.bias + shift))
        return GraphLayer(self.weight, self.adjacency(), self.modulation, affine, activation, residual)


def row_normalised_adjacency(skeleton: Skeleton = H36M_17) -> Tensor:
    """[J, J] the adjacency with self loops, each row divided by its sum. Published quirk: it is not symmetric."""
    adjacency = skeleton.adjacency() + torch.eye(skeleton.num_joints)
    return adjacency / adjacency.sum(1, keepdim=True)


def laplacian(adjacency: Tensor, normalise: bool = True) -> Tensor:
    """[J, J] I - D^-1/2 A D^-1/2 with D the row sums of A, or D - A: both are I - A for a row-normalised A."""
    if not normalise:
        return torch.diag(adjacency.sum(1)) - adjacency
    scale = adjacency.sum(1).rsqrt()
    return torch.eye(len(adjacency)).to(adjacency) - scale[:, None] * adjacency * scale


def chebyshev_polynomials(matrix: Tensor, order: int = 2) -> Tensor:
    """[order + 1, J, J] T_0 = I, T_1 = L, T_k = 2 L T_{k-1} - T_{k-2}. Published quirk: L is not rescaled first."""
    terms = [torch.eye(len(matrix)).to(matrix), matrix]
    while len(terms) <= order:
        terms.append(2 * matrix @ terms[-1] - terms[-2])
    return torch.stack(terms[: order + 1])


class ChebConv(nn.Module):
    """Chebyshev graph convolution (Defferrard et al., 2016), [..., J, Cin] -> [..., J, Cout].

    Weight and bias keep the published shapes (order + 1, 1, Cin, Cout) and (1, 1, Cout). The polynomials are a constant
    of the skeleton and are in no checkpoint.
    """

    def __init__(self, in_features: int, out_features: int, skeleton: Skeleton = H36M_17, order: int = 2):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(order + 1, 1, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(1, 1, out_features))
        nn.init.xavier_normal_(self.weight)  # on the 4-d tensor, as published: a small 1 / sqrt(2 Cin Cout)
        polynomials = chebyshev_polynomials(laplacian(row_normalised_adjacency(skeleton)), order)
        self.register_buffer("polynomials", polynomials, persistent=False)

    def forward(self, x: Tensor, **epilogue) -> Tensor:
        """``epilogue``: residual, activation of ``graph_conv``."""
        return graph_conv(x, self.weight.squeeze(1), self.polynomials, self.bias.flatten(), **epilogue)


class LearntGraph(nn.Module):
    """Two linear layers that mix joints by one learnt adjacency (GraFormer), [B, J, C] -> [B, J, C].

    The adjacency is normalised by its *column* sums + 1e-5, on both sides; the bias is not mixed. A column sum below
    -1e-5 gives NaN, as published.
    """

    def __init__(self, channels: int, skeleton: Skeleton = H36M_17):
        super().__init__()
        self.adjacency = nn.Parameter(torch.eye(skeleton.num_joints))
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)
        self._one_call = OneCall()

    def graph(self) -> Tensor:
        """[J, J] the normalised adjacency."""
        scale = (self.adjacency.sum(0) + 1e-5).rsqrt()
        return scale[:, None] * self.adjacency * scale

    def forward(self, x: Tensor) -> Tensor:
        graph = self.graph()[None]
        if not self._one_call.fits(self):
            return self.fc2(graph @ F.relu(self.fc1(graph @ x)))  # mixing first is the same: it is linear
        x = graph_conv(x, self.fc1.weight.T[None], graph, self.fc1.bias, activation="relu")
        return graph_conv(x, self.fc2.weight.T[None], graph, self.fc2.bias)


class JointAttention(nn.Module):
    """Attention over the joints of a pose, [B, J, C] -> [B, J, C]; dropout 0.1 on the probabilities in training."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        # Published start: the four projections are copies of one another.
        self.key, self.value, self.out = (copy.deepcopy(self.query) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        if looked_at() is None:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        else:  # which has no forward-mode derivative on the CPU
            scores = q @ k.mT * q.shape[-1] ** -0.5
            x = F.dropout(scores.softmax(-1), 0.1, self.training) @ v
        return self.out(x.transpose(1, 2).flatten(2))


class GraphAttention(nn.Module):
    """GraFormer's layer: attention over the joints, then a learnt graph, each pre-norm with a residual."""

    def __init__(self, channels: int, heads: int, dropout: float, skeleton: Skeleton = H36M_17):
        super().__init__()
        self.norm1 = AnnotatedNorm(channels)
        self.attention = JointAttention(channels, heads)
        self.norm2 = AnnotatedNorm(channels)
        self.graph = LearntGraph(channels, skeleton)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = x + dropout(self.attention(self.norm1(x)), self.dropout, self.training)
        return x + dropout(self.graph(self.norm2(x)), self.dropout, self.training)


class ChebBlock(nn.Module):
    """x + relu(cheb(relu(cheb(x)) + shift)), ``shift`` [B, C] the same for all joints; dropout 0.1 after each relu."""

    def __init__(self, channels: int, skeleton: Skeleton = H36M_17):
        super().__init__()
        self.conv1 = ChebConv(channels, channels, skeleton)
        self.conv2 = ChebConv(channels, channels, skeleton)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        h = dropout(self.conv1(x, activation="relu"), 0.1, self.training)
        if shift is not None:
            h = h + shift[:, None]
        if not self.training:
            return self.conv2(h, activation="relu", residual=x)
        return x + dropout(self.conv2(h, activation="relu"), 0.1)


class GraphTransformer(nn.Module):
    """What GCNdiff and GCNpose share: a Chebyshev convolution in, L pairs of attention and block, a convolution out.

    Args:
        name: of the network, for its errors.
        block: makes one Chebyshev block from (channels, skeleton).
        channels, layers, heads, dropout, in_channels, out_channels, skeleton: see ``GCNdiff``.
    """

    def __init__(
        self,
        name: str,
        block: Callable[[int, Skeleton], ChebBlock],
        channels: int,
        layers: int,
        heads: int,
        dropout: float,
        in_channels: int,
        out_channels: int,
        skeleton: Skeleton,
    ):
        super().__init__()
        if channels <= 0 or heads <= 0 or channels % heads:
            raise ValueError(f"{name}: channels must be a positive multiple of heads={heads}, got {channels}")
        if layers < 1:
            raise ValueError(f"{name}: layers must be at least 1, got {layers}")
        self.name, self.skeleton = name, skeleton
        self.conv_in = ChebConv(in_channels, channels, skeleton)
        self.blocks = nn.ModuleList(block(channels, skeleton) for _ in range(layers))
        first = GraphAttention(channels, heads, dropout, skeleton)
        # Published start: every layer is a copy of the first.
        self.attention = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        self.conv_out = ChebConv(channels, out_channels, skeleton)
        self._prepared = PreparedWeights(graph_denoiser)

    def prepared(self) -> GraphDenoiser:
        """The weights for the ``denoise`` ops; made again only after a parameter has changed."""
        return self._prepared.value(self)

    def fits(self) -> bool:
        """Whether the ``denoise`` ops compute what the modules do: see ``OneCall``."""
        return self._prepared.fits(self)

    def check(self, x: Tensor) -> None:
        """Raises ValueError unless ``x`` is [B, J, Cin] of the network."""
        want = (self.skeleton.num_joints, self.conv_in.weight.shape[2])
        if x.dim() != 3 or x.shape[1:] != want:
            raise ValueError(f"{self.name}: x must be [B, {want[0]}, {want[1]}], got {list(x.shape)}")

    def in_one_call(self, x: Tensor) -> GraphDenoiser | None:
        """The weights where ``graph_transformer`` computes this: in inference, with dtypes that agree; or None."""
        weights = self._prepared(self)
        return weights if x.dtype == self.conv_in.weight.dtype else None

    def layer_by_layer(self, x: Tensor, *time: Tensor) -> Tensor:
        """[B, J, Cin] -> [B, J, Cout]; ``time``: what every block takes beside the pose."""
        x = self.conv_in(x)
        for attention, block in zip(self.attention, self.blocks):
            x = block(attention(x), *time)
        return self.conv_out(x)


def graph_denoiser(net: nn.Module) -> GraphDenoiser:
    """The weights of GCNdiff or GCNpose as the ``denoise`` kernels read them."""

    def linear(layers: list[nn.Linear]) -> Tensor:
        return torch.stack([m.weight.T for m in layers]).contiguous()

    def conv(layers: list[ChebConv]) -> tuple[Tensor, Tensor]:
        return torch.stack([m.weight.squeeze(1) for m in layers]), torch.stack([m.bias.flatten() for m in layers])

    def norm(layers: list[AnnotatedNorm]) -> Tensor:
        return torch.stack([torch.stack((m.gain, m.shift)) for m in layers])

    attention = [m.attention for m in net.attention]
    qkv = [linear([getattr(m, name) for m in attention]) for name in ("query", "key", "value")]
    qkv_bias = [torch.stack([getattr(m, name).bias for m in attention]) for name in ("query", "key", "value")]
    graphs = [m.graph for m in net.attention]
    conv1, conv2 = (conv([getattr(m, name) for m in net.blocks]) for name in ("conv1", "conv2"))
    weights = GraphDenoiser(
        polynomials=net.conv_in.polynomials,
        graph=torch.stack([m.graph() for m in graphs]),
        in_weight=net.conv_in.weight.squeeze(1),
        in_bias=net.conv_in.bias.flatten(),
        norm1=norm([m.norm1 for m in net.attention]),
        qkv_weight=torch.cat(qkv, dim=-1),
        qkv_bias=torch.cat(qkv_bias, dim=-1),
        proj_weight=linear([m.out for m in attention]),
        proj_bias=torch.stack([m.out.bias for m in attention]),
        norm2=norm([m.norm2 for m in net.attention]),
        fc1_weight=linear([m.fc1 for m in graphs]),
        fc1_bias=torch.stack([m.fc1.bias for m in graphs]),
        fc2_weight=linear([m.fc2 for m in graphs]),
        fc2_bias=torch.stack([m.fc2.bias for m in graphs]),
        conv1_weight=conv1[0],
        conv1_bias=conv1[1],
        conv2_weight=conv2[0],
        conv2_bias=conv2[1],
        out_weight=net.conv_out.weight.squeeze(1),
        out_bias=net.conv_out.bias.flatten(),
        heads=attention[0].heads,
    )
    return weights.map(Tensor.detach)  # a view of a parameter asks for gradients even when made without


class NormedGraphConv(nn.Module):
    """Modulated graph convolution, batch norm over batch and joints, ReLU; [B, J, Cin] -> [B, J, Cout]."""

    def __init__(self, in_features: int, out_features: int, weights: int, skeleton: Skeleton):
        super().__init__()
        self.conv = ModulatedGraphConv(in_features, out_features, weights, skeleton)
        self.norm = nn.BatchNorm1d(out_features)

    def folded(self, residual: int | None = None) -> GraphLayer:
        """In evaluation: running statistics are constants, and part of the convolution's epilogue."""
        return self.conv.folded(*folded_batch_norm(self.norm), "relu", residual)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not self.training and peculiar(self.norm, False) is None:
            scale, shift = folded_batch_norm(self.norm)
            return self.conv(x, scale=scale, shift=shift, activation="relu", residual=residual)
        h = self.conv(x)
        h = F.relu(self.norm(h.flatten(0, 1)).view_as(h))
        return h if residual is None else h + residual


class GraphResidual(nn.Module):
    """x + GC(GC(x)); nothing after the sum."""

    def __init__(self, features: int, weights: int, skeleton: Skeleton):
        super().__init__()
        self.conv1 = NormedGraphConv(features, features, weights, skeleton)
        self.conv2 = NormedGraphConv(features, features, weights, skeleton)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), residual=x)


def fused(net: ModulatedGCN) -> GraphNetwork:
    """The whole network as one op takes it."""
    layers = [net.input.folded()]
    for block in net.layers:
        layers += [block.conv1.folded(), block.conv2.folded(residual=len(layers) - 1)]
    return GraphNetwork([*layers, net.output.folded()])


class ModulatedGCN(nn.Module):
    """Modulated GCN (Zou & Tang, ICCV 2021) without its non-local block: one frame of 2D joints -> ``outputs`` each.

    Args:
        hidden: channels between the layers.
        outputs: channels per joint that come out; plain numbers, no activation.
        weights: 2 or 1, see ``ModulatedGraphConv``.
        depth: residual layers.
        skeleton: of input and output.
    """

    def __init__(
        self, hidden: int = 256, outputs: int = 3, weights: int = 2, depth: int = 4, skeleton: Skeleton = H36M_17
    ):
        super().__init__()
        if hidden < 1 or outputs < 1 or depth < 0:
            raise ValueError(f"hidden and outputs must be at least 1 and depth 0, got {hidden}, {outputs} and {depth}")
        self.skeleton, self.outputs = skeleton, outputs
        self.input = NormedGraphConv(2, hidden, weights, skeleton)
        self.layers = nn.ModuleList(GraphResidual(hidden, weights, skeleton) for _ in range(depth))
        self.output = ModulatedGraphConv(hidden, outputs, weights, skeleton)
        self._fused = PreparedWeights(fused)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] normalised screen units -> [B, T, J, outputs]. Frames are independent of each other."""
        joints = self.skeleton.num_joints
        if keypoints.dim() != 4 or keypoints.shape[2:] != (joints, 2):
            raise ValueError(f"keypoints must be [B, T, {joints}, 2], got {list(keypoints.shape)}")
        network = self._fused(self)
        if network is not None:  # inference: one op
            return graph_network(in_autocast_dtype(keypoints), network)
        x = self.input(keypoints.flatten(0, 1))
        for layer in self.layers:
            x = layer(x)
        return self.output(x).unflatten(0, keypoints.shape[:2])
