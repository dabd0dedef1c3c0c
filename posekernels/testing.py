"""What the tests of ops share: inputs guarded by NaN, error budgets, awkward sizes, and where a backend runs."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from . import _dispatch

# Norm-wise relative error against float64 that a result of this dtype may have.
BUDGET = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}
TF32_BUDGET = 1e-3

# (B, J, Cin, Cout): empty, single, primes, one below and above a register block, the sizes the papers use.
ODD_SHAPES = (
    (0, 17, 4, 6),
    (1, 17, 2, 3),
    (1, 1, 1, 1),
    (2, 17, 80, 384),
    (3, 16, 7, 33),
    (5, 13, 31, 15),
    (37, 17, 16, 96),
    (4, 33, 65, 47),
    (2, 64, 17, 50),
    (9, 17, 96, 129),
)


def guarded(tensor: Tensor, *, strided: bool = False, fill: float = float("nan")) -> Tensor:
    """A copy of ``tensor`` that lies inside a larger buffer full of NaN, so that a stray read becomes visible.

    Args:
        tensor: any floating-point tensor; ``requires_grad`` is kept (the copy is a leaf).
        strided: also put NaN *between* the elements: the copy is a non-contiguous view (every axis is an inner slice).
        fill: what surrounds it.
    Returns:
        A view with the same values. Contiguous, and off the natural alignment by one element, unless ``strided``.
    """
    with torch.no_grad():
        if strided:
            buffer = tensor.new_full([n + 3 for n in tensor.shape], fill)
            view = buffer[tuple(slice(1, 1 + n) for n in tensor.shape)]
        else:
            margin = 67  # more than a cache line on both sides, and odd
            buffer = tensor.new_full((tensor.numel() + 2 * margin,), fill)
            view = buffer[margin : margin + tensor.numel()].view(tensor.shape)
        view.copy_(tensor)
    return view.detach().requires_grad_(tensor.requires_grad)


def relative_error(got: Tensor, want: Tensor) -> float:
    """``|got - want| / |want|`` in the 2-norm, computed in float64; ``|got|`` where ``want`` is all zeros."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    scale = want.norm().item()
    error = (got - want).norm().item()
    return error / scale if scale > 0 else error


def assert_within_budget(got: Tensor, want: Tensor, *, bound: float | None = None, what: str = "result") -> None:
    """``got`` is ``want`` within the budget of its dtype, norm-wise, with NaN in the same places.

    Args:
        got: what a backend computed.
        want: the reference's answer in float64 on the same (rounded) inputs.
        bound: in place of ``BUDGET[got.dtype]``.
        what: its name in the message.
    Raises:
        AssertionError: another shape, NaN elsewhere, or too far off.
    """
    assert got.shape == want.shape, f"{what}: shape {list(got.shape)}, expected {list(want.shape)}"
    nan_got, nan_want = got.detach().isnan().cpu(), want.detach().isnan().cpu()
    stray = int((nan_got != nan_want).sum())
    assert not stray, f"{what}: NaN in {stray} places where the reference has none, or the other way round"
    bound = BUDGET[got.dtype] if bound is None else bound
    error = relative_error(got.nan_to_num(), want.nan_to_num())
    assert error <= bound, f"{what}: relative error {error:.2e} exceeds {bound:.0e}"


def device_of(backend: str) -> str:
    """The device whose tensors ``backend`` takes here: Triton's interpreter runs on CPU tensors."""
    if backend == "cuda":
        return "cuda"
    if backend == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        return "cuda"
    return "cpu"


def require(op: str, backend: str) -> str:
    """Skip the running test, saying why, unless ``backend`` of ``op`` is on this machine; returns its device."""
    import pytest

    kernel = _dispatch.OPS[op].get(backend)
    reason = "the op has no such backend" if kernel is None else kernel.missing()
    if reason is not None:
        pytest.skip(f"{op} on {backend}: {reason}")
    return device_of(backend)
