"""``temporal_mlp`` in CUDA C++: emulated on the CPU thread by thread, and as it is where there is a GPU."""

import pytest
import torch

from posekernels.ops.temporal_mlp import PARAMETERS, cuda, reference
from posekernels.testing import TF32_BUDGET, assert_within_budget, guarded
from tests.cuda_emulation import cuda_device
from tests.ops.test_temporal_mlp import VARIANTS, network, parameters, state

DTYPES = [torch.float32, torch.bfloat16]
device = cuda_device("temporal_mlp")


def run(module, x, made, mix, norm, keep=True):
    """(y, gradients by name) from the raw functions of ``module``."""
    tensors = [made.get(name) for name in PARAMETERS]
    y, saved = module.temporal_mlp(x, *tensors, mix, norm, 1e-5, keep)
    grad = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape).sin().to(y.device, y.dtype)
    needs = [True, *(t is not None for t in tensors)]
    grads = module.temporal_mlp_backward(grad, saved, x, *tensors, mix, norm, 1e-5, needs)
    return y, dict(zip(("x", *made), grads, strict=True))


def compare(device, B, C, T, N, dtype, mix="temporal", norm="spatial", pre=True, bound=None):
    made = {k: v.to(dtype) for k, v in parameters(C, T, N, mix, norm, pre).items()}
    x = state(B, C, T).to(dtype)
    want, wanted = run(reference, x.double(), {k: v.double() for k, v in made.items()}, mix, norm)
    ours = {k: guarded(v.to(device)) for k, v in made.items()}
    got, grads = run(cuda, guarded(x.to(device), strided=True), ours, mix, norm)
    assert_within_budget(got, want, bound=bound)
    for name, grad in grads.items():
        # What is constant along the last norm's axis cancels in it: rounding, measured against the weight's gradient.
        gone = {("temporal", "spatial"): ("bias", "pre_shift"), ("spatial", "temporal"): ("bias",)}.get((mix, norm), ())
        size = wanted["weight" if name in gone else name].norm()
        error = (grad.double().cpu() - wanted[name]).norm() / size
        limit = bound or (2e-5 if dtype == torch.float32 else 3e-2)  # the norms amplify what bfloat16 rounds
        assert error <= limit, f"gradient of {name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_and_gradients(device, variant, dtype):
    compare(device, 2, 21, 18, 2, dtype, *variant)


@pytest.mark.parametrize(
    "size", [(2, 66, 50, 3), (1, 75, 50, 1), (2, 5, 7, 10), (1, 17, 3, 2), (1, 80, 64, 1)], ids=str
)
def test_sizes(device, size):
    compare(device, *size, torch.float32)
    if size[1] == 66:
        compare(device, *size, torch.float32, mix="spatial", norm="temporal")


def test_tf32_only_where_pytorch_allows_it(device):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        compare(device, 1, 33, 20, 2, torch.float32, bound=2 * TF32_BUDGET)
        with pytest.raises(AssertionError, match="exceeds"):
            compare(device, 1, 33, 20, 2, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(3, 33, 20, 6), (1, 66, 50, 25), (2, 75, 10, 50)], ids=str)
@pytest.mark.parametrize("side", [True, False])
def test_forecast(device, sizes, side, dtype):
    B, C, T, S = sizes
    history = state(B, T, C).to(dtype)
    net = [({k: v.to(dtype) for k, v in a.items()} if isinstance(a, dict) else a.to(dtype))
           for a in network(C, T, S, 3, 2)]  # fmt: skip

    def forecast(module, convert):
        given = [[convert(a[k]) if k in a else None for k in PARAMETERS] if isinstance(a, dict) else convert(a)
                 for a in net]  # fmt: skip
        tail = given[7:] if side else [[], None, None]
        return module(convert(history), *given[:7], *tail, "temporal", "spatial", 1e-5)

    want = forecast(reference.temporal_mlp_forecast, torch.Tensor.double)
    got = forecast(cuda.temporal_mlp_forecast, lambda t: guarded(t.to(device), strided=t is history))
    assert_within_budget(got, want)


def test_nothing_and_no_blocks(device):
    made = {k: v.float().to(device) for k, v in parameters(6, 5, 0).items()}
    x = state(2, 6, 5).float().to(device)
    y, grads = run(cuda, x, made, "temporal", "spatial")
    assert torch.equal(y, x) and grads["weight"].shape == (0, 5, 5)
    assert run(cuda, x[:0], {k: v.float().to(device) for k, v in parameters(6, 5, 1).items()},
               "temporal", "spatial")[0].shape == (0, 6, 5)  # fmt: skip


def test_same_bits_and_nan(device):
    x, made = state(3, 66, 50).float(), {k: v.float().to(device) for k, v in parameters(66, 50, 1).items()}
    clean = cuda.temporal_mlp(x.to(device), *(made.get(n) for n in PARAMETERS), "temporal", "spatial", 1e-5, False)[0]
    x[1, 5, 7] = float("nan")
    dirty = cuda.temporal_mlp(x.to(device), *(made.get(n) for n in PARAMETERS), "temporal", "spatial", 1e-5, False)[0]
    assert dirty[1].isnan().all() and torch.equal(dirty[::2], clean[::2])
