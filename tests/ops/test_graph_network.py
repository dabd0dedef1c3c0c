"""graph_network: whole chains against ``graph_conv`` in float64, changed weights, portions, and what it refuses."""

import copy

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from posekernels import BackendError, models
from posekernels.ops import GraphLayer, GraphNetwork, graph_conv, graph_network
from posekernels.ops.graph_network import cuda
from posekernels.ops.graph_network.cpu import places
from posekernels.testing import assert_within_budget, guarded, require
from tests.cuda_emulation import cuda_device

device = cuda_device("graph_conv")

#   B, joints, input channels, per layer: (channels, matrices, activation, residual)
CHAINS = [
    (2, 17, 2, [(24, 2, "relu", None), (24, 2, "relu", None), (24, 2, "relu", 0), (3, 2, "none", None)]),
    (5, 16, 7, [(7, 1, "gelu", -1), (40, 1, "none", None), (7, 3, "relu", 0), (40, 2, "none", 1)]),
    (1, 5, 13, [(33, 2, "relu", None)]),
    (0, 3, 2, [(5, 1, "none", None), (2, 1, "none", -1)]),
]  # fmt: skip


def chain(B, J, channels, layers, seed=0):
    """(x, the layers)."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    made, Cin = [], channels
    for Cout, K, activation, residual in layers:
        adjacency = randn(K, J, J) / J**0.5
        if K > 1:
            adjacency[0] *= torch.eye(J)
        affine = torch.stack((1 + 0.3 * randn(Cout), 0.3 * randn(Cout)))
        made.append(
            GraphLayer(randn(K, Cin, Cout) / Cin**0.5, adjacency, 1 + randn(J, Cout), affine, activation, residual)
        )
        Cin = Cout
    return guarded(randn(B, J, channels)), made


def exact(x, layers):
    """In float64, by the op of one layer."""
    results = [x.double()]
    for layer in layers:
        weight, adjacency, modulation, affine = (t.double() for t in layer[:4])
        residual = None if layer.residual is None else results[layer.residual + 1]
        y = graph_conv(results[-1], weight, adjacency, modulation=modulation, scale=affine[0], shift=affine[1],
                       residual=residual, activation=layer.activation, backend="reference")  # fmt: skip
        results.append(y)
    return results[-1]


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("case", range(len(CHAINS)))
def test_against_graph_conv_in_float64(backend, case):
    device = require("graph_network", backend)
    x, layers = chain(*CHAINS[case])
    network = GraphNetwork([GraphLayer(*(t.to(device) for t in layer[:4]), *layer[4:]) for layer in layers])
    with torch.no_grad():
        got = graph_network(x.to(device), network, backend=backend)
    assert_within_budget(got, exact(x, layers).to(device))


def test_many_poses_go_in_portions():
    require("graph_network", "cpu")
    x, layers = chain(700, *CHAINS[0][1:3], [(96, 2, "relu", None), (96, 2, "relu", None), (96, 1, "relu", 0)])
    with torch.no_grad():
        assert_within_budget(graph_network(x, GraphNetwork(layers), backend="cpu"), exact(x, layers))


def test_buffers_are_used_again_after_their_last_use():
    assert places([-2, -2, 0, -2, 2, -2]) == [0, 1, 2, 0, 1, -1]
    assert places([-2]) == [-1]
    assert max(places([-2] + [-2, 0] * 20)) <= 2


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gradients(backend):
    x, layers = chain(*CHAINS[0])
    leaves = [x.clone(), *[t for layer in layers for t in layer[:4]]]

    def grads(dtype, backend):
        mine = [t.detach().to(dtype).requires_grad_() for t in leaves]
        made = [GraphLayer(*mine[1 + 4 * i : 5 + 4 * i], *layer[4:]) for i, layer in enumerate(layers)]
        return torch.autograd.grad(graph_network(mine[0], GraphNetwork(made), backend=backend).square().sum(), mine)

    for got, want in zip(grads(torch.float32, backend), grads(torch.float64, "reference"), strict=True):
        assert_within_budget(got, want)


@pytest.mark.parametrize("case", [0, 1, 3])
def test_cuda(device, case):
    x, layers = chain(*CHAINS[case])
    network = GraphNetwork([GraphLayer(*(t.to(device) for t in layer[:4]), *layer[4:]) for layer in layers])
    got = cuda.graph_network(x.to(device), network.tensors, *network.options)
    assert_within_budget(got, exact(x, layers).to(device))


@pytest.mark.parametrize("name", ["mgcn_lw", "variance_gcn", "variance_linear", "strided_refine"])
def test_networks_agree_with_their_layers_and_see_changes(name):
    net = models.create(name).eval()
    shapes = [(3, 1, 17, 3)] * 2 if name == "strided_refine" else [(3, 2, 17, 2)]
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]

    def agree(net):
        layer_by_layer = net(*inputs).detach()  # as long as gradients may be asked for
        with torch.no_grad():
            fused = net(*inputs)
        torch.testing.assert_close(fused, layer_by_layer, rtol=1e-5, atol=1e-5)
        return fused

    before = agree(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.add_(0.1)
                module.running_var.mul_(1.3)
    assert not torch.equal(agree(net), before)
    agree(copy.deepcopy(net))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert net(*inputs).isfinite().all()


@pytest.mark.filterwarnings("ignore")  # of checks that a trace does not record, and that tracing is deprecated
@pytest.mark.parametrize("name", ["mgcn_lw", "variance_gcn", "variance_linear"])
def test_networks_are_recorded(name):
    net = models.create(name).eval()
    x, more = torch.rand(2, 1, 17, 2, generator=torch.Generator().manual_seed(0)), torch.ones(2, 1, 17, 2)
    with torch.no_grad():
        want = net(more)
        for recorded in (torch.jit.trace(net, x), make_fx(net)(x)):
            assert "posekernels" in str(recorded.graph)
            torch.testing.assert_close(recorded(more), want)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert net(mode.from_tensor(x)).shape == want.shape


def test_refuses():
    x, layers = chain(*CHAINS[0])
    network = GraphNetwork(layers)
    with pytest.raises(ValueError, match=r"x must be \[..., 17, 2\], got \[2, 16, 2\]"):
        graph_network(x[:, :16], network)
    with pytest.raises(TypeError, match="network must be a GraphNetwork, got list"):
        graph_network(x, layers)
    with pytest.raises(TypeError, match="x"):
        graph_network(x.double(), network)
    with pytest.raises(ValueError, match="weight of layer 1 must take 24 channels, got 2"):
        GraphNetwork([layers[0], layers[0]])
    with pytest.raises(ValueError, match=r"residual of layer 2 must be an integer of at most 1, got 2"):
        GraphNetwork([*layers[:2], layers[2]._replace(residual=2)])
    with pytest.raises(ValueError, match="residual of layer 2 must have 24 channels, got 2"):
        GraphNetwork([*layers[:2], layers[2]._replace(residual=-1)])
    with pytest.raises(ValueError, match="activation of layer 0 must be one of none, relu, gelu, got 'tanh'"):
        GraphNetwork([layers[0]._replace(activation="tanh")])
    with pytest.raises(ValueError, match="modulation of layer 0 must be"):
        GraphNetwork([layers[0]._replace(modulation=layers[0].modulation[:5])])
    with pytest.raises(ValueError, match=r"weight of layer 0 must have no empty axis, got \[2, 2, 0\]"):
        GraphNetwork([layers[0]._replace(weight=torch.zeros(2, 2, 0))])
    with pytest.raises(ValueError, match="at least one"):
        GraphNetwork([])
    wide = GraphNetwork([GraphLayer(*(t.double() for t in layer[:4]), *layer[4:]) for layer in layers])
    with torch.no_grad(), pytest.raises(BackendError, match="float32"):
        graph_network(x.double(), wide, backend="cpu")
