import pytest
import torch
import torch.nn.functional as F

from posekernels import _dispatch
from posekernels._dropout import keep_mask
from posekernels.ops import strided_feed_forward
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = list(_dispatch.OPS["strided_feed_forward"])
SIZES = [  # B, T, C, N, Cout, taps, stride
    (0, 4, 3, 5, 3, 3, 3),
    (1, 1, 1, 1, 1, 3, 2),
    (2, 27, 32, 48, 32, 3, 3),
    (1, 243, 16, 33, 16, 3, 9),
    (3, 10, 7, 13, 5, 3, 1),
    (2, 11, 8, 8, 17, 3, 2),
    (2, 13, 40, 64, 40, 3, 13),
    (1, 5, 9, 21, 9, 3, 7),
    (2, 70, 33, 65, 33, 1, 1),
    (2, 9, 6, 7, 8, 1, 4),
]
NAMES = ("x", "weight1", "bias1", "weight2", "bias2", "residual")


def make(B, T, C, N, out, taps, device, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=g).to(device, dtype)

    weights = (draw(N, C) / C**0.5, draw(N), draw(out, N, taps) / (N * taps) ** 0.5, draw(out))
    return [draw(B, T, C), *weights, draw(B, T, out)]


def by_hand(x, w1, b1, w2, b2, residual=None, stride=1, mask1=1, mask2=1):
    hidden = F.relu(x @ w1.T + b1) * mask1
    out = F.conv1d(hidden.transpose(1, 2), w2, b2, stride, w2.shape[2] // 2).transpose(1, 2) * mask2
    return out if residual is None else out + residual[:, ::stride]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("residual", [False, True])
def test_forward(backend, size, residual):
    device = require("strided_feed_forward", backend)
    args = make(*size[:6], device)[: 6 if residual else 5]
    got = strided_feed_forward(*map(guarded, args), stride=size[6], backend=backend)
    assert_within_budget(got, by_hand(*(t.double() for t in args), stride=size[6]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.2, 0.35)])
def test_backward(backend, size, rates):
    device = require("strided_feed_forward_backward", backend)
    args = [t.requires_grad_() for t in make(*size[:6], device)]
    exact = [t.detach().double().requires_grad_() for t in args]
    options = {"stride": size[6], "hidden_dropout": rates[0], "dropout": rates[1], "seed": 3}
    y = strided_feed_forward(*args, **options, backend=backend)
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(device)
    got = torch.autograd.grad(y, args, weigh)
    want = torch.autograd.grad(strided_feed_forward(*exact, **options, backend="reference"), exact, weigh.double())
    for name, g, w in zip(NAMES, got, want):
        assert_within_budget(g, w, what=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_the_same_everywhere(backend):
    device = require("strided_feed_forward", backend)
    args = make(2, 11, 8, 12, 8, 3, device)
    mask1 = keep_mask((2, 11, 12), 0.2, 9, 0, device) / 0.8
    mask2 = keep_mask((2, 4, 8), 0.4, 9, 1, device) / 0.6
    got = strided_feed_forward(*args, stride=3, hidden_dropout=0.2, dropout=0.4, seed=9, backend=backend)
    assert_within_budget(got, by_hand(*(t.double() for t in args), 3, mask1, mask2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_is_zero_hidden_units(backend):
    """Not relu(bias1), which a clip padded before the linear layer would give."""
    device = require("strided_feed_forward", backend)
    args = make(1, 1, 4, 6, 4, 3, device)[:5]
    got = strided_feed_forward(*args, stride=3, backend=backend)
    x, w1, b1, w2, b2 = args
    assert_within_budget(got[0, 0], w2[:, :, 1].double() @ F.relu(w1.double() @ x[0, 0].double() + b1) + b2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_and_frames_nobody_reads(backend):
    device = require("strided_feed_forward", backend)
    args = make(2, 28, 8, 10, 8, 3, device)
    want = by_hand(*(t.double() for t in args), stride=9)
    assert_within_budget(
        strided_feed_forward(*(guarded(t, strided=True) for t in args), stride=9, backend=backend), want
    )


def test_bad_arguments_are_named():
    x, w1, b1, w2, b2, residual = make(2, 9, 4, 6, 4, 3, "cpu")
    for error, words, args, options in (
        (ValueError, r"weight1 must be \[6, 4\] .* got \[6, 3\]", (x, w1[:, :3], b1, w2, b2), {}),
        (ValueError, r"weight2 must be \[4, 6, 3\]", (x, w1, b1, w2[:, :5], b2), {}),
        (ValueError, "1 or 3 taps", (x, w1, b1, w2[..., :2], b2), {}),
        (ValueError, r"residual must be \[2, 9, 4\]", (x, w1, b1, w2, b2, residual[:, :8]), {}),
        (ValueError, "stride must be an integer of at least 1, got 0", (x, w1, b1, w2, b2), {"stride": 0}),
        (ValueError, "hidden_dropout", (x, w1, b1, w2, b2), {"hidden_dropout": 1.5}),
    ):
        with pytest.raises(error, match=words):
            strided_feed_forward(*args, **options)
