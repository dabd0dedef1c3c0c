"""A lifter of your own on our ops, trained on the starter set: python examples/own_network.py [STEPS]

Two graph convolutions and attention over joints; it derives from ``LiftsFrames``, so everything takes it that takes a
lifter: ``net.lift`` and ``models.lift`` here, ``people.lifter.Lifter`` for whole videos.
"""

import sys

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.models.graph import row_normalised_adjacency
from posekernels.models.lifting import LiftsFrames
from posekernels.ops import graph_conv, joint_attention
from posekernels.pose.metrics import mpjpe
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.motion import load_starter

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000


class Mine(LiftsFrames):
    """[B, T, 17, 2] in screen units to [B, T, 17, 3] metres."""

    skeleton = H36M_17

    def __init__(self, channels: int = 64, heads: int = 4):
        super().__init__()
        J, linked = H36M_17.num_joints, row_normalised_adjacency(H36M_17)
        self.graph = nn.Parameter(torch.stack((torch.eye(J), linked)))  # [K = 2, J, J], learned from there
        self.inward = nn.Parameter(torch.randn(2, 2, channels) * 0.3)  # [K, Cin, Cout]
        self.outward = nn.Parameter(torch.randn(2, channels, 3) * 0.05)
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.heads = heads

    def forward(self, keypoints: Tensor) -> Tensor:
        x = graph_conv(keypoints, self.inward, self.graph, activation="gelu")  # one kernel, epilogue included
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        x = x + joint_attention(q, k, v).flatten(-2)
        return graph_conv(x, self.outward, self.graph)


def poses_of(clips) -> tuple[Tensor, Tensor]:
    """All frames: [N, 17, 2] and [N, 17, 3] metres, the root at 0."""
    poses = np.concatenate([clip.positions for clip in clips])
    poses[:, 0] = 0
    return torch.from_numpy(np.concatenate([clip.keypoints for clip in clips])), torch.from_numpy(poses)


torch.manual_seed(0)
data = load_starter()
(keypoints, target), (unseen, truth) = poses_of(data.train), poses_of(data.test[::8])
net = Mine()
optimizer = torch.optim.Adam(net.parameters(), 2e-3)
for step in range(STEPS):
    batch = torch.randint(len(keypoints), (256,))
    loss = mpjpe(net(keypoints[batch, None])[:, 0], target[batch]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 250 == 0 or step == STEPS - 1:
        print(f"step {step}: {1000 * loss.item():.0f} mm")

net.eval()
found = models.lift(net, unseen)  # mirrored and averaged, as published evaluations do
mean = target.mean(0).expand_as(truth)
print(f"held out: {1000 * mpjpe(found, truth).mean():.0f} mm; the mean pose: {1000 * mpjpe(mean, truth).mean():.0f} mm")
