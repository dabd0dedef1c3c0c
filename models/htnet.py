"""HTNet (Cai et al., ICASSP 2023): one frame of 2D joints to 3D, through joint, part and body levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posekernels.arrays import in_autocast_dtype
from posekernels.ops import HierarchyNetwork, dropout, hierarchy_network, joint_attention
from posekernels.pose.skeleton import H36M_17
from posekernels.prepared import PreparedWeights

from .graph import ModulatedGraphConv
from .layers import DropPath, Mlp
from .lifting import LiftsFrames

GRAPH_HIDDEN = 384  # a constant of the published network, whatever the channels
HEADS = 8
LIMB_JOINTS = (1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16)  # legs and arms, from the body outwards
LIMBS = torch.tensor(LIMB_JOINTS).view(4, 3)


class JointLevel(nn.Module):
    """Local joint constraints: two graph convolutions. Published quirk: the second norm sits inside the branch."""

    def __init__(self, channels: int, drop_path: float):
        super().__init__()
        self.norm_in = nn.LayerNorm(channels)
        self.conv1 = ModulatedGraphConv(channels, GRAPH_HIDDEN)
        self.conv2 = ModulatedGraphConv(GRAPH_HIDDEN, channels)
        self.norm_out = nn.LayerNorm(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.norm_in(x), activation="gelu")
        return x + self.drop_path(self.norm_out(self.conv2(h)))


class LimbMixing(nn.Module):
    """One vector per limb from its outer ``taps`` joints, written back to all but the innermost of them.

    Published quirk: it writes into the *normalised* input, so joints it does not write leave as norm(x).
    """

    def __init__(self, channels: int, hidden: int, taps: int, dropout: float, drop_path: float):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, taps, stride=taps)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, hidden, dropout)
        self.drop_path = DropPath(drop_path)
        limbs = LIMBS[:, -taps:]
        self.register_buffer("read", limbs.flatten(), persistent=False)
        self.register_buffer("written", limbs[:, 1:].flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)  # [B, J, C]
        limbs = self.conv(x[:, self.read].transpose(1, 2)).transpose(1, 2)  # [B, 4, C]
        limbs = self.drop_path(F.gelu(limbs))
        limbs = limbs + self.drop_path(self.mlp(self.norm_mlp(limbs)))
        repeats = len(self.written) // len(LIMBS)
        return x.index_copy(1, self.written, limbs.repeat_interleave(repeats, dim=1))


class PartLevel(nn.Module):
    """Intra-part constraints: limbs mixed three joints and two joints at a time, side by side."""

    def __init__(self, channels: int, hidden: int, dropout: float, drop_path: float):
        super().__init__()
        self.three = LimbMixing(channels, hidden, 3, dropout, drop_path)
        self.two = LimbMixing(channels, hidden, 2, dropout, drop_path)

    def forward(self, inner: Tensor, x: Tensor) -> Tensor:
        x = x + inner
        return self.three(x) + self.two(x) + x


class BodyLevel(nn.Module):
    """Global body interaction: self-attention over the joints."""

    def __init__(self, channels: int, drop_path: float):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, inner: Tensor, x: Tensor) -> Tensor:
        x = x + inner
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)  # each [B, J, H, C/H]
        h = joint_attention(q, k, v).flatten(2)
        h = dropout(self.proj(h), 0.1, self.training)  # fixed at 0.1 in the published network
        return x + self.drop_path(h)


def _weights(*modules: nn.Module) -> list[Tensor]:
    """By name: the order in which a module lists its parameters changes where one is registered again."""
    return [t for module in modules for t in (module.weight, module.bias)]


class Block(nn.Module):
    """Joint, part and body level, each on a third of the channels and fed by the one before; then an MLP on all."""

    def __init__(self, channels: int, hidden: int, dropout: float, drop_path: float):
        super().__init__()
        third = channels // 3
        self.joint = JointLevel(third, drop_path)
        self.part = PartLevel(third, hidden, dropout, drop_path)
        self.body = BodyLevel(third, drop_path)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, hidden, dropout)
        self.drop_path = DropPath(drop_path)

    def weights(self) -> list[Tensor]:
        """As ``hierarchy_block`` takes them."""
        joint, three, two, body = self.joint, self.part.three, self.part.two, self.body
        convolutions = [joint.conv1, joint.conv2]
        graph = [t for c in convolutions for t in (c.weight, c.modulation, c.adjacency_offset, c.bias)]
        part = _weights(*(m for p in (three, two) for m in (p.norm, p.conv, p.norm_mlp, p.mlp.fc1, p.mlp.fc2)))
        rest = _weights(body.norm, body.qkv, body.proj, self.norm, self.mlp.fc1, self.mlp.fc2)
        joints = [*_weights(joint.norm_in), *graph, *_weights(joint.norm_out)]
        return [joint.conv1.fixed_adjacency, *joints, *part, *rest]

    def forward(self, x: Tensor) -> Tensor:
        joint, part, body = x.chunk(3, dim=-1)
        joint = self.joint(joint)
        part = self.part(joint, part)
        body = self.body(part, body)
        x = torch.cat((joint, part, body), dim=-1)
        return x + self.drop_path(self.mlp(self.norm(x)))


def fused(net: HTNet) -> HierarchyNetwork:
    """The whole network as one op takes it."""
    ends = net.embed.weight, net.embed.bias, net.position, *_weights(net.norm, net.head)
    return HierarchyNetwork(ends, [block.weights() for block in net.blocks], limbs=LIMB_JOINTS, heads=HEADS)


class HTNet(LiftsFrames):
    """2D keypoints of single frames -> root-relative 3D joints.

    Args:
        depth: blocks.
        channels: C, a multiple of 24 (three thirds of eight heads).
        hidden: width of the MLPs.
        dropout: inside the MLPs, in training.
        drop_path: stochastic depth of the first and the last block; spaced evenly between.
    """

    def __init__(
        self,
        depth: int = 3,
        channels: int = 240,
        hidden: int = 1024,
        dropout: float = 0.1,
        drop_path: tuple[float, float] = (0.1, 0.3),
    ):
        super().__init__()
        if channels % 24 or channels <= 0:
            raise ValueError(f"htnet: channels must be a positive multiple of 24 (3 thirds of 8 heads), got {channels}")
        if depth < 1 or hidden < 1:
            raise ValueError(f"htnet: depth and hidden must be at least 1, got {depth} and {hidden}")
        self.skeleton = H36M_17
        self.embed = nn.Linear(2, channels)
        self.position = nn.Parameter(torch.zeros(1, self.skeleton.num_joints, channels))
        rates = torch.linspace(*drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(channels, hidden, dropout, rate) for rate in rates)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, 3)
        self._fused = PreparedWeights(fused)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, T, 17, 2] normalised screen units -> [B, T, 17, 3] metres. Frames are independent of each other.

        Published quirk: the root is predicted like the others; set it to 0 afterwards.
        """
        if keypoints.dim() != 4 or keypoints.shape[2:] != (17, 2):
            raise ValueError(f"htnet: keypoints must be [B, T, 17, 2], got {list(keypoints.shape)}")
        network = self._fused(self)
        if network is not None:  # inference: one op
            return hierarchy_network(in_autocast_dtype(keypoints), network)
        x = self.embed(keypoints.flatten(0, 1)) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).unflatten(0, keypoints.shape[:2])
