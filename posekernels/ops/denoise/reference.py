"""The definition of ``denoise``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._attention import attend
from ..._philox import normals

EPS = 1e-6
TENSORS = (  # of ``GraphDenoiser``, in the order of the raw op's ``weights``
    *("polynomials", "graph", "in_weight", "in_bias", "norm1", "qkv_weight", "qkv_bias", "proj_weight", "proj_bias"),
    *("norm2", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias", "conv1_weight", "conv1_bias", "conv2_weight"),
    *("conv2_bias", "out_weight", "out_bias"),
)
_Weights = namedtuple("_Weights", (*TENSORS, "heads"))
DOMAIN = 0x44440000  # keeps these counters apart from those of other ops under the same seed


def norm(x: Tensor, gain_shift: Tensor) -> Tensor:
    """The norm with unbiased std and eps outside the root; ``gain_shift`` [2, C]."""
    std, mean = torch.std_mean(x, dim=-1, keepdim=True)
    return gain_shift[0] * (x - mean) / (std + EPS) + gain_shift[1]


def conv(x: Tensor, polynomials: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """sum_k T_k (x W_k) + bias: [B, J, Cin] -> [B, J, Cout]."""
    return torch.einsum("kij,bjc,kcd->bid", polynomials, x, weight) + bias


def attention(x: Tensor, w, layer: int) -> Tensor:
    """[B, J, C] -> [B, J, C]: multi-head attention over the joints, projections included."""
    heads = w.heads
    q, k, v = (x @ w.qkv_weight[layer] + w.qkv_bias[layer]).unflatten(-1, (3, heads, -1)).movedim(-3, 0)
    return attend(q, k, v, q.shape[-1] ** -0.5).flatten(-2) @ w.proj_weight[layer] + w.proj_bias[layer]


def network(x: Tensor, w, shift: Tensor | None) -> Tensor:
    """[B, J, Cin] -> [B, J, Cout]; ``shift`` [(B,) L, C] is added after the first relu of each Chebyshev block."""
    h = conv(x, w.polynomials, w.in_weight, w.in_bias)
    for i in range(len(w.graph)):
        h = h + attention(norm(h, w.norm1[i]), w, i)
        mixed = w.graph[i] @ norm(h, w.norm2[i])
        mixed = w.graph[i] @ F.relu(mixed @ w.fc1_weight[i] + w.fc1_bias[i])
        h = h + mixed @ w.fc2_weight[i] + w.fc2_bias[i]
        z = F.relu(conv(h, w.polynomials, w.conv1_weight[i], w.conv1_bias[i]))
        if shift is not None:
            z = z + shift[..., i, None, :]
        h = h + F.relu(conv(z, w.polynomials, w.conv2_weight[i], w.conv2_bias[i]))
    return conv(h, w.polynomials, w.out_weight, w.out_bias)


def draw(shape: tuple[int, int, int], seed: int, step: int, first_pose: int, device) -> Tensor:
    """[B, J, C] standard normals, float64: element e of pose b is number e % 4 of the counter (e // 4, step, pose).

    A function of the seed and of what it is for, so that neither the batch nor its split changes it.
    """
    B, J, C = shape
    blocks = torch.arange(-(-J * C // 4), device=device)
    poses = first_pose + torch.arange(B, device=device)[:, None]
    steps = torch.full_like(blocks, DOMAIN + step)
    return normals((blocks, steps, poses & 0xFFFFFFFF, poses >> 32), seed).flatten(1)[:, : J * C].reshape(shape)


def loop(
    x: Tensor, w, shifts: Tensor, coefficients: Tensor, noise: Tensor | None, seed: int | None, first_pose: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(x after the last step, x after every step [S, B, J, C], clean estimate of every step [S, B, J, C])."""
    states, estimates = [], []
    reads = coefficients.device.type == "cpu"  # a GPU would be waited for: 0 times the noise is cheaper
    for s, (clean_x, clean_e, keep_x, keep_e, keep_z) in enumerate(coefficients.to(x.dtype)):
        e = network(x, w, shifts[s])
        estimates.append(clean_x * x + clean_e * e)
        x = keep_x * x + keep_e * e
        if noise is not None:
            x = x + keep_z * noise[s]
        elif seed is not None and not (reads and keep_z == 0):
            x = x + keep_z * draw(tuple(x.shape), seed, s, first_pose, x.device).to(x.dtype)
        states.append(x)
    return x, torch.stack(states), torch.stack(estimates)


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep) -> tuple[Tensor, Tensor, Tensor]:
    """``loop``, or with ``coefficients`` None one pass of the ``network``, as the raw op has it."""
    w = _Weights(*(t.to(x.dtype) for t in weights), heads)  # 16-bit matrices count as the numbers they hold
    if coefficients is None:
        return network(x, w, None if shifts is None else shifts[0]), x.new_empty(0), x.new_empty(0)
    y, states, estimates = loop(x, w, shifts, coefficients, noise, seed, first_pose)
    return (y, states, estimates) if keep else (y, x.new_empty(0), x.new_empty(0))
