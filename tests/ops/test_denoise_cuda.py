"""``denoise`` in CUDA C++: emulated on the CPU thread by thread, and as it is where there is a GPU."""

import pytest
import torch

from posekernels import _cuda
from posekernels.ops.denoise import cuda, reference
from posekernels.testing import assert_within_budget, guarded
from tests.cuda_emulation import compare, cuda_device, exact
from tests.ops.test_denoise import COEFFICIENTS, network

device = cuda_device("denoise")


def on(device, *tensors):
    return [None if t is None else guarded(t.to(device)) for t in tensors]


def one_pass(device, shape, kind=torch.float32, shifted=True):
    """(what the kernel makes of one pass of a network, what the reference does in float64)."""
    x, weights, shifts = network(*shape)
    shifts = shifts[:1] if shifted else None
    want = reference.denoise(*exact(x, exact(*weights.tensors), shifts), None, None, None, 0, weights.heads, False)
    ours = on(device, *weights.rounded(kind).tensors)
    got = cuda.denoise(*on(device, x), ours, *on(device, shifts), None, None, None, 0, weights.heads, False)
    return got[0], want[0]


# B, J, C, heads, layers, polynomials, Cin, Cout
@pytest.mark.parametrize(
    "shape",
    [
        (0, 17, 16, 2, 1, 3, 5, 5),
        (3, 16, 20, 4, 2, 3, 2, 3),  # heads of 5 channels
        (2, 40, 24, 1, 1, 2, 6, 9),  # a head of three tiles, a pose over three warps, two tiles out
        (1, 64, 8, 1, 1, 1, 1, 1),
        (65, 1, 16, 1, 0, 2, 16, 2),  # no layers
        (1, 17, 33, 3, 1, 3, 5, 5),  # the wider kernel
    ],
    ids=str,
)
def test_sizes(device, shape):
    compare(*([t] for t in one_pass(device, shape)), shape)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_matrices_of_16_bits(device, kind):
    got, want = one_pass(device, (3, 17, 24, 3, 1, 3, 5, 5), kind, shifted=False)
    assert_within_budget(got, want, bound=1e-2)
    assert (got.double().cpu() - want).norm() > 1e-5 * want.norm()  # it did round


def test_tf32_only_where_pytorch_allows_it(device):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        got, want = one_pass(device, (3, 17, 16, 2, 1, 3, 5, 5))
    finally:
        torch.set_float32_matmul_precision(before)
    assert_within_budget(got, want, bound=1e-2)
    assert (got.double().cpu() - want).norm() > 1e-5 * want.norm()


@pytest.mark.parametrize("processors", [1, 132])  # 8 warps to a block, and 4
def test_chain_with_its_trajectory(device, monkeypatch, processors):
    monkeypatch.setattr(_cuda, "limits", lambda x: _cuda.Limits(227 * 1024, processors))
    x, weights, shifts = network(8, 17, 16, 2, 1, 3, 5, 5)
    noise = torch.randn(3, *x.shape)
    want = reference.denoise(
        *exact(x, exact(*weights.tensors), shifts, COEFFICIENTS, noise), None, 0, weights.heads, True
    )
    given = on(device, x, shifts, COEFFICIENTS, noise)
    got = cuda.denoise(given[0], on(device, *weights.tensors), *given[1:], None, 0, weights.heads, True)
    compare(got, want, "x, states, estimates")


@pytest.mark.parametrize("processors", [1, 132])  # 8 warps to a block, and 4
def test_chain_of_one_timestep_per_pose(device, monkeypatch, processors):
    monkeypatch.setattr(_cuda, "limits", lambda x: _cuda.Limits(227 * 1024, processors))
    x, weights, _ = network(8, 17, 16, 2, 1, 3, 5, 5)
    shifts = torch.randn(3, 8, 1, 16)
    tail = None, None, 0, weights.heads, False
    want = reference.denoise(*exact(x, exact(*weights.tensors), shifts, COEFFICIENTS), *tail)
    given = on(device, x, shifts, COEFFICIENTS)
    got = cuda.denoise(given[0], on(device, *weights.tensors), *given[1:], *tail)
    assert_within_budget(got[0], want[0])


def test_noise_is_a_function_of_seed_step_and_pose(device):
    x, weights, shifts = network(5, 17, 8, 1, 1, 1, 5, 5)
    options = 7, 2**33 - 2, weights.heads, False
    want = reference.denoise(*exact(x, exact(*weights.tensors), shifts, COEFFICIENTS), None, *options)
    given = on(device, x, shifts, COEFFICIENTS)
    got = cuda.denoise(given[0], on(device, *weights.tensors), *given[1:], None, *options)
    assert_within_budget(got[0], want[0])


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
def test_what_is_not_finite_stays_in_its_pose(device, kind):
    x, weights, _ = network(4, 17, 16, 2, 1, 3, 5, 5)
    x[1, 5, 1], x[2, 0, 0] = torch.nan, 1e30 if kind == torch.float16 else torch.inf
    ours = on(device, *weights.rounded(kind).tensors)
    got = cuda.denoise(*on(device, x), ours, None, None, None, None, 0, weights.heads, False)[0]
    assert got[1:3].isnan().all() and got[[0, 3]].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 17, 5, dtype=torch.float64)}, "needs x in float32"),
        ({"C": 100}, "at most 96 channels"),
        ({"heads": 20, "C": 60}, "got 160"),
        ({"Cin": 50}, "at most 96 channels"),
    ],
)
def test_what_it_refuses(change, message):
    sizes = {"B": 1, "J": 17, "C": 16, "heads": 2, "L": 1, "K": 3, "Cin": 5, "Cout": 5}
    x, weights, _ = network(*(sizes | {k: v for k, v in change.items() if k != "x"}).values())
    reason = cuda.refuses(change.get("x", x), weights.tensors, None, None, None, None, 0, weights.heads, False)
    assert message in reason
