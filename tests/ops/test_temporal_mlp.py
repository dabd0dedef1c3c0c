"""temporal_mlp and temporal_mlp_forecast: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from posekernels import _dispatch
from posekernels.ops import temporal_mlp, temporal_mlp_forecast
from posekernels.testing import assert_within_budget, guarded, relative_error, require

BACKENDS = [b for b in _dispatch.OPS["temporal_mlp"] if b != "reference"]
# (B, C, T, N): empty, single, below and above the vector widths and register blocks, the sizes of the papers.
SIZES = [(0, 66, 50, 2), (1, 66, 50, 3), (2, 75, 50, 2), (17, 69, 50, 2), (3, 5, 7, 4), (33, 17, 16, 1), (1, 1, 1, 2)]
SIZES += [(16, 66, 50, 2), (5, 66, 50, 0), (40, 33, 19, 2)]
VARIANTS = [(mix, norm, pre) for mix in ("temporal", "spatial") for norm in ("spatial", "temporal", "all", "none")
            for pre in (True, False)]  # fmt: skip


def parameters(C, T, N, mix="temporal", norm="spatial", pre=True, seed=0) -> dict:
    """Float64 parameters with means away from 0 and 1, so that a forgotten one shows."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape, mean=0.0, spread=1.0):
        return mean + spread * torch.randn(shape, generator=g, dtype=torch.float64)

    M, affine = (T if mix == "temporal" else C), {"spatial": (C,), "temporal": (T,), "all": (C, T), "none": None}[norm]
    made = {"weight": draw(N, M, M, spread=M**-0.5), "bias": draw(N, M, mean=0.3)}
    if affine is not None:
        made |= {"scale": draw(N, *affine, mean=0.8, spread=0.3), "shift": draw(N, *affine, spread=0.2)}
    if pre:
        made |= {"pre_weight": draw(N, T, T, spread=T**-0.5), "pre_bias": draw(N, T, mean=-0.2)}
        made |= {"pre_scale": draw(N, T, mean=1.2, spread=0.3), "pre_shift": draw(N, T, spread=0.2)}
    return made


def state(B, C, T, seed=1):
    g = torch.Generator().manual_seed(seed)
    return 0.4 + torch.randn(B, C, T, generator=g, dtype=torch.float64)


def run(x, made, mix, norm, backend="reference"):
    return temporal_mlp(x, **made, mix=mix, norm=norm, backend=backend)


