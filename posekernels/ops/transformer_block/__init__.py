"""``transformer_block``: a pre-norm transformer block over groups of tokens. Definition in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _cuda
from ..._dispatch import not_for_triton, requested
from ..._library import register
from ...arrays import follows_autocast
from ...checks import check_integer, check_number, check_shape, check_tensor
from ..temporal_attention import too_wide
from . import reference

PARAMETERS = (
    "norm1_weight",
    "norm1_bias",
    "qkv_weight",
    "qkv_bias",
    "proj_weight",
    "proj_bias",
    "norm2_weight",
    "norm2_bias",
    "fc1_weight",
    "fc1_bias",
    "fc2_weight",
    "fc2_bias",
    "norm3_weight",
    "norm3_bias",
)
_MAY_BE_NONE = ("qkv_bias", "proj_bias", "fc1_bias", "fc2_bias", "norm3_weight", "norm3_bias")


def _fake(x, weights, heads, scale, eps, backend):
    return torch.empty_like(x)


def _not_for_triton(x, weights, heads, *options) -> str | None:
    return too_wide(x.shape[-1] // heads) or not_for_triton(x, weights)


def _not_for_cuda(x, weights, heads, *options) -> str | None:
    return too_wide(x.shape[-1] // heads) or _cuda.refuses(x, weights)


_forward = register(
    __name__,
    "transformer_block",
    "(Tensor x, Tensor?[] weights, int heads, float scale, float eps, str backend) -> Tensor",
    _fake,
    needs={"cuda": ("joint_attention_cuda", "temporal_attention_cuda")},
    refuses={"triton": _not_for_triton, "cuda": _not_for_cuda},
    in_memory_as=lambda x, *rest: torch.empty_like(x).copy_(reference.transformer_block(x, *rest)),
)
_forward.gradient = _forward.recomputed


@follows_autocast
def transformer_block(
    x: Tensor,
    *parameters: Tensor | None,
    heads: int,
    scale: float | None = None,
    eps: float = 1e-6,
    backend: str | None = None,
) -> Tensor:
    """A pre-norm transformer block among the N tokens of every group, and a last norm.

    ``x += proj(attention(qkv(norm1(x))))``; ``x += fc2(gelu(fc1(norm2(x))))``; ``x = norm3(x)``

    Args:
        x: [..., N, C], any leading axes and strides; float32, float64 or bfloat16, on a GPU float16 too. A transposed
            view is worked on where it lies: ``x.transpose(1, 2)`` lets [B, T, J, C] attend over T without a copy.
        parameters: fourteen tensors in the order of ``PARAMETERS``: layer norm 1 [C] x 2; projections to [q | k | v],
            each [head | channel], [3C, C] and [3C]; output projection [C, C], [C]; layer norm 2; MLP [M, C], [M],
            [C, M], [C]; layer norm 3. Biases may be None, and so may layer norm 3 as a whole.
        heads: divides C.
        scale: of the scores; 1 / sqrt(C / heads) unless given.
        eps: of the norms.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., N, C], dtype of ``x``, in memory as ``x`` is where ``x`` is dense.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor, by running the reference again.
    Source: Dosovitskiy et al., ICLR 2021, eq. 2 and 3; the last norm is MixSTE's.
    """
    op = "transformer_block"
    check_tensor(op, "x", x, min_rank=2)
    C = x.shape[-1]
    if len(parameters) != len(PARAMETERS):
        raise ValueError(
            f"{op}: expected {len(PARAMETERS)} parameters ({', '.join(PARAMETERS)}), got {len(parameters)}"
        )
    named = dict(zip(PARAMETERS, parameters))
    for name, tensor in named.items():
        if tensor is not None or name not in _MAY_BE_NONE:
            check_tensor(op, name, tensor, like=x)
    if (named["norm3_weight"] is None) != (named["norm3_bias"] is None):
        raise ValueError(f"{op}: norm3_weight and norm3_bias must both be given or both be None")
    check_tensor(op, "fc1_weight", named["fc1_weight"], rank=2)
    M = named["fc1_weight"].shape[0]
    sizes = {"qkv_weight": (3 * C, C), "qkv_bias": (3 * C,), "proj_weight": (C, C)}
    sizes |= {"fc1_weight": (M, C), "fc1_bias": (M,), "fc2_weight": (C, M)}
    for name, tensor in named.items():
        if tensor is not None:
            check_shape(op, name, tensor, sizes.get(name, (C,)), f"x is {list(x.shape)}, hidden width {M}")
    heads = check_integer(op, "heads", heads, 1)
    if C % heads:
        raise ValueError(f"{op}: heads must divide C={C}, got {heads}")
    scale = (C // heads) ** -0.5 if scale is None else check_number(op, "scale", scale)
    eps = check_number(op, "eps", eps, 0)
    return _forward(x, list(parameters), heads, scale, eps, backend=requested(backend))
