"""What the tests of ops share: inputs guarded by NaN, error budgets, awkward sizes, and where a backend runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from . import _adapters, _dispatch

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


_BAND = 64  # elements on both sides of what is allocated


def _least(dtype: torch.dtype) -> float | int:
    return torch.nan if dtype.is_floating_point else 0 if dtype == torch.bool else torch.iinfo(dtype).min


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Inside ``with poisoned():`` what ``torch.empty`` and its kin allocate is NaN, between guard bands that must last.

    What a kernel forgets to write is then NaN, and a write past the ends of an output is an error; so is handing a
    kernel a tensor with strides as if it had none. Integers are the least of their kind instead.

    Raises:
        AssertionError: when the block ends: something was written outside what was allocated.
    """
    buffers: list[Tensor] = []

    def banded(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapped(*args, **kwargs):
            made = allocate(*args, **kwargs)
            if not made.numel():
                return made
            count = made.untyped_storage().nbytes() // made.element_size()
            buffers.append(made.new_full((count + 2 * _BAND,), _least(made.dtype)))
            return buffers[-1].as_strided(made.shape, made.stride(), _BAND)

        return wrapped

    with contextlib.ExitStack() as stack:
        for owner, names in ((torch, ("empty", "empty_like", "empty_strided")), (Tensor, ("new_empty",))):
            for name in names:
                stack.enter_context(mock.patch.object(owner, name, banded(getattr(owner, name))))
        stack.enter_context(mock.patch.object(_adapters, "_begins", _adapters.begins_contiguous))
        yield
    for buffer in buffers:
        bands = torch.cat((buffer[:_BAND], buffer[-_BAND:]))
        intact = bands.isnan() if buffer.is_floating_point() else bands == _least(buffer.dtype)
        assert intact.all(), f"written outside a tensor of {len(buffer) - 2 * _BAND} elements of {buffer.dtype}"


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
