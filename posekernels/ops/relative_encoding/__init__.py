"""``relative_encoding``: keypoints relative to the root and to the middle frame, by body part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _cuda
from ..._dispatch import not_for_triton, requested
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_integers, check_tensor


def _not_for_triton(tensor, *rest) -> str | None:
    return not_for_triton(*(tensor if isinstance(tensor, (list, tuple)) else (tensor,)))


def _not_for_cuda(tensor, *rest) -> str | None:
    joints, sizes = rest[-2:]
    if len(sizes) > 16 or len(joints) > 128:
        return f"takes at most 16 parts of together 128 joints, got {len(sizes)} of {len(joints)}"
    return _cuda.refuses(*(tensor if isinstance(tensor, (list, tuple)) else (tensor,)))


def _fake(x, joints, sizes, backend):
    return [x.new_empty(*x.shape[:2], 3 * x.shape[3] * size) for size in sizes]


_ORDER = ("cpu", "cuda", "triton")
_GPU = {"triton": _not_for_triton, "cuda": _not_for_cuda}
_forward = register(
    __name__,
    "relative_encoding",
    "(Tensor x, int[] joints, int[] sizes, str backend) -> Tensor[]",
    _fake,
    order=_ORDER,
    needs={"cpu": ("relative_encoding", "relative_encoding_bf16")},
    refuses=_GPU,
)
_backward = register(
    __name__,
    "relative_encoding_backward",
    "(Tensor[] grads, Tensor x, int[] joints, int[] sizes, str backend) -> Tensor",
    lambda grads, x, joints, sizes, backend: torch.empty_like(x, memory_format=torch.contiguous_format),
    order=_ORDER,
    refuses=_GPU,
)


class _RelativeEncoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, joints, sizes, backend):
        ctx.save_for_backward(x)
        ctx.options, ctx.backend = (joints, sizes), backend
        return tuple(_forward.run(x, joints, sizes, backend=backend))

    @staticmethod
    def backward(ctx, *grads):
        grad = _backward([g.contiguous() for g in grads], *ctx.saved_tensors, *ctx.options, backend=ctx.backend)
        return grad, None, None, None


_forward.gradient = _RelativeEncoding.apply


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
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(f"relative_encoding: parts must be a list of lists of joints, got {type(parts).__qualname__}")
    parts = [check_integers("relative_encoding", f"parts[{i}]", part, "joints") for i, part in enumerate(parts)]
    joints = [joint for part in parts for joint in part]
    if not joints or min(joints) < 0 or max(joints) >= x.shape[2]:
        raise ValueError(
            f"relative_encoding: parts must name joints in [0, {x.shape[2]}) (x is {list(x.shape)}), got {parts}"
        )
    sizes = [len(part) for part in parts]
    return tuple(_forward(x, joints, sizes, backend=requested(backend)))