def test_reference_is_the_formula():
    """One motion block, coordinate by coordinate and slot by slot."""
    C, T = 4, 6
    x, p = state(1, C, T)[0], {k: v[0] for k, v in parameters(C, T, 1).items()}

    def norm(values):
        return (values - values.mean()) / (((values - values.mean()) ** 2).mean() + 1e-5) ** 0.5

    h = torch.stack([x[c] + norm(p["pre_weight"] @ x[c] + p["pre_bias"]) * p["pre_scale"] + p["pre_shift"]
                     for c in range(C)])  # fmt: skip
    z = torch.stack([p["weight"] @ h[c] + p["bias"] for c in range(C)])
    want = torch.stack([x[:, t] + norm(z[:, t]) * p["scale"] + p["shift"] for t in range(T)], 1)
    got = run(x[None], parameters(C, T, 1), "temporal", "spatial")[0]
    assert torch.allclose(got, want, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward(backend, size):
    device, (B, C, T, N) = require("temporal_mlp", backend), size
    x, made = state(B, C, T), parameters(C, T, N)
    single = {k: guarded(v.float()).to(device) for k, v in made.items()}
    got = run(guarded(x.float()).to(device), single, "temporal", "spatial", backend)
    assert_within_budget(got, run(x, made, "temporal", "spatial"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B", [2, 19])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_and_gradients(backend, variant, B):
    device, (mix, norm, pre) = require("temporal_mlp", backend), variant
    if B > 2 and (backend, device) == ("triton", "cpu"):
        pytest.skip("the interpreter takes seconds for each of these; there is no tile of samples to get wrong")
    C, T, N = 21, 18, 3
    x, made = state(B, C, T).requires_grad_(), parameters(C, T, N, mix, norm, pre)
    for v in made.values():
        v.requires_grad_()
    weights = torch.randn(B, C, T, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    want = run(x, made, mix, norm)
    (want * weights).sum().backward()
    x32 = guarded(x.detach().float(), strided=True).to(device).requires_grad_()
    made32 = {k: guarded(v.detach().float()).to(device).requires_grad_() for k, v in made.items()}
    got = run(x32, made32, mix, norm, backend)
    assert_within_budget(got, want)
    (got * weights.float().to(device)).sum().backward()
    assert_within_budget(x32.grad, x.grad, what="gradient of x")
    scale = made["weight"].grad.norm()
    for name, tensor in made.items():
        error = (made32[name].grad.double().cpu() - tensor.grad).norm()
        # What is constant along the last norm's axis cancels in it: rounding, measured against the weight's gradient.
        gone = {("temporal", "spatial"): ("bias", "pre_shift"), ("spatial", "temporal"): ("bias",)}.get((mix, norm), ())
        size = scale if name in gone else tensor.grad.norm()
        assert error <= 2e-5 * size, f"gradient of {name}: relative error {error / size:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_no_blocks(backend):
    device = require("temporal_mlp", backend)
    x = state(2, 5, 7).float().to(device).requires_grad_()
    made = {name: tensor.float().to(device).requires_grad_() for name, tensor in parameters(5, 7, 0).items()}
    run(x, made, "temporal", "spatial", backend).sum().backward()
    assert (x.grad == 1).all() and all(tensor.grad.numel() == 0 for tensor in made.values())


def network(C, T, S, N, M, mix="temporal", norm="spatial", dtype=torch.float64):
    g = torch.Generator().manual_seed(7)

    def draw(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64) * shape[-1] ** -0.5

    args = [draw(T, T), draw(S, T), draw(C, C), draw(C), parameters(C, T, N, mix, norm), draw(C, C), draw(C)]
    args += [parameters(C, T, M, mix, norm, pre=False, seed=3), draw(C, C), draw(C)]
    return [{k: v.to(dtype) for k, v in a.items()} if isinstance(a, dict) else a.to(dtype) for a in args]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B", [0, 1, 3, 16, 37])
@pytest.mark.parametrize("side", [True, False])
def test_forecast(backend, B, side):
    device = require("temporal_mlp_forecast", backend)
    C, T, S = 33, 20, 6
    history = state(B, T, C)
    cut = 10 if side else 7
    want = temporal_mlp_forecast(history, *network(C, T, S, 3, 2)[:cut], backend="reference")
    net = network(C, T, S, 3, 2, dtype=torch.float32)[:cut]
    net = [{k: v.to(device) for k, v in a.items()} if isinstance(a, dict) else guarded(a).to(device) for a in net]
    got = temporal_mlp_forecast(guarded(history.float(), strided=True).to(device), *net, backend=backend)
    assert_within_budget(got, want)


def test_forecast_gradient_equals_inference():
    history, net = state(2, 20, 6), network(6, 20, 4, 2, 1)
    still = temporal_mlp_forecast(history, *net)
    moving = temporal_mlp_forecast(history.clone().requires_grad_(), *net)
    assert torch.allclose(still, moving) and moving.requires_grad


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b == "cpu"])
def test_same_bits_and_nan(backend):
    require("temporal_mlp", backend)
    x, made = state(20, 66, 50).float(), {k: v.float() for k, v in parameters(66, 50, 2).items()}
    first, again = (run(x, made, "temporal", "spatial", backend) for _ in range(2))
    assert torch.equal(first, again)
    x[3, 5, 7] = float("nan")
    dirty = run(x, made, "temporal", "spatial", backend)
    assert dirty[3].isnan().all() and torch.equal(dirty[:3], first[:3]) and torch.equal(dirty[4:], first[4:])


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"weight": torch.zeros(2, 4, 5)}, ValueError, r"weight must be \[2, 4, 4\]"),
        ({"bias": torch.zeros(2, 3)}, ValueError, r"bias must be \[2, 4\]"),
        ({"scale": None}, TypeError, "scale must be a torch.Tensor"),
        ({"norm": "none"}, ValueError, "scale must be None"),
        ({"norm": "time"}, ValueError, "norm must be one of spatial, temporal, all, none"),
        ({"mix": "both"}, ValueError, "mix must be one of"),
        ({"pre_bias": None}, ValueError, "come together or not at all"),
        ({"shift": torch.zeros(2, 3, dtype=torch.float64)}, TypeError, "shift must have the first argument's dtype"),
        ({"x": torch.zeros(3, 4)}, ValueError, "x must have 3 axes"),
    ],
)
def test_refusals(change, error, words):
    given = {"x": torch.zeros(1, 3, 4)} | {k: v.float() for k, v in parameters(3, 4, 2).items()} | change
    with pytest.raises(error, match=words):
        temporal_mlp(given.pop("x"), **given)


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("norm", ["spatial", "all"])
def test_a_norm_of_large_numbers_that_are_all_alike(B, norm):
    """Their mean is rounded; what is left of them is nothing all the same."""
    require("temporal_mlp", "cpu")
    made = {n: t.float() for n, t in parameters(19, 6, 2, "temporal", norm, pre=False).items()}
    made["bias"] = torch.full_like(made["bias"], 13930.26)
    made["weight"] = torch.zeros_like(made["weight"])
    x = state(B, 19, 6).float()
    want = run(x.double(), {n: t.double() for n, t in made.items()}, "temporal", norm)
    assert_within_budget(run(x, made, "temporal", norm, "cpu"), want)


def test_forecast_refusals():
    history, net = state(2, 20, 6), network(6, 20, 4, 2, 1)
    with pytest.raises(ValueError, match="come together"):
        temporal_mlp_forecast(history, *net[:9])
    with pytest.raises(ValueError, match=r"transform must be \[20, 20\]"):
        temporal_mlp_forecast(history, net[0][:4], *net[1:])
    with pytest.raises(ValueError, match="main has wait"):
        temporal_mlp_forecast(history, *net[:4], net[4] | {"wait": history}, *net[5:])


@pytest.mark.parametrize("B", [1, 3, 17])
def test_a_future_longer_than_the_history(B):
    C, T, S = 15, 11, 14
    net = network(C, T, S, 2, 1, "temporal", "spatial", dtype=torch.float32)
    history = torch.randn(B, T, C, generator=torch.Generator().manual_seed(B))
    with torch.no_grad():
        got = temporal_mlp_forecast(history, *net)
        want = temporal_mlp_forecast(history, *net, backend="reference")
    assert relative_error(got, want) < 1e-5
