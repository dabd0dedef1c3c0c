"""``transformer_block`` on every backend here, against the reference in float64."""

import importlib

import pytest
import torch
from torch import nn

from posekernels import BackendError, _native
from posekernels.ops import transformer_block
from posekernels.ops.transformer_block import PARAMETERS, attention, cpu, cuda, reference
from posekernels.testing import assert_within_budget, guarded, require
from tests.cuda_emulation import EmulatedModule
from tests.ops.calls import working_calls

BACKENDS = ("reference", "cpu", "triton", "cuda")
KERNELS = BACKENDS[1:]
# leading axes, N, C, heads, hidden
SHAPES = [
    ((2, 5), 17, 64, 8, 128),
    ((2, 17), 27, 64, 4, 96),
    ((3,), 1, 12, 3, 7),
    ((), 40, 20, 4, 33),
    ((1, 3), 131, 128, 2, 64),
    ((0, 5), 17, 16, 2, 32),
]


def inputs(lead, N, C, hidden, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape, spread=1.0):
        return spread * torch.randn(*shape, generator=g)

    weights = {name: 0.3 * draw(C) for name in PARAMETERS}
    weights |= {f"norm{i}_weight": 1 + 0.3 * draw(C) for i in (1, 2, 3)}
    weights |= {"qkv_weight": draw(3 * C, C, spread=C**-0.5), "qkv_bias": 0.3 * draw(3 * C)}
    weights |= {"proj_weight": draw(C, C, spread=C**-0.5)}
    weights |= {"fc1_weight": draw(hidden, C, spread=C**-0.5), "fc1_bias": 0.3 * draw(hidden)}
    weights |= {"fc2_weight": draw(C, hidden, spread=hidden**-0.5)}
    return draw(*lead, N, C), [weights[name] for name in PARAMETERS]


def to(weights, *args):
    return [None if w is None else w.to(*args) for w in weights]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(backend, shape):
    device = require("transformer_block", backend)
    lead, N, C, heads, hidden = shape
    x, w = inputs(lead, N, C, hidden)
    for options, left_out in (({}, ()), ({"scale": 0.4, "eps": 1e-3}, ("qkv_bias", "norm3_weight", "norm3_bias"))):
        w = [None if name in left_out else t for name, t in zip(PARAMETERS, w)]
        want = transformer_block(x.double(), *to(w, torch.float64), heads=heads, backend="reference", **options)
        given = [None if t is None else guarded(t.to(device)) for t in w]
        got = transformer_block(guarded(x.to(device)), *given, heads=heads, backend=backend, **options)
        assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_are_worked_on_where_they_lie(backend):
    device = require("transformer_block", backend)
    x, w = inputs((2, 17), 27, 64, 128)
    want = transformer_block(x.double(), *to(w, torch.float64), heads=8, backend="reference")
    turned = x.transpose(1, 2).contiguous().to(device).transpose(1, 2)
    got = transformer_block(turned, *to(w, device), heads=8, backend=backend)
    assert_within_budget(got, want)
    got = transformer_block(guarded(x.to(device), strided=True), *to(w, device), heads=8, backend=backend)
    assert_within_budget(got, want)


@pytest.mark.parametrize("backend", KERNELS)
def test_the_kernel_keeps_the_order_of_memory(backend):
    device = require("transformer_block", backend)
    x, w = inputs((2, 5), 9, 16, 24)
    for order in ((0, 2, 1, 3), (1, 0, 2, 3), (2, 1, 0, 3)):
        turned = x.permute(order).contiguous().permute(order).to(device)  # each order is its own inverse
        assert transformer_block(turned, *to(w, device), heads=2, backend=backend).stride() == turned.stride()


@pytest.mark.parametrize("N, attention", [(9, "joint_attention_fwd"), (40, "attention_fwd")])
def test_between_triton_s_kernels_only_products_and_gelu(N, attention, monkeypatch):
    """No layout copy, no sum and no norm by PyTorch, whichever way groups lie."""
    device = require("transformer_block", "triton")
    from posekernels.ops.annotated_norm.triton import _annotated_norm_fwd_kernel
    from posekernels.ops.transformer_block import triton

    x, w = inputs((2, 5), N, 16, 24)
    x, w, norm = x.to(device), to(w, device), "annotated_norm_fwd"
    for view, products in ((x, 1), (x.transpose(1, 2).contiguous().transpose(1, 2), 3)):
        calls = working_calls(
            lambda: triton.transformer_block(view, w, 2, 0.3, 1e-6),  # noqa: B023
            _annotated_norm_fwd_kernel,
            monkeypatch,
        )
        rest = ["addmm", norm, "addmm", "gelu_", "addmm", norm]
        calls = [c for c in calls if c != "full"]  # the seed of no dropout, which a recorder makes a tensor of
        assert calls == [norm, *["addmm"] * products, attention, *rest]


