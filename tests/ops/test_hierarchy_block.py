"""``hierarchy_block`` and ``hierarchy_network`` on every backend here, against the reference in float64, and against
HTNet's own modules."""

import copy
import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from posekernels import BackendError
from posekernels.models import create
from posekernels.ops import HierarchyNetwork, hierarchy_block, hierarchy_network
from posekernels.ops.hierarchy_block import ENDS, PARAMETERS, _shapes, cpu
from posekernels.testing import assert_within_budget, guarded, require
from tests.native import printed_by
from tests.ops.calls import working_calls

BACKENDS = ("reference", "cpu", "triton", "cuda")
LIMBS = {17: (1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16), 5: (2, 0, 4)}
# B, J, C, heads, graph hidden, MLP hidden: published; one pose; more than one tile; sizes that divide nothing
SIZES = [
    (2, 17, 80, 8, 384, 1024),
    (1, 17, 80, 8, 384, 1024),
    (15, 17, 16, 8, 24, 300),
    (3, 5, 6, 2, 35, 37),
    (0, 17, 8, 8, 16, 16),
]


def parameters(J, C, G, H, seed=0):
    g = torch.Generator().manual_seed(seed)
    found = []
    for name, shape in zip(PARAMETERS, _shapes(J, C, G, H)):
        value = torch.randn(shape, generator=g)
        if len(shape) == 1:
            value = 0.2 * value + ("norm" in name and "weight" in name)
        else:
            value = value / max(shape[-1], shape[-2]) ** 0.5
        found.append(value)
    return found


def ends(J, C, features, out, seed=0):
    """Of a network, by name."""
    g = torch.Generator().manual_seed(seed)
    wide = (3 * C,)
    shapes = ((3 * C, features), wide, (J, 3 * C), wide, wide, (out, 3 * C), (out,))
    made = {name: 0.3 * torch.randn(shape, generator=g) for name, shape in zip(ENDS, shapes)}
    made["norm_weight"] += 1
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B,J,C,heads,G,H", SIZES)
def test_forward(backend, B, J, C, heads, G, H):
    device = require("hierarchy_block", backend)
    x, weights = torch.randn(B, J, 3 * C, generator=torch.Generator().manual_seed(1)), parameters(J, C, G, H)
    options = {"limbs": LIMBS[J], "heads": heads}
    want = hierarchy_block(x.double(), [w.double() for w in weights], **options, backend="reference")
    mine = [guarded(w.to(device)) for w in weights]
    assert_within_budget(hierarchy_block(guarded(x.to(device)), mine, **options, backend=backend), want)
    assert_within_budget(hierarchy_block(guarded(x.to(device), strided=True), mine, **options, backend=backend), want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B,J,C,heads,G,H", SIZES)
def test_network(backend, B, J, C, heads, G, H):
    device = require("hierarchy_network", backend)
    x, options = (
        torch.randn(2, B, J, 2, generator=torch.Generator().manual_seed(1)),
        {"limbs": LIMBS[J], "heads": heads},
    )
    weights = [list(ends(J, C, 2, 3).values()), parameters(J, C, G, H), parameters(J, C, G, H, seed=2)]
    first, *blocks = [[guarded(w.to(device)) for w in part] for part in weights]
    net = HierarchyNetwork(first, blocks, **options)
    first, *blocks = [[w.double() for w in part] for part in weights]
    want = hierarchy_network(x.double(), HierarchyNetwork(first, blocks, **options), backend="reference")
    with torch.no_grad():
        for _ in range(2):  # what was prepared is used again
            got = hierarchy_network(guarded(x.to(device), strided=True), net, backend=backend)
            assert got.shape == (2, B, J, 3)
            assert_within_budget(got, want)


def test_gradients_are_the_reference_s():
    x, weights = torch.randn(2, 17, 24), parameters(17, 8, 16, 12)
    tensors = [t.requires_grad_() for t in (x, *weights)]
    options = {"limbs": LIMBS[17], "heads": 8}
    g = torch.randn(2, 17, 24)
    grads = torch.autograd.grad(hierarchy_block(x, weights, **options), tensors, g)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    want = hierarchy_block(exact[0], exact[1:], **options, backend="reference")
    for name, a, b in zip(("x", *PARAMETERS), grads, torch.autograd.grad(want, exact, g.double())):
        assert_within_budget(a, b, what=name, bound=1e-4)


def test_bfloat16_and_threads():
    require("hierarchy_block", "cpu")
    x, weights = torch.randn(3, 17, 240), parameters(17, 80, 384, 1024)
    options = {"limbs": LIMBS[17], "heads": 8, "backend": "cpu"}
    half = hierarchy_block(x.bfloat16(), [w.bfloat16() for w in weights], **options)
    exact = [w.bfloat16().double() for w in weights]
    want = hierarchy_block(x.bfloat16().double(), exact, **options | {"backend": "reference"})
    assert half.dtype == torch.bfloat16
    assert_within_budget(half, want)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((hierarchy_block(x, weights, **options), hierarchy_block(x[:1], weights, **options)))
    finally:
        torch.set_num_threads(before)
    for whole, single in results:  # the same bits whatever the threads and the batch
        assert torch.equal(whole, results[0][0]) and torch.equal(single, whole[:1])


def test_a_network_has_the_same_bits_whatever_the_threads_and_the_batch():
    require("hierarchy_network", "cpu")
    net, x = create("htnet").eval(), torch.rand(40, 1, 17, 2)
    before = torch.get_num_threads()
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        net, x = net.to(dtype), x.to(dtype)
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with torch.no_grad():
                    found += [net(x), torch.cat((net(x[:1]), net(x[1:2]), net(x[2:])))]
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(y, found[0]) for y in found)


