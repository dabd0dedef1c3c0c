"""temporal_networks: whole chains against float64, gradients, prepared weights, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from posekernels import BackendError
from posekernels.ops import Layer, TemporalNetworks, temporal_networks
from posekernels.testing import assert_within_budget, guarded

BACKENDS = ["reference", "cpu"]
#        B, per network: (input channels, [(Co, width, slope, residual, tap)])
CHAINS = [
    (1, [(30, [(24, 3, 0.2, None, 0), (24, 3, 0.2, None, 0), (24, 1, 0.2, 0, 1), (9, 1, 1.0, None, 0)])]),
    (5, [(7, [(40, 3, 0.0, None, 0), (40, 1, 1.0, 0, 0)]), (34, [(17, None, 0.2, None, 0)])]),
    (70, [(33, [(33, 3, 0.2, -1, 2), (33, 3, 0.2, -1, 7)]), (16, [(48, 1, 0.2, None, 0)]), (3, [(1, 9, 1, None, 0)])]),
    (0, [(4, [(5, 3, 1.0, None, 0)])]),
]  # fmt: skip


def chain(B, networks, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    xs, all_layers = [], []
    for channels, layers in networks:
        frames, Ci, made = 1, channels, []
        for Co, width, slope, residual, tap in layers:
            frames *= width or 1
            shape = (Co, Ci) if width is None else (Co, Ci, width)
            weight = (randn(*shape) / (Ci * (width or 1)) ** 0.5).to(dtype)
            affine = torch.stack((1 + 0.3 * randn(Co), 0.3 * randn(Co)))
            made.append(Layer(weight, affine, slope, residual, tap))
            Ci = Co
        xs.append(guarded(randn(B, frames * (1 + len(xs) % 2), channels).to(dtype)))
        all_layers.append(made)
    return xs, all_layers


def exact(xs, networks):
    """In float64, with PyTorch's own convolution."""
    found = []
    for x, layers in zip(xs, networks):
        results = [x.double()]
        for weight, affine, slope, residual, tap in layers:
            weight = weight.double() if weight.dim() == 3 else weight.double()[:, :, None]
            y = (
                F.conv1d(results[-1].mT, weight, stride=weight.shape[2]).mT
                if len(x)
                else x.new_zeros(0, 1, len(weight))
            )
            y = F.leaky_relu(y * affine[0] + affine[1], slope)
            if residual is not None:
                y = y + results[residual + 1][:, tap :: results[residual + 1].shape[1] // y.shape[1]]
            results.append(y)
        found.append(results[-1])
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", range(len(CHAINS)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_float64(backend, case, dtype):
    xs, layers = chain(*CHAINS[case], dtype)
    with torch.no_grad():
        got = temporal_networks(xs, TemporalNetworks(layers), backend=backend)
    for g, want in zip(got, exact(xs, layers), strict=True):
        assert g.dtype == dtype
        # A chain of layers rounds to bfloat16 between them.
        assert_within_budget(g, want, bound=3e-2 if dtype == torch.bfloat16 else None)


def test_many_clips_go_in_portions(monkeypatch):
    from posekernels.ops.temporal_networks import cpu

    xs, layers = chain(*CHAINS[2])
    monkeypatch.setattr(cpu, "_WORKSPACE", 2000)
    with torch.no_grad():
        for g, want in zip(temporal_networks(xs, TemporalNetworks(layers), backend="cpu"), exact(xs, layers)):
            assert_within_budget(g, want)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gradients(backend):
    xs, layers = chain(*CHAINS[0])
    leaves = [xs[0].clone(), *[t for layer in layers[0] for t in layer[:2]]]

    def grads(dtype, backend):
        mine = [t.detach().to(dtype).requires_grad_() for t in leaves]
        networks = [[Layer(w, a, *y[2:]) for y, w, a in zip(layers[0], mine[1::2], mine[2::2])]]
        y = temporal_networks(mine[:1], TemporalNetworks(networks), backend=backend)[0]
        return torch.autograd.grad(y.square().sum(), mine)

    for got, want in zip(grads(torch.float32, backend), grads(torch.float64, "reference")):
        assert_within_budget(got, want)


def test_refuses():
    (x, *_), layers = chain(*CHAINS[0])
    networks = TemporalNetworks(layers)
    with pytest.raises(ValueError, match=r"x\[0\] must be \[1, a multiple of 9, 30\], got \[1, 8, 30\]"):
        temporal_networks([x[:, :8]], networks)
    with pytest.raises(ValueError, match="one per network, got 2"):
        temporal_networks([x, x], networks)
    with pytest.raises(TypeError, match="weights' dtype torch.float32, got torch.float64"):
        temporal_networks([x.double()], networks)
    with pytest.raises(ValueError, match="layer 2 of network 0 must have 24 channels and a tap in"):
        TemporalNetworks([[*layers[0][:2], layers[0][2]._replace(tap=3)]])
    with pytest.raises(ValueError, match="layer 1 of network 0 must take 24 channels, got 30"):
        TemporalNetworks([[layers[0][0], layers[0][0]]])
    with pytest.raises(ValueError, match="at least one layer"):
        TemporalNetworks([[]])
    wide = TemporalNetworks([[Layer(w.double(), a.double()) for w, a, *_ in layers[0]]])
    with torch.no_grad(), pytest.raises(BackendError, match="float32"):
        temporal_networks([x.double()], wide, backend="cpu")
