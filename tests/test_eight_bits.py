"""Products in FP8: what they round to, what they are refused for, and their Triton kernel, interpreted and compiled."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import posekernels
from posekernels import BackendError, eight_bits, models
from posekernels.eight_bits import Fp8Layer, quantise, reference
from posekernels.testing import device_of
from tests.eight_bits import trained, unseen_clips


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixste(**options):
    torch.manual_seed(0)
    return models.create("mixste", frames=9, channels=32, depth=1, heads=2, **options).eval()


def strided(**options):
    torch.manual_seed(0)
    sizes = {"strides": (3, 3), "layers": 1, "channels": 32, "hidden": 48, "heads": 2} | options
    return models.create("strided_transformer", **sizes).eval()


def keypoints(net):
    return numbers(2, net.frames, 17, 2)


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


def test_a_row_is_rounded_by_its_own_scale():
    rows = numbers(5, 64) * torch.tensor([1e-6, 1.0, 1e6, 0.0, 1e-40])[:, None]
    low, scale = quantise(rows)
    assert low.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32
    back = low.float() * scale[:, None]
    largest = rows.abs().amax(-1, keepdim=True)
    # Three bits of mantissa; below 2^-6 of the 448 they are steps of 2^-9.
    assert ((back - rows).abs() <= rows.abs() / 16 + largest / 448 / 1024)[:4].all()
    assert back[3:].abs().max() <= 1e-38
    assert quantise(torch.tensor([[1.0, float("nan")], [1.0, float("inf")]]))[0].float().isnan().any(-1).all()


def test_the_reference_is_the_product_of_the_rounded_numbers():
    x, weight, bias = numbers(7, 64), numbers(16, 64, seed=1), numbers(16, seed=2)
    (rows, of_row), (columns, of_column) = quantise(x), quantise(weight)
    want = (rows.double() * of_row[:, None]) @ (columns.double() * of_column[:, None]).T + bias
    got = reference(x, columns, of_column, bias)
    assert error(got.double(), want) < 1e-6
    assert 5e-3 < error(got, F.linear(x, weight, bias)) < 5e-2  # eight bits, and no more than that


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_linear_layers_and_convolutions(backend, dtype):
    pytest.importorskip("triton")
    device = device_of(backend)
    linear, conv = nn.Linear(80, 48, bias=False).to(dtype), nn.Conv1d(48, 32, 3, stride=2, padding=1).to(dtype)
    x, z = numbers(3, 5, 80).to(dtype), numbers(2, 48, 9).to(dtype)
    with torch.no_grad(), posekernels.use_backend(backend):
        for layer, given in ((linear, x), (conv, z)):
            want, low = layer(given), Fp8Layer(layer.eval()).to(device)
            got = low(given.to(device)).cpu()
            assert got.shape == want.shape and got.dtype == dtype
            assert error(got.float(), want.float()) < 0.06
            with posekernels.use_backend("reference"):
                assert error(got.float(), low(given.to(device)).cpu().float()) < 1e-3


@pytest.mark.parametrize("make", [mixste, strided])
def test_networks(make):
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    low, x = posekernels.fp8(net), keypoints(net)
    quantised = [part for part in low.modules() if isinstance(part, Fp8Layer)]
    assert len(quantised) == {mixste: 2 * 4, strided: 3 * 6}[make]
    assert "Fp8Layer" in posekernels.explain(low)  # module by module, past no layer
    with torch.no_grad():
        want, got = net(x), low(x)
    assert 1e-4 < error(got, want) < 0.2
    assert not low(x).requires_grad
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    clone = posekernels.fp8(make())
    clone.load_state_dict(low.state_dict())
    assert torch.equal(clone(x), got)


def test_what_is_refused():
    net = mixste()
    with pytest.raises(ValueError, match=r"training mode; call net.eval\(\)"):
        posekernels.fp8(mixste().train())
    with pytest.raises(ValueError, match=r"spatial.0.mlp.fc1: sizes must be multiples of 16, got 32 -> 40"):
        posekernels.fp8(mixste(mlp_ratio=1.25))
    with pytest.raises(ValueError, match=r"attention.query: sizes must be multiples of 16, got 24 -> 24"):
        posekernels.fp8(strided(channels=24))
    with pytest.raises(TypeError, match="HTNet has no block of MixSTE or Strided"):
        posekernels.fp8(models.create("htnet").eval())
    low, x = posekernels.fp8(net), keypoints(net)
    with pytest.raises(ValueError, match="spatial.0.qkv is not an ordinary layer.*Fp8Layer"):
        posekernels.fp8(low)
    with pytest.raises(ValueError, match="no gradient"):
        low(x.requires_grad_())
    with pytest.raises(ValueError, match="no gradient"):
        low.train()(x.detach())
    with pytest.raises(TypeError, match="weights must be torch.float8_e4m3fn .* got torch.float16"):
        posekernels.fp8(net).half()(x.detach().half())
    for backend in ("cpu", "cuda"):
        with posekernels.use_backend(backend), pytest.raises(BackendError, match=f"fp8: backend '{backend}'.*no such"):
            low.eval().spatial[0].qkv(numbers(3, 32))


def test_what_it_costs_on_trained_weights():
    """The lifter that ships, on a few of the clips that it has not seen; bounds far from what all of them show."""
    clips = sorted(unseen_clips(), key=lambda clip: len(clip.keypoints))[:3]
    plain, low, between = trained(clips)
    assert 0.1 < between < 20 and abs(low - plain) < 5, (plain, low, between)


def test_older_cards_are_refused(monkeypatch):
    monkeypatch.setattr(eight_bits, "not_for_triton", lambda *tensors: None)
    monkeypatch.setattr(eight_bits, "triton_interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert "needs a GPU of compute capability 9.0" in eight_bits._refuses(numbers(2, 32))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert eight_bits._refuses(numbers(2, 32)) is None


def test_the_kernel_compiles_for_sm_90_without_spills():
    pytest.importorskip("triton")
    program = (
        "import dataclasses, json\nfrom posekernels import aot\nfrom posekernels._eight_bits_triton import AOT\n"
        "reports = [aot.compile_one(AOT[n], 90) for n in (0, -1)]\n"
        "print(json.dumps([[r.name, r.problem(), r.registers, r.matrix_instructions] for r in reports]))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}  # defined for one or the other
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, problem, registers, products in json.loads(done.stdout):
        assert problem is None, f"{name}: {problem}"
        assert registers < 255 and products >= 4, name