def test_a_changed_weight_is_seen():
    net = create("htnet", depth=1, channels=24, hidden=16).eval()
    x = torch.rand(2, 1, 17, 2)
    for _ in range(2):
        with torch.no_grad():
            fused = net(x)
        torch.testing.assert_close(fused, net(x).detach(), rtol=1e-5, atol=1e-5)  # gradients on: module by module
        with torch.no_grad():
            net.blocks[0].mlp.fc2.weight.mul_(3)
            net.blocks[0].joint.conv1.adjacency_offset.add_(0.1)
    copied = torch.nn.Module.float(net)
    net.load_state_dict(create("htnet", depth=1, channels=24, hidden=16).state_dict())
    with torch.no_grad():
        fused = copied(x)
    torch.testing.assert_close(fused, net(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_lesser_instruction_sets(isa):
    require("hierarchy_block", "cpu")
    code = "from tests.ops import test_hierarchy_block as t\nfor size in t.SIZES:\n    t.test_forward('cpu', *size)\n"
    printed_by(code, isa)


def test_widths_that_only_some_backends_take():
    require("hierarchy_block", "triton")
    x, weights, options = torch.randn(1, 5, 3 * 130), parameters(5, 130, 8, 8), {"limbs": LIMBS[5], "heads": 1}
    want = hierarchy_block(x.double(), [w.double() for w in weights], **options, backend="reference")
    assert_within_budget(hierarchy_block(x, weights, **options), want)
    with pytest.raises(BackendError, match="levels of at most 128 channels, got 130"):
        hierarchy_block(x, weights, **options, backend="triton")


def test_constants_kept_on_a_gpu_follow_the_weights():
    device = require("hierarchy_block", "triton")
    x, weights = torch.randn(2, 17, 24), parameters(17, 8, 16, 12)
    options = {"limbs": LIMBS[17], "heads": 8}
    mine = [w.to(device) for w in weights]
    with torch.no_grad():
        for name in ("joint_conv2_offset", "part_two_conv_weight", "part_three_conv_weight", "joint_conv1_offset"):
            mine[PARAMETERS.index(name)].mul_(3)
            want = hierarchy_block(x.double(), [w.cpu().double() for w in mine], **options, backend="reference")
            assert_within_budget(hierarchy_block(x.to(device), mine, **options, backend="triton"), want, what=name)


def test_triton_launches_five_kernels_and_nothing_else(monkeypatch):
    device = require("hierarchy_block", "triton")
    from posekernels.ops.hierarchy_block import triton

    x, weights = torch.randn(2, 17, 24).to(device), [w.to(device) for w in parameters(17, 8, 16, 12)]
    kept = triton._keep(weights, LIMBS[17], 17)
    monkeypatch.setattr(triton, "derived", lambda *_: kept)  # under a dispatch mode it keeps nothing
    run = functools.partial(triton.hierarchy_block, x, weights, LIMBS[17], 8)
    product = "graph_conv_fwd"
    assert working_calls(run, triton._graph_kernel, monkeypatch) == ["graph", "limbs", "body", product, product]


@pytest.fixture
def prepared(monkeypatch):
    """Grows by one whenever weights are made ready for the C++ kernel."""
    require("hierarchy_network", "cpu")
    made = []

    class Counted(cpu.Prepared):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(cpu, "Prepared", Counted)
    return made


def test_a_network_sees_weights_that_change(prepared):
    first, block = list(ends(17, 8, 2, 3).values()), parameters(17, 8, 16, 12)
    net, x = HierarchyNetwork(first, [block], limbs=LIMBS[17], heads=8), torch.randn(2, 17, 2)
    with torch.no_grad():
        for i, changed in enumerate((first[2], block[8], block[-2]), 1):
            changed.mul_(2)
            for _ in range(2):
                got = hierarchy_network(x, net, backend="cpu")
            torch.testing.assert_close(got, hierarchy_network(x, net, backend="reference"), rtol=1e-5, atol=1e-5)
            assert len(prepared) == i


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_casts_and_prepares_once(dtype, prepared):
    net, x = create("htnet", depth=1, channels=24, hidden=16).eval(), torch.rand(2, 1, 17, 2).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for calls in (1, 2):
            found = [net(x.to(dtype)) for _ in range(3)]
            assert len(prepared) == calls
            with torch.autocast("cpu", enabled=False):
                assert all(torch.equal(y, copy.deepcopy(net).bfloat16()(x)) for y in found)
            del prepared[calls:]
            net.blocks[0].mlp.fc2.weight.mul_(2)


def test_gradients_under_autocast_reach_the_network_s_own_weights():
    weights = [w.requires_grad_() for w in (*ends(17, 8, 2, 3).values(), *parameters(17, 8, 16, 12))]
    net = HierarchyNetwork(weights[: len(ENDS)], [weights[len(ENDS) :]], limbs=LIMBS[17], heads=8)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            y = hierarchy_network(torch.randn(2, 17, 2).bfloat16(), net)
        assert y.dtype == torch.bfloat16
        assert all(g.dtype == torch.float32 for g in torch.autograd.grad(y.float().sum(), weights))


def test_htnet_compiles_as_one_graph_that_prepares_its_weights_once(prepared):
    net, x = create("htnet", depth=1, channels=24, hidden=16).eval(), torch.rand(3, 1, 17, 2)
    compiled = torch.compile(net, fullgraph=True)
    with torch.no_grad():
        for _ in range(4):
            y = compiled(x)
        assert len(prepared) == 1
        torch.testing.assert_close(y, net(x))


@pytest.mark.filterwarnings("ignore")  # of checks that a trace does not record, and that tracing is deprecated
def test_htnet_traced_and_watched_calls_the_raw_op():
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function.name())
            return function(*args, **kwargs or {})

    net, x, names = create("htnet", depth=1, channels=24, hidden=16).eval(), torch.rand(3, 1, 17, 2), []
    with torch.no_grad():
        traced, more = torch.jit.trace(net, x), torch.rand(5, 1, 17, 2)
        assert "posekernels::_hierarchy_network" in str(traced.graph)
        assert torch.equal(traced(more), net(more))
        with Seen():
            assert torch.equal(net(x), traced(x))
    assert "posekernels::_hierarchy_network" in names


def test_weights_on_another_device_are_refused():
    x, weights, options = torch.zeros(2, 17, 24), parameters(17, 8, 16, 12), {"limbs": LIMBS[17], "heads": 8}
    for i in (0, PARAMETERS.index("part_two_fc1_weight"), len(PARAMETERS) - 1):
        moved = [*weights[:i], weights[i].to("meta"), *weights[i + 1 :]]
        with pytest.raises(ValueError, match=f"{PARAMETERS[i]} must be on the first argument's device cpu, got meta"):
            hierarchy_block(x, moved, **options)
        with pytest.raises(ValueError, match=f"{PARAMETERS[i]} must be on the first argument's device cpu, got meta"):
            HierarchyNetwork(list(ends(17, 8, 2, 3).values()), [weights, moved], **options)


def test_nan_stays_in_its_pose():
    x, weights = torch.randn(4, 17, 24), parameters(17, 8, 16, 12)
    x[2, 5, 3] = torch.nan
    y = hierarchy_block(x, weights, limbs=LIMBS[17], heads=8)
    assert y[2].isnan().all() and not y[[0, 1, 3]].isnan().any()


@pytest.mark.parametrize(
    "change,words",
    [
        ({"x": torch.zeros(2, 17, 25)}, "x must be"),
        ({"heads": 3}, "heads must divide"),
        ({"limbs": (1, 2)}, "limbs must be"),
        ({"limbs": (1, 2, 17)}, "limbs must be"),
        ({"parameters": parameters(17, 8, 16, 12)[:-1]}, "45 tensors"),
        ({"parameters": [*parameters(17, 8, 16, 12)[:-1], torch.zeros(25)]}, "fc2_bias must be"),
    ],
)
def test_refusals(change, words):
    arguments = {"x": torch.zeros(2, 17, 24), "parameters": parameters(17, 8, 16, 12), "limbs": LIMBS[17], "heads": 8}
    with pytest.raises(ValueError, match=words):
        hierarchy_block(**arguments | change)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"blocks": []}, "blocks must be at least one, got none"),
        ({"ends": {"embed_weight": torch.zeros(24, 2)}}, "ends must be 7 tensors, got 1"),
        ({"ends": ends(17, 8, 2, 3) | {"position": torch.zeros(2, 17, 24)}}, "position must be .*got \\[2, 17, 24\\]"),
        ({"ends": ends(17, 8, 2, 3) | {"norm_bias": torch.zeros(1, 24)}}, "norm_bias must be"),
        ({"blocks": [parameters(17, 8, 16, 12), parameters(17, 8, 16, 13)]}, "block 1 must have the first one's"),
        ({"blocks": [parameters(17, 9, 16, 12)]}, "block 0: joint_norm_in_weight must be"),
        ({"ends": ends(17, 8, 2, 3) | {"head_bias": torch.zeros(2)}}, "head_bias must be"),
        ({"limbs": (1, 2, 17)}, "limbs must be"),
        ({"x": torch.zeros(4, 17, 3)}, "x must be"),
    ],
)
def test_refusals_of_a_network(change, words):
    made = {"x": torch.zeros(2, 17, 2), "ends": ends(17, 8, 2, 3), "blocks": [parameters(17, 8, 16, 12)]}
    made |= {"limbs": LIMBS[17]} | change
    with pytest.raises(ValueError, match=words):
        net = HierarchyNetwork(list(made["ends"].values()), made["blocks"], limbs=made["limbs"], heads=8)
        hierarchy_network(made["x"], net)


def test_a_network_must_be_one():
    with pytest.raises(TypeError, match="network must be a HierarchyNetwork, got str"):
        hierarchy_network(torch.zeros(2, 17, 2), "net")
