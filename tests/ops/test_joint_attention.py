"""``joint_attention`` on every backend here, against the reference in float64."""

import pytest
import torch
import torch.nn.functional as F

from posekernels.ops import joint_attention
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = ("reference", "cpu", "triton", "cuda")
SHAPES = [(0, 17, 2, 8), (1, 1, 1, 1), (3, 17, 8, 10), (2, 17, 4, 24), (5, 16, 8, 64), (4, 32, 3, 33), (37, 13, 2, 7)]


def inputs(B, N, H, D, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, N, H, D, generator=g) for _ in range(3)]


def some_mask(B, N):
    mask = torch.rand(B, N, N, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, 0] = False  # a query that may attend to nothing
    return mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("B,N,H,D", SHAPES)
def test_forward_and_gradients(backend, masked, B, N, H, D):
    device = require("joint_attention", backend)
    q, k, v = inputs(B, N, H, D)
    mask = some_mask(B, N) if masked else None
    exact = [t.double().requires_grad_() for t in (q, k, v)]
    want = joint_attention(*exact, mask=mask, backend="reference")
    got_in = [guarded(t.to(device)).requires_grad_() for t in (q, k, v)]
    got = joint_attention(*got_in, mask=None if mask is None else mask.to(device), backend=backend)
    assert got.is_contiguous()
    assert_within_budget(got, want)
    g = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad(got, got_in, g.to(device))
    for name, a, b in zip("qkv", grads, torch.autograd.grad(want, exact, g.double())):
        assert_within_budget(a, b, what=f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("N,D", [(17, 24), (16, 80)])
def test_16_bits_on_triton(dtype, N, D):
    device = require("joint_attention", "triton")
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter miscomputes bfloat16")
    tensors = [t.to(dtype) for t in inputs(3, N, 3, D)]
    mask = some_mask(3, N)
    exact = [t.double().requires_grad_() for t in tensors]
    want = joint_attention(*exact, mask=mask, backend="reference")
    mine = [guarded(t.to(device)).requires_grad_() for t in tensors]
    got = joint_attention(*mine, mask=mask.to(device), backend="triton")
    assert_within_budget(got, want)
    g = torch.randn(want.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    for a, b in zip(torch.autograd.grad(got, mine, g.to(device)), torch.autograd.grad(want, exact, g.double())):
        assert_within_budget(a, b)
    again = torch.autograd.grad(joint_attention(*mine, mask=mask.to(device), backend="triton"), mine, g.to(device))
    first = torch.autograd.grad(joint_attention(*mine, mask=mask.to(device), backend="triton"), mine, g.to(device))
    assert all(torch.equal(a, b) for a, b in zip(first, again))


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_of_one_projection_need_no_copy(backend):
    device = require("joint_attention", backend)
    qkv = torch.randn(6, 17, 3 * 8 * 10)
    q, k, v = guarded(qkv.to(device), strided=True).unflatten(-1, (3, 8, 10)).unbind(-3)
    got = joint_attention(q, k, v, backend=backend)
    q, k, v = qkv.double().unflatten(-1, (3, 8, 10)).unbind(-3)
    want = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
    assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sample(backend):
    device = require("joint_attention", backend)
    q, k, v = inputs(4, 17, 2, 10)
    k[2, 3, 1, 4] = torch.nan
    got = joint_attention(q.to(device), k.to(device), v.to(device), backend=backend)
    assert got[2, :, 1].isnan().all() and not got[[0, 1, 3]].isnan().any() and not got[2, :, 0].isnan().any()


@pytest.mark.parametrize("of", ["query", "key"])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_nan_goes_to_no_key_that_is_masked(backend, of):
    device = require("joint_attention_backward", backend)
    q, k, v = inputs(2, 17, 2, 10)
    mask = torch.rand(2, 17, 17, generator=torch.Generator().manual_seed(5)) < 0.5
    if of == "query":
        q[1, 3, 0, 2] = torch.nan
    else:  # which no query sees
        k[1, 3, 0, 2], mask[1, :, 3] = torch.nan, False
    grads = []
    for name, there in ((backend, device), ("reference", "cpu")):
        leaves = [t.to(there).requires_grad_() for t in (q.clone(), k.clone(), v.clone())]
        y = joint_attention(*leaves, mask=mask.to(there), backend=name)
        grads.append([g.isnan().cpu() for g in torch.autograd.grad(y, leaves, torch.ones_like(y))])
    assert all(torch.equal(got, want) for got, want in zip(*grads))


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    device = require("joint_attention", backend)
    q, k, v = (t.to(device) for t in inputs(2, 17, 2, 16))
    got = joint_attention(100 * q, 100 * k, v, backend=backend)
    want = joint_attention(100 * q.cpu().double(), 100 * k.cpu().double(), v.cpu().double(), backend="reference")
    assert_within_budget(got, want, bound=1e-4)  # scores of 1e4 lose digits in float32 whatever the order


@pytest.mark.parametrize(
    "change,error,words",
    [
        ({"q": torch.zeros(2, 33, 1, 4)}, ValueError, "1 to 32 tokens"),
        ({"k": torch.zeros(2, 17, 2, 9)}, ValueError, "k must be"),
        ({"v": torch.zeros(2, 17, 2, 8, dtype=torch.float64)}, TypeError, "v must have"),
        ({"mask": torch.zeros(17, 17)}, TypeError, "mask must be a dense bool"),
        ({"mask": torch.zeros(5, 17, dtype=torch.bool)}, ValueError, "broadcastable"),
    ],
)
def test_refusals(change, error, words):
    arguments = {name: torch.zeros(2, 17, 2, 8) for name in "qkv"} | change
    if "q" in change:
        arguments |= {"k": change["q"], "v": change["q"]}
    with pytest.raises(error, match=words):
        joint_attention(arguments.pop("q"), **arguments)
