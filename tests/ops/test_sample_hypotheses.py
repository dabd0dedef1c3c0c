"""Philox against its published vectors; ``sample_hypotheses`` on every backend here."""

import pytest
import torch

from posekernels._philox import philox4x32
from posekernels.ops import sample_hypotheses
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = ("reference", "cpu", "triton", "cuda")
SHAPES = [(0, 3, 2, 17), (1, 1, 1, 1), (2, 5, 2, 17), (3, 7, 1, 17), (5, 0, 2, 17), (1, 200, 2, 16), (4, 3, 2, 13)]
ONES = 0xFFFFFFFF
VECTORS = [  # (counter, key, words): kat_vectors of Random123
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter,key,words", VECTORS)
def test_philox_vectors(counter, key, words):
    assert tuple(int(w) for w in philox4x32(tuple(map(torch.tensor, counter)), key)) == words


def inputs(B, V, J, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(B, V, J, 2, generator=g) * 2 - 1, torch.randn(B, V, J, generator=g) * 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 + 5])
@pytest.mark.parametrize("B,S,V,J", SHAPES)
def test_same_numbers_everywhere(backend, seed, B, S, V, J):
    device = require("sample_hypotheses", backend)
    x, sigma = inputs(B, V, J)
    options = {"alpha": 0.5, "seed": seed, "first_pose": 2**32 - 2, "first_sample": 3}
    want = sample_hypotheses(x.double(), sigma.double(), S, backend="reference", **options)
    got = sample_hypotheses(
        guarded(x.to(device)), guarded(sigma.to(device), strided=True), S, backend=backend, **options
    )
    assert got.shape == (B, S, V, J, 2) and got.is_contiguous()
    assert_within_budget(got, want)
    # normals themselves, to 1e-6
    zero, one = torch.zeros_like(x), torch.ones_like(sigma)
    bare = sample_hypotheses(zero.to(device), one.to(device), S, backend=backend, **options | {"alpha": 1.0})
    exact = sample_hypotheses(zero.double(), one.double(), S, backend="reference", **options | {"alpha": 1.0})
    if bare.numel():
        assert (bare.cpu() - exact).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_split_of_batch_and_samples_does_not_matter(backend):
    device = require("sample_hypotheses", backend)
    x, sigma = (t.to(device) for t in inputs(7, 2, 17))
    whole = sample_hypotheses(x, sigma, 11, alpha=0.1, seed=3, backend=backend)
    for b, s in ((0, 4), (3, 0), (6, 10)):
        part = sample_hypotheses(
            x[b:], sigma[b:], 11 - s, alpha=0.1, seed=3, first_pose=b, first_sample=s, backend=backend
        )
        assert torch.equal(part, whole[b:, s:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    device = require("sample_hypotheses", backend)
    x, sigma = inputs(2, 2, 17)
    exact = [x.double().requires_grad_(), sigma.double().requires_grad_()]
    want = sample_hypotheses(*exact, 5, alpha=0.3, seed=1, backend="reference")
    mine = [x.to(device).requires_grad_(), sigma.to(device).requires_grad_()]
    got = sample_hypotheses(*mine, 5, alpha=0.3, seed=1, backend=backend)
    g = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    for a, b in zip(torch.autograd.grad(got, mine, g.to(device)), torch.autograd.grad(want, exact, g.double())):
        assert_within_budget(a, b)


def test_16_bits_and_nan_on_triton():
    device = require("sample_hypotheses", "triton")
    x, sigma = (t.half() for t in inputs(2, 2, 17))
    sigma[1, 0, 5] = torch.nan
    want = sample_hypotheses(x.double(), sigma.double(), 3, alpha=0.5, seed=4, backend="reference")
    got = sample_hypotheses(guarded(x.to(device)), guarded(sigma.to(device)), 3, alpha=0.5, seed=4, backend="triton")
    assert got.dtype == torch.float16 and got.isnan().sum() == 3 * 2
    assert_within_budget(got, want)


def test_the_numbers_are_standard_normal():
    z = sample_hypotheses(torch.zeros(50, 2, 17, 2), torch.zeros(50, 2, 17), 100, alpha=1.0).double()
    n = z.numel()
    assert abs(z.mean()) < 5 / n**0.5 and abs(z.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / n) ** 0.5 and abs((z**4).mean() - 3) < 5 * (96 / n) ** 0.5
    flat = z.flatten(2).flatten(0, 1)  # hypotheses x places: no place may follow another
    correlation = torch.corrcoef(flat.T) - torch.eye(68)
    assert correlation.abs().max() < 6 / 5000**0.5
    assert abs(torch.corrcoef(torch.stack((flat[:-1].flatten(), flat[1:].flatten())))[0, 1]) < 5 / n**0.5


def test_one_view_is_the_first_of_two():
    x, sigma = inputs(3, 2, 17)
    two = sample_hypotheses(x, sigma, 4, alpha=0.1, seed=9)
    assert torch.equal(sample_hypotheses(x[:, 0], sigma[:, 0], 4, alpha=0.1, seed=9), two[:, :, 0])


def test_alpha_and_sigma():
    x, sigma = inputs(2, 2, 17)
    assert torch.equal(sample_hypotheses(x, sigma, 3, alpha=0.0), x[:, None].expand(2, 3, 2, 17, 2))
    below = sample_hypotheses(x, sigma.clamp(max=1), 3, alpha=0.1)
    assert torch.equal(below, sample_hypotheses(x, torch.full_like(sigma, -4), 3, alpha=0.1))
    sigma[1, 0, 5] = torch.nan
    noisy = sample_hypotheses(x, sigma, 3, alpha=0.1)
    assert noisy[1, :, 0, 5].isnan().all() and noisy.isnan().sum() == 3 * 2


@pytest.mark.parametrize(
    "change,words",
    [
        ({"samples": -1}, "samples must be an integer of at least 0"),
        ({"alpha": -0.1}, "alpha must be a finite number of at least 0"),
        ({"alpha": float("nan")}, "alpha must be a finite number of at least 0"),
        ({"first_sample": 2**32}, "first_sample"),
        ({"sigma": torch.zeros(2, 17)}, "sigma must be"),
        ({"keypoints": torch.zeros(2, 2, 17, 3)}, "keypoints must be"),
    ],
)
def test_refusals(change, words):
    arguments = {"keypoints": torch.zeros(2, 2, 17, 2), "sigma": torch.zeros(2, 2, 17), "samples": 3, "alpha": 0.1}
    arguments |= change
    with pytest.raises(ValueError, match=words):
        sample_hypotheses(arguments.pop("keypoints"), **arguments)


@pytest.mark.parametrize("counter,key,words", VECTORS)
def test_philox_of_the_native_module(counter, key, words):
    require("sample_hypotheses", "cpu")
    from posekernels._native import core

    scalar, lanes = torch.zeros(5, 4, dtype=torch.int32), torch.zeros(5, 4, dtype=torch.int32)
    core.philox_words(1, *counter, key, 5, scalar.data_ptr(), lanes.data_ptr())
    assert tuple(int(w) & ONES for w in scalar[0]) == words and torch.equal(scalar, lanes)
