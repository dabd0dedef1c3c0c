"""``denoise`` on every backend here, against the reference in float64."""

import itertools

import pytest
import torch

from posekernels import BackendError
from posekernels.ops import GraphDenoiser, denoise_loop, denoise_step, graph_transformer
from posekernels.ops.denoise import reference
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = ("reference", "cpu", "triton", "cuda")
KERNELS = BACKENDS[1:]
# B, J, C, heads, layers, polynomials, Cin, Cout
SHAPES = [
    (0, 17, 16, 2, 1, 3, 5, 5),
    (1, 17, 96, 4, 2, 3, 5, 5),
    (3, 16, 20, 4, 2, 3, 2, 3),
    (5, 13, 7, 1, 1, 2, 4, 4),
    (11, 17, 24, 3, 3, 1, 5, 5),
    (2, 33, 40, 2, 1, 3, 3, 3),
    (2, 1, 16, 1, 1, 1, 1, 1),
]


def network(B, J, C, heads, L, K, Cin, Cout, seed=0):
    """(x, weights, shifts of 3 steps), nothing in it special: no ones, no zeros but the polynomials' own."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape, spread=1.0):
        return spread * torch.randn(*shape, generator=g)

    polynomials = draw(K, J, J, spread=0.5) * (torch.rand(K, J, J, generator=g) < 0.3)
    polynomials[0] = torch.eye(J)
    weights = GraphDenoiser(
        polynomials=polynomials,
        graph=draw(L, J, J, spread=J**-0.5),
        in_weight=draw(K, Cin, C, spread=(K * Cin) ** -0.5),
        in_bias=draw(C),
        norm1=1 + 0.3 * draw(L, 2, C),
        qkv_weight=draw(L, C, 3 * C, spread=C**-0.5),
        qkv_bias=draw(L, 3 * C),
        proj_weight=draw(L, C, C, spread=C**-0.5),
        proj_bias=draw(L, C),
        norm2=1 + 0.3 * draw(L, 2, C),
        fc1_weight=draw(L, C, 2 * C, spread=C**-0.5),
        fc1_bias=draw(L, 2 * C),
        fc2_weight=draw(L, 2 * C, C, spread=(2 * C) ** -0.5),
        fc2_bias=draw(L, C),
        conv1_weight=draw(L, K, C, C, spread=(K * C) ** -0.5),
        conv1_bias=draw(L, C),
        conv2_weight=draw(L, K, C, C, spread=(K * C) ** -0.5),
        conv2_bias=draw(L, C),
        out_weight=draw(K, C, Cout, spread=(K * C) ** -0.5),
        out_bias=draw(Cout),
        heads=heads,
    )
    return draw(B, J, Cin), weights, draw(3, L, C)


COEFFICIENTS = torch.tensor([[1.1, -0.4, 0.9, 0.2, 0.3], [1.2, -0.5, 0.8, 0.1, 0.2], [1.01, -0.1, 1.01, -0.1, 0.0]])


def exact(weights):
    return weights.map(lambda t: t.double())


def on(weights, device):
    return weights.map(lambda t: guarded(t.to(device)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_network(backend, shape):
    device = require("denoise", backend)
    x, w, shifts = network(*shape)
    for shift in (None, shifts[0]):
        want = graph_transformer(x.double(), exact(w), None if shift is None else shift.double(), backend="reference")
        given = None if shift is None else guarded(shift.to(device))
        got = graph_transformer(guarded(x.to(device), strided=True), on(w, device), given, backend=backend)
        assert_within_budget(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] == s[-2]], ids=str)
def test_loop(backend, shape):
    device = require("denoise", backend)
    x, w, shifts = network(*shape)
    noise = torch.randn(3, *x.shape)
    doubles = [t.double() for t in (x, shifts, COEFFICIENTS, noise)]
    want = denoise_loop(doubles[0], exact(w), *doubles[1:3], noise=doubles[3], trajectory=True, backend="reference")
    x, shifts, c, noise = (guarded(t.to(device)) for t in (x, shifts, COEFFICIENTS, noise))
    w = on(w, device)
    got = denoise_loop(x, w, shifts, c, noise=noise, trajectory=True, backend=backend)
    for name, a, b in zip(("x", "states", "estimates"), got, want):
        assert_within_budget(a, b, what=name)
    assert torch.equal(denoise_loop(x, w, shifts, c, noise=noise, backend=backend), got[0])  # same inputs, same bits
    state = x
    for s in range(3):
        state = denoise_step(state, w, shifts[s], c[s], noise=noise[s], backend=backend)
    assert_within_budget(state, want[0], what="steps by themselves")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(11, 17, 24, 3, 2, 3, 5, 5), (0, 17, 16, 2, 1, 3, 5, 5)], ids=str)
def test_one_timestep_per_pose(backend, shape):
    """Each pose as if it were alone with its own timestep; the network by itself too."""
    device = require("denoise", backend)
    x, w, _ = network(*shape)
    B, J, C, heads, L = shape[:5]
    shifts = torch.randn(3, B, L, C, generator=torch.Generator().manual_seed(3))
    alone = [
        denoise_loop(x[b : b + 1].double(), exact(w), shifts[:, b].double(), COEFFICIENTS.double(), backend="reference")
        for b in range(B)
    ]
    want = torch.cat(alone) if B else x.double()
    given = [guarded(t.to(device)) for t in (x, shifts, COEFFICIENTS)]
    got = denoise_loop(given[0], on(w, device), *given[1:], backend=backend)
    assert_within_budget(got, want)
    one = graph_transformer(given[0], on(w, device), given[1][0], backend=backend)
    exactly = graph_transformer(x.double(), exact(w), shifts[0].double(), backend="reference")
    assert_within_budget(one, exactly)


@pytest.mark.parametrize("backend", BACKENDS)
def test_drawn_noise_is_a_function_of_seed_step_and_pose(backend):
    device = require("denoise", backend)
    x, w, shifts = network(11, 17, 16, 2, 1, 3, 5, 5)
    drawn = torch.stack([reference.draw(tuple(x.shape), 7, s, 2**33 - 2, "cpu") for s in range(3)])
    want = denoise_loop(
        x.double(), exact(w), shifts.double(), COEFFICIENTS.double(), noise=drawn.double(), backend="reference"
    )
    x, shifts, c, w = x.to(device), shifts.to(device), COEFFICIENTS.to(device), on(w, device)
    got = denoise_loop(x, w, shifts, c, seed=7, first_pose=2**33 - 2, backend=backend)
    assert_within_budget(got, want)
    parts = [
        denoise_loop(x[a:b], w, shifts, c, seed=7, first_pose=2**33 - 2 + a, backend=backend)
        for a, b in itertools.pairwise((0, 4, 11))
    ]
    torch.testing.assert_close(torch.cat(parts), got, rtol=1e-4, atol=1e-5)
    assert abs(drawn.mean()) < 0.1 and abs(drawn.std() - 1) < 0.1


@pytest.mark.parametrize("backend", KERNELS)
def test_rounded_weights(backend):
    device = require("denoise", backend)
    x, w, shifts = network(9, 17, 96, 4, 2, 3, 5, 5)
    want = graph_transformer(x.double(), exact(w), shifts[0].double(), backend="reference")
    kind = torch.float16 if device == "cpu" and backend == "triton" else torch.bfloat16  # what its interpreter can do
    got = graph_transformer(x.to(device), on(w.rounded(kind), device), shifts[0].to(device), backend=backend)
    assert_within_budget(got, want, bound=1e-2)
    assert (got.double().cpu() - want).norm() > 1e-5 * want.norm()  # it did round


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_pose(backend):
    device = require("denoise", backend)
    x, w, shifts = network(10, 17, 16, 2, 1, 3, 5, 5)
    x[3, 5, 1] = torch.nan
    got = graph_transformer(x.to(device), on(w, device), shifts[0].to(device), backend=backend)
    assert got[3].isnan().all() and got.isnan().sum() == got[3].numel()


@pytest.mark.parametrize("backend", KERNELS)
def test_weights_changed_in_place_are_seen(backend):
    device = require("denoise", backend)
    x, w, shifts = network(2, 17, 16, 2, 1, 3, 5, 5)
    w = w.map(lambda t: t.to(device).clone())
    graph_transformer(x.to(device), w, backend=backend)
    w.fc1_weight.mul_(2)
    want = graph_transformer(x.double(), exact(w.map(lambda t: t.cpu())), backend="reference")
    assert_within_budget(graph_transformer(x.to(device), w, backend=backend), want)


@pytest.mark.parametrize("backend", KERNELS)
def test_gradients(backend):
    device = require("denoise", backend)
    x, w, shifts = network(2, 17, 16, 2, 1, 3, 5, 5)
    noise = torch.randn(3, *x.shape)

    def gradients(x, w, shifts, c, noise, backend):
        leaves = [t.clone().requires_grad_() for t in (x, shifts, c, noise, *w.tensors)]
        w = w.with_tensors(leaves[4:])
        y, states, _ = denoise_loop(
            leaves[0], w, leaves[1], leaves[2], noise=leaves[3], trajectory=True, backend=backend
        )
        return torch.autograd.grad(y.square().sum() + states[0].sum(), leaves)

    want = gradients(x.double(), exact(w), shifts.double(), COEFFICIENTS.double(), noise.double(), backend="reference")
    got = gradients(*(t.to(device) for t in (x,)), on(w, device), shifts.to(device), COEFFICIENTS.to(device),
                    noise.to(device), backend=backend)  # fmt: skip
    for i, (a, b) in enumerate(zip(got, want)):
        assert_within_budget(a, b, bound=1e-4, what=f"gradient {i}")


def test_refusals():
    x, w, shifts = network(2, 17, 16, 2, 1, 3, 5, 5)
    for call, error, message in [
        (lambda: graph_transformer(x[:, :16], w), ValueError, r"x must be \[2, 17, 5\]"),
        (lambda: graph_transformer(x.double(), w), TypeError, "weights"),
        (lambda: graph_transformer(x, w, shifts), ValueError, r"shift must be \[2, 1, 16\] .*x has 2 poses"),
        (lambda: graph_transformer(x, w, shifts[0, 0]), ValueError, r"shift must be \[1, 16\]"),
        (lambda: denoise_loop(x, w, shifts, COEFFICIENTS[:2]), ValueError, r"coefficients must be \[3, 5\]"),
        (lambda: denoise_loop(x, w, shifts, COEFFICIENTS, noise=x), ValueError, r"noise must be \[3, 2, 17, 5\]"),
        (
            lambda: denoise_loop(x, w, shifts, COEFFICIENTS, noise=x.expand(3, -1, -1, -1), seed=1),
            ValueError,
            "noise or seed",
        ),
        (lambda: denoise_loop(x, w, shifts, COEFFICIENTS, seed=2**64), ValueError, "64 bits"),
        (lambda: denoise_loop(x, w, shifts, COEFFICIENTS, seed=1, first_pose=-1), ValueError, "first_pose must be"),
        (lambda: denoise_loop(x, "w", shifts, COEFFICIENTS), TypeError, "GraphDenoiser"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_a_named_kernel_refuses_float64():
    require("denoise", "cpu")
    x, w, shifts = network(2, 17, 16, 2, 1, 3, 5, 5)
    with pytest.raises(BackendError, match="float32"):
        graph_transformer(x.double(), exact(w), backend="cpu")


def test_no_steps_change_nothing():
    x, w, shifts = network(2, 17, 16, 2, 1, 3, 5, 5)
    assert torch.equal(denoise_loop(x, w, shifts[:0], COEFFICIENTS[:0]), x)
