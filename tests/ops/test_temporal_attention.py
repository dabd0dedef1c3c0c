import pytest
import torch
import torch.nn.functional as F

from posekernels import _dispatch, explain
from posekernels._dropout import keep_mask
from posekernels.ops import temporal_attention
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = list(_dispatch.OPS["temporal_attention"])
SIZES = [  # B, T, S, H, D
    (0, 4, 4, 2, 16),
    (1, 1, 1, 1, 16),
    (2, 27, 27, 8, 32),
    (1, 243, 243, 2, 32),
    (3, 13, 29, 3, 17),
    (2, 33, 5, 2, 64),
    (2, 6, 6, 2, 4),
    (1, 9, 351, 1, 96),
    (1, 65, 64, 2, 128),
]


def make(B, T, S, H, D, device, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = ((B, T, H, D), (B, S, H, D), (B, S, H, D))
    return [torch.randn(shape, generator=g).to(device, dtype) * 1.5 for shape in shapes]


def padding_of(B, S, device):
    mask = torch.rand(B, S, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[:, 0] = False
    return mask.to(device)


def by_hand(q, k, v, padding=None, causal=False, scale=None):
    B, T, H, D = q.shape
    S = k.shape[1]
    allowed = torch.ones(B, 1, T, S, dtype=torch.bool, device=q.device)
    if causal:
        allowed = allowed & (
            torch.arange(S, device=q.device)[None] <= torch.arange(T, device=q.device)[:, None] + S - T
        )
    if padding is not None:
        allowed = allowed & ~padding[:, None, None]
    q, k, v = (t.double().transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale)
    return torch.where(allowed.any(-1, keepdim=True), out, 0).transpose(1, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal, padded", [(False, False), (True, False), (False, True), (True, True)])
def test_forward(backend, size, causal, padded):
    device = require("temporal_attention", backend)
    args = make(*size, device)
    padding = padding_of(size[0], size[2], device) if padded else None
    got = temporal_attention(*map(guarded, args), key_padding_mask=padding, causal=causal, backend=backend)
    assert_within_budget(got, by_hand(*args, padding, causal))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal, padded, rate", [(False, False, 0.0), (True, True, 0.0), (False, True, 0.3)])
def test_backward(backend, size, causal, padded, rate):
    device = require("temporal_attention_backward", backend)
    args = [t.requires_grad_() for t in make(*size, device)]
    exact = [t.detach().double().requires_grad_() for t in args]
    options = {
        "key_padding_mask": padding_of(size[0], size[2], device) if padded else None,
        "causal": causal,
        "dropout": rate,
        "seed": 11,
    }
    weigh = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(2)).to(device)
    got = torch.autograd.grad(temporal_attention(*args, **options, backend=backend), args, weigh)
    want = torch.autograd.grad(temporal_attention(*exact, **options, backend="reference"), exact, weigh.double())
    for name, g, w in zip("qkv", got, want):
        assert_within_budget(g, w, what=name, bound=None if size[2] > 1 else 1e-4)  # one key: q and k cancel to 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [30.0, -30.0, 0.0])
def test_weights_add_up_to_1_however_large_the_scores(backend, scale):
    """In the backward pass too, which has them again from what the forward pass kept."""
    device = require("temporal_attention_backward", backend)
    q, k, v = (t.requires_grad_() for t in make(1, 40, 70, 2, 17, device))
    exact = [t.detach().double().requires_grad_() for t in (q, k, v)]
    weigh = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).to(device)
    padding = padding_of(1, 70, device)

    def gradient_of_v(q, k, v, weigh, backend):
        y = temporal_attention(10 * q, 10 * k, v, key_padding_mask=padding, scale=scale, backend=backend)
        return torch.autograd.grad(y, v, weigh)[0]

    got, want = gradient_of_v(q, k, v, weigh, backend), gradient_of_v(*exact, weigh.double(), "reference")
    assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_the_same_everywhere(backend):
    device = require("temporal_attention", backend)
    q, k, v = make(2, 9, 21, 3, 16, device)
    mask = keep_mask((2, 3, 9, 21), 0.25, 77, 0, device)
    weights = torch.einsum("bthd,bshd->bhts", q.double(), k.double()).mul(0.25).softmax(-1) * mask / 0.75
    got = temporal_attention(q, k, v, dropout=0.25, seed=77, backend=backend)
    assert_within_budget(got, torch.einsum("bhts,bshd->bthd", weights, v.double()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_one_projection(backend):
    device = require("temporal_attention", backend)
    qkv = torch.randn(2, 27, 3, 4, 32, generator=torch.Generator().manual_seed(3)).to(device)
    views = qkv.unbind(2)
    assert_within_budget(temporal_attention(*views, backend=backend), by_hand(*views))
    strided = [guarded(t, strided=True) for t in views]
    assert_within_budget(temporal_attention(*strided, backend=backend), by_hand(*views))


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_without_a_key(backend):
    device = require("temporal_attention_backward", backend)
    q, k, v = (t.requires_grad_() for t in make(2, 6, 4, 2, 16, device))
    padding = torch.tensor([[True] * 4, [False] * 4], device=device)
    out = temporal_attention(q, k, v, key_padding_mask=padding, causal=True, backend=backend)
    assert not out[0].any() and not out[1, :2].any() and out[1, 2:].all()  # query t sees keys up to t - 2
    for g in torch.autograd.grad(out.sum(), (q, k, v)):
        assert g.isfinite().all() and not g[0].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_and_nan(backend):
    device = require("temporal_attention", backend)
    q, k, v = make(1, 5, 7, 1, 16, device)
    got = temporal_attention(q * 100, k, v, scale=10.0, backend=backend)
    assert got.isfinite().all()
    assert_within_budget(got, by_hand(q * 100, k, v, scale=10.0))
    q[0, 2] = float("nan")
    got = temporal_attention(q, k, v, backend=backend)
    assert got[0, 2].isnan().all() and got[0, [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("size", [(1, 700, 600, 1, 8), (1, 5, 6, 2, 160)])
def test_longer_and_wider_than_any_paper(size):
    args = [t.requires_grad_() for t in make(*size, "cpu")]
    exact = [t.detach().double().requires_grad_() for t in args]
    got, want = temporal_attention(*args), by_hand(*exact)
    assert_within_budget(got, want)
    for a, b in zip(torch.autograd.grad(got.square().sum(), args), torch.autograd.grad(want.square().sum(), exact)):
        assert_within_budget(a, b, what="gradient")
    if size[-1] > 128:
        assert "heads up to 128 wide, got 160" in explain("temporal_attention", *args, None, 1.0, False, 0.0, 0)


def test_bad_arguments_are_named():
    q, k, v = make(2, 5, 7, 2, 16, "cpu")
    for error, words, args, options in (
        (ValueError, r"k must be \[2, 7, 2, 16\] .* got \[2, 7, 1, 16\]", (q, k[:, :, :1], v), {}),
        (ValueError, r"v must be \[2, 7, 2, 16\]", (q, k, v[:, :6]), {}),
        (ValueError, "q must have at least one channel", (q[..., :0], k[..., :0], v[..., :0]), {}),
        (ValueError, "k must have at least one frame", (q, k[:, :0], v[:, :0]), {}),
        (
            TypeError,
            "bool tensor, True where a key is padding, got torch.float32",
            (q, k, v),
            {"key_padding_mask": torch.zeros(2, 7)},
        ),
        (ValueError, r"key_padding_mask must be \[2, 7\]", (q, k, v), {"key_padding_mask": torch.zeros(2, 5) > 0}),
        (ValueError, "dropout", (q, k, v), {"dropout": -0.1}),
    ):
        with pytest.raises(error, match=words):
            temporal_attention(*args, **options)
