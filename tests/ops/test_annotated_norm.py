import pytest
import torch

from posekernels import _dispatch
from posekernels._dropout import keep_mask
from posekernels.ops import annotated_norm
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = list(_dispatch.OPS["annotated_norm"])
SHAPES = [(0, 5, 8), (1, 1, 2), (2, 3, 7), (3, 243, 256), (5, 33), (17,), (2, 9, 129)]


def make(shape, device, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, residual = torch.randn(shape, generator=g), torch.randn(shape, generator=g) * 2 + 0.3
    scale, shift = 1 + 0.3 * torch.randn(shape[-1], generator=g), torch.randn(shape[-1], generator=g)
    return [t.to(device, dtype) for t in (x, scale, shift, residual)]


def by_hand(x, scale, shift, residual=None):
    total = x if residual is None else x + residual
    return scale * (total - total.mean(-1, keepdim=True)) / (total.std(-1, keepdim=True) + 1e-6) + shift


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
def test_forward(backend, shape, residual):
    device = require("annotated_norm", backend)
    args = make(shape, device)[: 4 if residual else 3]
    got = annotated_norm(*map(guarded, args), backend=backend)
    want = by_hand(*(t.double() for t in args)) if args[0].numel() else args[0]
    if residual:
        assert_within_budget(got[1], args[0] + args[3], what="sum")
        got = got[0]
    assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] > 2])  # of two channels the gradient is 0
@pytest.mark.parametrize("rate", [None, 0.0, 0.4])
def test_backward(backend, shape, rate):
    device = require("annotated_norm_backward", backend)
    count = 3 if rate is None else 4
    args = [t.requires_grad_() for t in make(shape, device)[:count]]
    exact = [t.detach().double().requires_grad_() for t in args]
    options = {} if rate is None else {"dropout": rate, "seed": 5}

    def results(tensors, backend):
        y = annotated_norm(*tensors, **options, backend=backend)
        return torch.cat([t.flatten() for t in y]) if isinstance(y, tuple) else y

    weigh = torch.randn(results(exact, "reference").shape, generator=torch.Generator().manual_seed(1)).to(device)
    got = torch.autograd.grad(results(args, backend), args, weigh)
    want = torch.autograd.grad(results(exact, "reference"), exact, weigh.double())
    for name, g, w in zip(("x", "scale", "shift", "residual"), got, want):
        assert_within_budget(g, w, what=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_the_same_everywhere(backend):
    device = require("annotated_norm", backend)
    x, scale, shift, residual = make((4, 31, 40), device)
    mask = keep_mask((4 * 31, 40), 0.3, 2**40 + 7, 0, device).view(x.shape)
    _, total = annotated_norm(x, scale, shift, residual, dropout=0.3, seed=2**40 + 7, backend=backend)
    assert_within_budget(total, (x * mask / 0.7 + residual).double())
    assert abs(mask.float().mean().item() - 0.7) < 0.02


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_rows_and_nan(backend):
    device = require("annotated_norm", backend)
    x, scale, shift, _ = make((3, 16), device)
    x[0] = 2.5
    x[1, 3] = float("nan")
    x.requires_grad_()
    y = annotated_norm(x, scale, shift, backend=backend)
    assert torch.equal(y[0], shift) and y[1].isnan().all() and y[2].isfinite().all()
    (grad,) = torch.autograd.grad(y[0].sum(), x)
    assert grad[0].isfinite().all()


def test_bad_arguments_are_named():
    x, scale, shift, residual = make((2, 4, 8), "cpu")
    for error, words, args, options in (
        (ValueError, r"scale must be \[8\]", (x, scale[:7], shift), {}),
        (ValueError, r"residual must be \[2, 4, 8\]", (x, scale, shift, residual[:1]), {}),
        (TypeError, "shift must have .*float32, got torch.float64", (x, scale, shift.double()), {}),
        (ValueError, "at least 2 channels", (x[..., :1], scale[:1], shift[:1]), {}),
        (ValueError, "dropout must be at least 0 and below 1, got 1.0", (x, scale, shift, residual), {"dropout": 1.0}),
        (ValueError, "pass residual", (x, scale, shift), {"dropout": 0.1}),
    ):
        with pytest.raises(error, match=words):
            annotated_norm(*args, **options)
