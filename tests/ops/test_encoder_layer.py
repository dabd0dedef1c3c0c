import pytest
import torch

from posekernels import _dispatch
from posekernels.ops import encoder_layer
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = list(_dispatch.OPS["encoder_layer"])
SIZES = [  # B, T, C, heads, N, taps, stride
    (1, 27, 64, 2, 96, 3, 3),
    (2, 81, 256, 8, 512, 3, 9),
    (3, 243, 64, 4, 128, 1, 1),
    (1, 13, 48, 3, 33, 3, 13),
    (2, 1, 32, 2, 16, 3, 3),
    (2, 9, 32, 1, 40, 3, 2),
    (1, 40, 51, 3, 70, 3, 1),
    (5, 6, 34, 2, 20, 1, 4),
    (0, 9, 32, 2, 16, 3, 3),
]


def make(B, T, C, heads, N, taps, device, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)

    def draw(*shape, mean=0.0, spread=1.0):
        return (mean + spread * torch.randn(shape, generator=g)).to(device, dtype)

    def linear(out, inside, *taps):
        size = inside * (taps[0] if taps else 1)
        return draw(out, inside, *taps, spread=size**-0.5), draw(out, spread=0.2)

    def norm():
        return draw(C, mean=1.0, spread=0.2), draw(C, spread=0.2)

    attention = [t for _ in range(4) for t in linear(C, C)]
    return [draw(B, T, C), draw(T + 2, C), *norm(), *attention, *norm(), *linear(N, C), *linear(C, N, taps)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("positioned", [False, True])
def test_forward(backend, size, positioned):
    device = require("encoder_layer", backend)
    *sizes, stride = size
    z, position, *parameters = make(*sizes, device)
    position = position if positioned else None
    args = [t if t is None else guarded(t) for t in (z, position, *parameters)]
    with torch.no_grad():
        got = encoder_layer(*args, heads=sizes[3], stride=stride, backend=backend)
        exact = [t if t is None else t.double() for t in (z, position, *parameters)]
        want = encoder_layer(*exact, heads=sizes[3], stride=stride, backend="reference")
    assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_and_dropout(backend):
    device = require("encoder_layer", backend)
    args = [t.requires_grad_() for t in make(2, 27, 64, 2, 96, 3, device)]
    exact = [t.detach().double().requires_grad_() for t in args]
    options = {"heads": 2, "stride": 3, "dropout": 0.1, "seed": 8}
    y = encoder_layer(*args, **options, backend=backend)
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(device)
    got = torch.autograd.grad(y, args, weigh)
    want = torch.autograd.grad(encoder_layer(*exact, **options, backend="reference"), exact, weigh.double())
    for i, (g, w) in enumerate(zip(got, want)):
        if i != 7:  # the key bias moves all scores of a query alike: its gradient is zero up to rounding
            assert_within_budget(g, w, what=f"argument {i}", bound=3e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_bits_whatever_the_batch(backend):
    device = require("encoder_layer", backend)
    z, position, *parameters = make(5, 81, 64, 2, 96, 3, device)
    with torch.no_grad():
        whole = encoder_layer(z, position, *parameters, heads=2, stride=9, backend=backend)
        again = encoder_layer(z, position, *parameters, heads=2, stride=9, backend=backend)
        part = encoder_layer(z[3:4], position, *parameters, heads=2, stride=9, backend=backend)
    assert torch.equal(whole, again)
    torch.testing.assert_close(part, whole[3:4], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T, taps, stride", [(243, 1, 1), (81, 3, 9), (9, 3, 9), (7, 3, 2)])
def test_windows_taken_together_stay_apart(T, taps, stride, dtype):
    """On the CPU neighbouring windows share tiles. One that is not a number spoils itself alone."""
    device = require("encoder_layer", "cpu")
    z, position, *parameters = make(19, T, 64, 2, 96, taps, device, dtype)
    z[4], z[11] = float("nan"), float("inf")
    options = {"heads": 2, "stride": stride, "backend": "cpu"}
    with torch.no_grad():
        together = encoder_layer(z, position, *parameters, **options)
        alone = torch.cat([encoder_layer(one[None], position, *parameters, **options) for one in z])
    assert torch.equal(together.nan_to_num(99.0), alone.nan_to_num(99.0))
    assert together[[4, 11]].isnan().any() and together[[i for i in range(19) if i not in (4, 11)]].isfinite().all()


def test_bad_arguments_are_named():
    z, position, *parameters = make(2, 9, 32, 2, 16, 3, "cpu")
    for words, args, options in (
        ("expected 16 parameters", (z, position, *parameters[:15]), {"heads": 2}),
        ("heads must divide the 32 channels", (z, position, *parameters), {"heads": 5}),
        (r"position must be \[at least 9, 32\]", (z, position[:8], *parameters), {"heads": 2}),
        ("stride must be", (z, position, *parameters), {"heads": 2, "stride": 0}),
        (r"norm1_scale must be \[32\]", (z, position, parameters[0][:5], *parameters[1:]), {"heads": 2}),
    ):
        with pytest.raises(ValueError, match=words):
            encoder_layer(*args, **options)
