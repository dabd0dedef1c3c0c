"""The vector functions and row helpers of the native core against float64, in every instruction set."""

import json

import pytest
import torch

from posekernels import _native
from posekernels.testing import guarded
from tests.native import printed_by

core = _native.core
pytestmark = pytest.mark.skipif(core is None, reason=str(_native.no_cpu()))

INF, NAN = float("inf"), float("nan")


def phi(x):
    return torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5


FUNCTIONS = {  # name: (number, float64 definition, how far off: relative to max(1, |value|))
    "exp": (0, torch.exp, 3e-7),
    "erf": (1, torch.erf, 4e-7),
    "gelu": (2, torch.nn.functional.gelu, 1e-6),
    "gelu_gradient": (3, lambda x: torch.special.ndtr(x) + x * phi(x), 5e-7),
    "tanh": (4, torch.tanh, 4e-7),
    "relu": (5, torch.relu, 0.0),
    "coarse_exp2": (6, lambda x: torch.exp2(x.clamp(min=-126)), 7.7e-5),  # below 128
    "coarse_gelu": (7, torch.nn.functional.gelu, 1.2e-4),
}


def apply(name, x):
    y = torch.empty_like(x)
    core.vecmath(1, x.data_ptr(), y.data_ptr(), x.numel(), FUNCTIONS[name][0])
    return y


def check() -> list[str]:
    """What is wrong, in words; [] when all is well. Run once per instruction set."""
    wrong = []
    x = guarded(torch.cat([torch.linspace(-12, 12, 40003), torch.randn(1001) * 1e-3]))
    for name, (_, define, allowed) in FUNCTIONS.items():
        want = define(x.double())
        error = ((apply(name, x) - want).abs() / want.abs().clamp(min=1)).max().item()
        if error > allowed:
            wrong.append(f"{name} is {error:.1e} off")
        ends = torch.tensor([0.0, INF, -INF, NAN, 1e30, -1e30])
        got, expected = apply(name, ends), define(ends.double()).float()
        if name == "gelu_gradient":
            expected[1:3] = torch.tensor([1.0, 0.0])  # its limits; the formula gives inf * 0
        if name in ("gelu", "coarse_gelu"):
            expected[2] = NAN  # -inf * 0 here, in PyTorch too on some versions: either will do
            got[2] = NAN
        if name == "coarse_exp2":
            got, expected = (torch.cat([t[:1], t[2:4], t[5:]]) for t in (got, expected))
        near = {"rtol": allowed, "atol": allowed} if name.startswith("coarse") else {"rtol": 1e-6}
        if not torch.allclose(got, expected, **near, equal_nan=True):
            wrong.append(f"{name} at 0, inf, -inf, nan, 1e30, -1e30 is {got.tolist()}, expected {expected.tolist()}")
    small = torch.linspace(-103, 88.7, 5001)
    error = (apply("exp", small) / torch.exp(small.double()) - 1)[small > -87].abs().max().item()
    if error > 3e-7:
        wrong.append(f"exp is {error:.1e} off over its whole range")
    for n in (1, 2, 7, 16, 17, 33, 80, 129, 240):
        x = guarded(torch.randn(5, n) * 3 + 100)
        weight, bias, y = guarded(torch.randn(n)), guarded(torch.randn(n)), torch.empty(5, n)
        for unbiased in (False, True):
            if unbiased and n == 1:
                continue
            d = x.double() - x.double().mean(1, keepdim=True)
            spread = d.square().sum(1, keepdim=True)
            root = (spread / (n - 1)).sqrt() + 1e-3 if unbiased else (spread / n + 1e-3).sqrt()
            want = weight.double() * d / root + bias.double()
            core.layer_norm_rows(
                1, x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr(), 5, n, 1e-3, unbiased
            )
            if (y - want).abs().max() > 2e-4:  # the mean of numbers around 100 is only known to 1e-5
                wrong.append(f"layer norm of {n}, unbiased={unbiased}: {(y - want).abs().max():.1e} off")
        logits = guarded(torch.randn(5, n) * 4)
        want = torch.softmax(logits.double() * 0.3, 1)
        core.softmax_rows(1, logits.data_ptr(), 5, n, 0.3)
        if (logits - want).abs().max() > 1e-6:
            wrong.append(f"softmax of {n}")
    row = torch.tensor([[1.0, NAN, 2.0]])
    core.softmax_rows(1, row.data_ptr(), 1, 3, 1.0)
    if not row.isnan().all():
        wrong.append("softmax loses NaN")
    return wrong


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_vecmath(isa):
    printed = printed_by("import json, tests.build.test_vecmath as t; print(json.dumps(t.check()))", isa)
    assert json.loads(printed.splitlines()[-1]) == []
