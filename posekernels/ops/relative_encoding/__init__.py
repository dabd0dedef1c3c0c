"""``relative_encoding``: keypoints relative to the root and to the middle frame, by body part."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ... import _cuda
from ..._arrays import accepts_arrays
from ..._checks import check_tensor
from ..._dispatch import Kernel, no_triton, not_for_triton, not_on, requested
from ..._library import register
from ..._native import no_cpu, no_cuda
from . import reference


def _not_for_cpu(x, *_rest) -> str | None:
    taken = x.dtype in (torch.float32, torch.bfloat16)
    return not_on("cpu", x) or (None if taken else f"takes float32 and bfloat16, got {x.dtype}")


def _backward_not_for_cpu(grads, x, *_rest) -> str | None:
    return not_on("cpu", x) or (None if x.dtype == torch.float32 else f"takes float32, got {x.dtype}")


def _not_for_triton(tensor, *rest) -> str | None:
    return not_for_triton(*(tensor if isinstance(tensor, (list, tuple)) else (tensor,)))


def _not_for_cuda(tensor, *rest) -> str | None:
    joints, sizes = rest[-2:]
    if len(sizes) > 16 or len(joints) > 128:
        return f"takes at most 16 parts of together 128 joints, got {len(sizes)} of {len(joints)}"
    return _cuda.refuses(*(tensor if isinstance(tensor, (list, tuple)) else (tensor,)))


def _no_cuda() -> str | None:
    return no_cuda("relative_encoding_cuda", "relative_encoding_backward_cuda")


_FOLDER = "posekernels.ops.relative_encoding"


def _fake(x, joints, sizes, backend):
    return [x.new_empty(*x.shape[:2], 3 * x.shape[3] * size) for size in sizes]


_forward = register(
    "relative_encoding",
    "(Tensor x, int[] joints, int[] sizes, str backend) -> Tensor[]",
    _fake,
    {
        "cpu": Kernel(f"{_FOLDER}.cpu:relative_encoding", lambda: no_cpu("relative_encoding_bf16"), _not_for_cpu),
        "cuda": Kernel(f"{_FOLDER}.cuda:relative_encoding", _no_cuda, _not_for_cuda, proven=False),
        "triton": Kernel(f"{_FOLDER}.triton:relative_encoding", no_triton, _not_for_triton),
        "reference": Kernel(reference.relative_encoding),
    },
)
_backward = register(
    "relative_encoding_backward",
    "(Tensor[] grads, Tensor x, int[] joints, int[] sizes, str backend) -> Tensor",
    lambda grads, x, joints, sizes, backend: torch.empty_like(x, memory_format=torch.contiguous_format),
    {
        "cpu": Kernel(
            f"{_FOLDER}.cpu:relative_encoding_backward",
            lambda: no_cpu("relative_encoding_backward"),
            _backward_not_for_cpu,
        ),
        "cuda": Kernel(f"{_FOLDER}.cuda:relative_encoding_backward", _no_cuda, _not_for_cuda, proven=False),
        "triton": Kernel(f"{_FOLDER}.triton:relative_encoding_backward", no_triton, _not_for_triton),
        "reference": Kernel(reference.relative_encoding_backward),
    },
)


class _RelativeEncoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, joints, sizes, backend):
        ctx.save_for_backward(x)
        ctx.options = joints, sizes, backend
        return tuple(_forward(x, joints, sizes, backend))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        grad = _backward([g.contiguous() for g in grads], *ctx.saved_tensors, *ctx.options)
        return grad, None, None, None


@accepts_arrays
def relative_encoding(
    x: Tensor, parts: tuple[tuple[int, ...], ...], *, backend: str | None = None
) -> tuple[Tensor, ...]:
    """The input of RIE's temporal encoders, for all body parts in one pass.

    Args:
        x: [B, T, J, F] keypoints; joint 0 is the root.
        parts: joints of each part, in the order their channels shall have.
        backend: see ``posekernels.use_backend``.
    Returns:
        one [B, T, 3 * F * len(part)] per part: its joints' coordinates (joint-major), then the same minus joint 0 of
        the frame, then minus the same joint in frame T // 2.
    Raises:
        ValueError, TypeError: a wrong rank or dtype, or a joint outside [0, J).
    Gradient: with respect to ``x``.
    Source: Shan et al., ACM MM 2021, section 3.1.
    """
    check_tensor("relative_encoding", "x", x, rank=4)
    if x.shape[1] < 1:
        raise ValueError(f"relative_encoding: x must have at least one frame (axis 1), got {list(x.shape)}")
    joints = [joint for part in parts for joint in part]
    if not joints or min(joints) < 0 or max(joints) >= x.shape[2]:
        raise ValueError(
            f"relative_encoding: parts must name joints in [0, {x.shape[2]}) (x is {list(x.shape)}), got {parts}"
        )
    sizes = [len(part) for part in parts]
    backend = requested(backend)
    if backend == "reference":
        return tuple(reference.relative_encoding(x, joints, sizes))
    if torch.is_grad_enabled() and x.requires_grad:
        return _RelativeEncoding.apply(x, joints, sizes, backend)
    return tuple(_forward(x, joints, sizes, backend))
