"""What a user's program calls, for the type checker (test_install.py): it is not run."""

from pathlib import Path

import torch
from torch import Tensor

import posekernels
from posekernels import models, ops
from posekernels.archive import read_npz
from posekernels.people.lifter import load_lifter
from posekernels.pose import camera, metrics

net = models.load("lifter")
assert isinstance(net, models.Lifts)
poses: Tensor = net.lift(torch.zeros(9, 17, 2))
made = models.create("htnet")
models.save_published(made, Path("net.pth"))
y: Tensor = ops.graph_conv(torch.zeros(1, 17, 2), torch.zeros(2, 2, 4), torch.zeros(2, 17, 17))
attended: Tensor = ops.temporal_attention(torch.zeros(1, 9, 2, 8), torch.zeros(1, 9, 2, 8), torch.zeros(1, 9, 2, 8))
with posekernels.use_backend("reference"):
    told: str = posekernels.explain("graph_conv")
error: Tensor = metrics.mpjpe(torch.zeros(1, 17, 3), torch.zeros(1, 17, 3))
cameras = camera.h36m_cameras("S1")
arrays: dict[str, object] = read_npz("a.npz")
lifter = load_lifter(None)
