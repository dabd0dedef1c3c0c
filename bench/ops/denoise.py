"""``denoise``: 50 steps and one, at one pose, a chunk of 243 and 1024, beside the published way to compute a step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import OpCase
from posekernels.models import create
from posekernels.models.diffpose import Diffusion, Sampling
from posekernels.ops import GraphDenoiser, denoise_loop
from posekernels.ops.denoise.reference import TENSORS

MULTIPLY_ADDS = 12_630_000  # per pose and step, the time embedding apart
PARAMETERS = 655_786
HEADS = 4


def published_conv(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As the published layer: Laplacian and polynomials anew at every call, weights broadcast over the batch."""
    eye = torch.eye(len(adjacency)).to(adjacency)
    scale = torch.diag(adjacency.sum(1) ** -0.5)
    laplacian = eye - scale @ adjacency @ scale
    polynomials = torch.stack((eye, laplacian, 2 * laplacian @ laplacian - eye))[:, None]
    return (torch.matmul(torch.matmul(polynomials, x), weight[:, None])).sum(0) + bias


def published(i: dict[str, Tensor]) -> Tensor:
    """The reverse chain of the published program, operator by operator, the time embedding apart."""
    x, L = i["x"], len(i["graph"])
    adjacency = torch.eye(17).to(i["polynomials"]) - i["polynomials"][1]
    for step, c in enumerate(i["coefficients"]):
        h = published_conv(x, adjacency, i["in_weight"], i["in_bias"])
        for layer in range(L):
            n = _norm(h, i["norm1"][layer])
            q, k, v = (n @ i["qkv_weight"][layer] + i["qkv_bias"][layer]).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
            p = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            h = h + (p @ v).transpose(1, 2).flatten(2) @ i["proj_weight"][layer] + i["proj_bias"][layer]
            n = i["graph"][layer] @ _norm(h, i["norm2"][layer])
            n = i["graph"][layer] @ F.relu(n @ i["fc1_weight"][layer] + i["fc1_bias"][layer])
            h = h + n @ i["fc2_weight"][layer] + i["fc2_bias"][layer]
            z = F.relu(published_conv(h, adjacency, i["conv1_weight"][layer], i["conv1_bias"][layer]))
            z = z + i["shifts"][step, layer]
            h = h + F.relu(published_conv(z, adjacency, i["conv2_weight"][layer], i["conv2_bias"][layer]))
        e = published_conv(h, adjacency, i["out_weight"], i["out_bias"])
        x = c[2] * x + c[3] * e
    return x


def _norm(x: Tensor, gain_shift: Tensor) -> Tensor:
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return gain_shift[0] * (x - mean) / (std + 1e-6) + gain_shift[1]


def call(i: dict[str, Tensor], backend: str) -> Tensor:
    weights = {n: t for n, t in i.items() if n not in ("x", "shifts", "coefficients")}
    return denoise_loop(i["x"], GraphDenoiser(**weights, heads=HEADS), i["shifts"], i["coefficients"], backend=backend)


def case(B: int, steps: int, **extra) -> OpCase:
    def make():
        torch.manual_seed(0)
        net = create("gcndiff").eval()
        with torch.no_grad():
            for parameter in net.parameters():  # the published start has all layers alike
                parameter.add_(0.02 * torch.randn_like(parameter))
        timesteps, coefficients = Diffusion().coefficients(Sampling(steps=steps, limit=50))
        weights = dict(zip(TENSORS, net.prepared().tensors, strict=True))
        own = {"shifts": net.time_shifts(timesteps), "coefficients": coefficients}
        return {"x": 0.5 * torch.randn(B, 17, 5)} | weights | own

    flops = 2.0 * MULTIPLY_ADDS * B * steps

    def moved(size: int) -> float:
        return PARAMETERS * size + 2 * B * 17 * 5 * size

    size, peers = f"B={B} S={steps}", {"published": published}
    rest = ("x", "shifts", "coefficients", *(name for name in TENSORS if not name.endswith("_weight")))
    options = {"peers": peers, "float32": rest, "compiles": steps == 1}
    return OpCase("denoise", size, make, call, flops, moved, **options, **extra)


CASES = [
    case(1, 50, quick=True),
    case(1, 1),
    case(32, 1, counted_only=True),
    case(243, 1, quick=True),
    case(1024, 1),
    case(7, 3),
    case(1024, 50, gpu_only=True),
    case(5120, 50, gpu_only=True),
]
