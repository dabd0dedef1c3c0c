"""``hierarchy_block``: a skeleton seen by joints, limbs and as a whole, then an MLP. ``reference.py`` defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _cuda
from ..._arrays import follows_autocast
from ..._checks import check_shape, check_tensor
from ..._dispatch import Kernel, no_triton, not_for_triton, requested
from ..._library import register
from ..._native import no_cuda
from ..._recompute import recomputed
from ..joint_attention import MAX_HEAD
from . import cpu, reference

MAX_JOINTS = 32
_CONV = ("weight", "modulation", "offset", "bias")
_BRANCH = ("norm_weight", "norm_bias", "conv_weight", "conv_bias", "norm_mlp_weight", "norm_mlp_bias")
_MLP = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
PARAMETERS = (
    "adjacency",
    *("joint_norm_in_weight", "joint_norm_in_bias"),
    *(f"joint_conv1_{n}" for n in _CONV),
    *(f"joint_conv2_{n}" for n in _CONV),
    *("joint_norm_out_weight", "joint_norm_out_bias"),
    *(f"part_three_{n}" for n in (*_BRANCH, *_MLP)),
    *(f"part_two_{n}" for n in (*_BRANCH, *_MLP)),
    *("body_norm_weight", "body_norm_bias"),
    *("body_qkv_weight", "body_qkv_bias", "body_proj_weight", "body_proj_bias"),
    *("norm_weight", "norm_bias"),
    *_MLP,
)


def _too_wide(x: Tensor, heads: int) -> str | None:
    width = x.shape[-1] // 3 // heads
    return f"takes heads of at most {MAX_HEAD} channels, got {width}" if width > MAX_HEAD else None


def _not_for_triton(x, weights, joints, heads) -> str | None:
    return _too_wide(x, heads) or not_for_triton(x, *weights)


def _no_cuda() -> str | None:
    return no_cuda("graph_conv_cuda", "joint_attention_cuda")


def _not_for_cuda(x, weights, joints, heads) -> str | None:
    return _too_wide(x, heads) or _cuda.refuses(x, *weights)


_FOLDER = "posekernels.ops.hierarchy_block"
_forward = register(
    "hierarchy_block",
    "(Tensor x, Tensor[] weights, int[] joints, int heads, str backend) -> Tensor",
    lambda x, weights, joints, heads, backend: torch.empty_like(x, memory_format=torch.contiguous_format),
    {
        "cpu": Kernel(cpu.hierarchy_block, cpu.missing, cpu.refuses),
        "triton": Kernel(f"{_FOLDER}.triton:hierarchy_block", no_triton, _not_for_triton),
        "cuda": Kernel(f"{_FOLDER}.cuda:hierarchy_block", _no_cuda, _not_for_cuda, proven=False),
        "reference": Kernel(reference.inference),
    },
)


def _shapes(J: int, C: int, G: int, H: int) -> list[tuple[int, ...]]:
    """Of ``PARAMETERS``."""
    mlp = [(H, C), (H,), (C, H), (C,)]
    branches = [[(C,), (C,), (C, C, taps), (C,), (C,), (C,), *mlp] for taps in (3, 2)]
    conv1, conv2 = [(2, C, G), (J, G), (J, J), (G,)], [(2, G, C), (J, C), (J, J), (C,)]
    body = [(C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,)]
    last = [(3 * C,), (3 * C,), (H, 3 * C), (H,), (3 * C, H), (3 * C,)]
    return [(J, J), (C,), (C,), *conv1, *conv2, (C,), (C,), *branches[0], *branches[1], *body, *last]


@follows_autocast
def hierarchy_block(
    x: Tensor, parameters: Sequence[Tensor], *, limbs: Sequence[int], heads: int, backend: str | None = None
) -> Tensor:
    """A block of HTNet in inference: three levels, each on a third of the channels and fed by the one before; an MLP.

    ``joint += norm(conv2(gelu(conv1(norm(joint)))))``; ``u = part + joint``; ``part = three(u) + two(u) + u``;
    ``t = body + part``; ``body = t + proj(attention(qkv(norm(t))))``; ``x = [joint | part | body]``;
    ``x += mlp(norm(x))``

    Args:
        x: [..., J, 3 C], J <= 32; float32, float64 or bfloat16, any strides.
        parameters: 45 tensors of the dtype of ``x`` in the order of ``PARAMETERS``; ``adjacency`` and each ``offset``
            are [J, J]: their sum, symmetrised, mixes the joints in a convolution, the diagonal with ``weight[0]``, the
            rest with ``weight[1]``. See ``reference.limb_branch`` for the part level.
        limbs: joints of the limbs, three each, from the body outwards, one limb after the other.
        heads: divides C.
        backend: see ``posekernels.use_backend``.
    Returns:
        The shape and dtype of ``x``, contiguous.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor, by running the reference again.
    Source: Cai et al., ICASSP 2023, section 2; norms have eps 1e-5, the MLP's 1e-6, GELU is the erf form.
    """
    op = "hierarchy_block"
    check_tensor(op, "x", x, min_rank=2)
    J, channels = x.shape[-2:]
    if channels % 3 or not 1 <= J <= MAX_JOINTS:
        raise ValueError(f"{op}: x must be [..., J <= {MAX_JOINTS}, 3 C], got {list(x.shape)}")
    C = channels // 3
    if heads < 1 or C % heads:
        raise ValueError(f"{op}: heads must divide C = {C}, got {heads}")
    if len(parameters) != len(PARAMETERS):
        raise ValueError(f"{op}: parameters must be {len(PARAMETERS)} tensors, got {len(parameters)}")
    limbs = [int(j) for j in limbs]
    if not limbs or len(limbs) % 3 or len(set(limbs)) != len(limbs) or not all(0 <= j < J for j in limbs):
        raise ValueError(f"{op}: limbs must be different joints of {J}, three for each limb, got {limbs}")
    G, H = parameters[3].shape[-1], parameters[-4].shape[0]
    if not torch.compiler.is_compiling():  # 45 checks: traced once is enough
        for name, tensor, shape in zip(PARAMETERS, parameters, _shapes(J, C, G, H)):
            if tensor.shape != shape or tensor.dtype is not x.dtype:
                check_tensor(op, name, tensor, like=x)
                check_shape(op, name, tensor, shape, f"x is {list(x.shape)}")
    backend = requested(backend)
    flat = x.reshape(-1, J, channels)
    if backend == "reference":  # plain PyTorch, inlined: exports to ONNX, differentiates twice
        return reference.hierarchy_block(flat, parameters, limbs, heads).view(x.shape)
    y = recomputed(
        lambda x, *weights: _forward(x, list(weights), limbs, heads, backend),
        lambda x, *weights: reference.hierarchy_block(x, list(weights), limbs, heads),
        (flat, *parameters),
    )
    return y.view(x.shape)