@pytest.mark.parametrize("backend", KERNELS)
def test_16_bits(backend):
    device = require("transformer_block", backend)
    dtype = torch.float16 if (backend, device) == ("triton", "cpu") else torch.bfloat16  # what the interpreter can do
    x, w = inputs((2, 5), 17, 64, 96)
    want = transformer_block(x.double(), *to(w, torch.float64), heads=4, backend="reference")
    got = transformer_block(x.to(device, dtype), *to(w, device, dtype), heads=4, backend=backend)
    assert got.dtype == dtype
    assert_within_budget(got, want)


def test_weights_in_panels_or_not_are_the_same(monkeypatch):
    require("transformer_block", "cpu")
    x, w = inputs((2, 5), 17, 64, 96)
    kept = transformer_block(x, *w, heads=4, backend="cpu")
    monkeypatch.setattr(cpu, "PACK_AT_EVERY_CALL", 0)
    assert torch.equal(transformer_block(x, *w, heads=4, backend="cpu"), kept)


def test_cuda_emulated(monkeypatch):
    """The composition with the attention kernels in CUDA C++, which the CPU emulates thread by thread."""
    monkeypatch.setattr(_native, "cuda", EmulatedModule)
    few, many = (importlib.import_module(f"posekernels.ops.{n}_attention.cuda") for n in ("joint", "temporal"))
    monkeypatch.setattr(
        attention, "joint_attention", lambda q, k, v, scale, backend: few.joint_attention(q, k, v, None, scale)
    )
    monkeypatch.setattr(
        attention,
        "temporal_attention",
        lambda q, k, v, scale, backend: many.temporal_attention(q, k, v, None, scale, False, 0.0, 0)[0],
    )
    for N in (9, 40):
        x, w = inputs((2, 3), N, 16, 24)
        for view in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            got = cuda.transformer_block(view, w, 2, 0.3, 1e-6)
            want = reference.transformer_block(view.double(), to(w, torch.float64), 2, 0.3, 1e-6)
            assert_within_budget(got, want)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads):
    require("transformer_block", "cpu")
    x, w = inputs((1, 3), 131, 128, 64)  # three long groups: heads are split over the threads
    want = transformer_block(x.double(), *to(w, torch.float64), heads=4, backend="reference")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_within_budget(transformer_block(x, *w, heads=4, backend="cpu"), want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", KERNELS)
def test_gradients(backend):
    device = require("transformer_block", backend)
    x, w = inputs((2, 3), 5, 16, 24)

    def gradients(x, w, backend):
        leaves = [t.clone().requires_grad_() for t in (x, *w)]
        y = transformer_block(leaves[0], *leaves[1:], heads=4, backend=backend)
        return torch.autograd.grad(y.square().sum(), leaves)

    want = gradients(x.double(), to(w, torch.float64), "reference")
    for name, a, b in zip(("x", *PARAMETERS), gradients(x.to(device), to(w, device), backend), want):
        assert_within_budget(a, b, bound=1e-4, what=f"gradient of {name}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_group(backend):
    device = require("transformer_block", backend)
    x, w = inputs((2, 5), 17, 64, 96)
    x[1, 2, 3, 4] = torch.nan
    got = transformer_block(x.to(device), *to(w, device), heads=4, backend=backend)
    assert got[1, 2].isnan().all() and got.isnan().sum() == got[1, 2].numel()


def test_is_what_pytorch_has():
    """nn.TransformerEncoderLayer, pre-norm, is the same block without the last norm."""
    layer = nn.TransformerEncoderLayer(24, 4, 40, activation="gelu", norm_first=True, batch_first=True, dropout=0.0)
    layer = layer.eval().double()
    attention = layer.self_attn
    parts = [layer.norm1.weight, layer.norm1.bias, attention.in_proj_weight, attention.in_proj_bias]
    parts += [attention.out_proj.weight, attention.out_proj.bias, layer.norm2.weight, layer.norm2.bias]
    parts += [layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias, None, None]
    x = torch.randn(3, 9, 24, dtype=torch.float64)
    torch.testing.assert_close(transformer_block(x, *parts, heads=4, eps=1e-5), layer(x))


def test_refusals():
    x, w = inputs((2,), 5, 16, 24)
    named = dict(zip(PARAMETERS, w))
    for change, error, message in [
        ({"qkv_weight": w[4]}, ValueError, r"qkv_weight must be \[48, 16\]"),
        ({"norm3_bias": None}, ValueError, "both"),
        ({"fc2_weight": w[8]}, ValueError, r"fc2_weight must be \[16, 24\]"),
        ({"proj_weight": w[4].double()}, TypeError, "proj_weight"),
        ({"norm1_weight": None}, TypeError, "norm1_weight"),
    ]:
        with pytest.raises(error, match=message):
            transformer_block(x, *(named | change).values(), heads=4)
    with pytest.raises(ValueError, match="heads must divide C=16, got 3"):
        transformer_block(x, *w, heads=3)
    with pytest.raises(ValueError, match="expected 14 parameters"):
        transformer_block(x, *w[:-1], heads=4)
    require("transformer_block", "cpu")
    with pytest.raises(BackendError, match="float32 or bfloat16"):
        transformer_block(x.double(), *to(w, torch.float64), heads=4, backend="cpu")
