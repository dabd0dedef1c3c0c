"""``sample_hypotheses``: noisy copies of 2D poses. Start reading here; the definition is in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import not_for_triton, requested
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import MOST_POSES, check_integer, check_number, check_shape, check_tensor, seed_of


def _fake(keypoints, sigma, samples, alpha, seed, first_pose, first_sample, backend):
    B, V, J = sigma.shape
    return keypoints.new_empty(B, samples, V, J, 2)


def _not_for_triton(keypoints, sigma, samples, *_) -> str | None:
    blocks = samples * -(-sigma.shape[1:].numel() // 2)
    if blocks >= 2**31 - 2**10:
        return f"counts its random blocks of a pose in 31 bits, {blocks} were asked for"
    return not_for_triton(keypoints, sigma)


_forward = register(
    __name__,
    "sample_hypotheses",
    "(Tensor keypoints, Tensor sigma, SymInt samples, float alpha, int seed, SymInt first_pose, SymInt first_sample, "
    "str backend) -> Tensor",
    _fake,
    refuses={"triton": _not_for_triton},
)


class _SampleHypotheses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, keypoints, sigma, samples, alpha, seed, first_pose, first_sample, backend):
        ctx.save_for_backward(sigma)
        ctx.options, ctx.backend = (samples, alpha, seed, first_pose, first_sample), backend
        return _forward.run(keypoints, sigma, *ctx.options, backend=backend)

    @staticmethod
    def backward(ctx, grad):
        (sigma,) = ctx.saved_tensors
        samples, alpha, *stream = ctx.options
        grad_keypoints = grad.sum(1) if ctx.needs_input_grad[0] else None
        grad_sigma = None
        if ctx.needs_input_grad[1]:  # the same stream again, bare
            zero = sigma.new_zeros(*sigma.shape, 2)
            eps = _forward.run(zero, torch.ones_like(sigma), samples, 1.0, *stream, backend=ctx.backend)
            grad_sigma = alpha * (sigma >= 1) * (grad * eps).sum((1, 4))
        return grad_keypoints, grad_sigma, None, None, None, None, None, None


_forward.gradient = _SampleHypotheses.apply


@accepts_arrays
def sample_hypotheses(
    keypoints: Tensor,
    sigma: Tensor,
    samples: int,
    *,
    alpha: float,
    seed: int = 0,
    first_pose: int = 0,
    first_sample: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Noisy copies of every pose, noise scaled joint by joint.

    ``keypoints + alpha * max(sigma, 1) * noise``, noise standard normal, drawn anew for each pose, sample, view, joint
    and coordinate.

    Args:
        keypoints: [B, V, J, 2] for V views (a pose and its mirror image, say), or [B, J, 2]; float32 or float64, and
            float16 or bfloat16 where a kernel takes them. Any strides.
        sigma: [B, V, J] or [B, J], the spread of each joint relative to ``alpha``; below 1 counts as 1. NaN stays NaN.
        samples: S >= 0.
        alpha: >= 0, the spread where sigma is 1, in the unit of ``keypoints``.
        seed: 64 bits. The noise is a function of (seed, pose number, sample number, place in the pose) alone.
        first_pose, first_sample: the numbers of the first pose and of the first sample, so that any split of a data
            set into batches and of S into chunks gives the same hypotheses.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, S, V, J, 2] or [B, S, J, 2], dtype of ``keypoints``, contiguous.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype, device or option, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to keypoints and sigma.
    Source: WS-ANL, Zeng et al., 2024; noise by Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller.
    """
    check_tensor("sample_hypotheses", "keypoints", keypoints, min_rank=3)
    one_view = keypoints.dim() == 3
    if keypoints.dim() > 4 or keypoints.shape[-1] != 2:
        raise ValueError(f"sample_hypotheses: keypoints must be [B, V, J, 2] or [B, J, 2], got {list(keypoints.shape)}")
    check_tensor("sample_hypotheses", "sigma", sigma, like=keypoints)
    check_shape(
        "sample_hypotheses", "sigma", sigma, tuple(keypoints.shape[:-1]), f"keypoints is {list(keypoints.shape)}"
    )
    samples = check_integer("sample_hypotheses", "samples", samples, 0)
    first_pose = check_integer("sample_hypotheses", "first_pose", first_pose, 0, MOST_POSES)
    first_sample = check_integer("sample_hypotheses", "first_sample", first_sample)
    alpha = check_number("sample_hypotheses", "alpha", alpha, 0)
    if not 0 <= first_sample <= 2**32 - samples:
        raise ValueError(
            f"sample_hypotheses: first_sample + samples must be in [0, 2**32], got {first_sample}, {samples}"
        )
    if one_view:
        keypoints, sigma = keypoints[:, None], sigma[:, None]
    options = samples, alpha, seed_of("sample_hypotheses", seed), first_pose, first_sample
    y = _forward(keypoints, sigma, *options, backend=requested(backend))
    return y.squeeze(2) if one_view else y
