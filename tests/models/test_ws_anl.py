"""MGCN_lw, the variance models, and sampling around a lifter."""

import pytest
import torch

from posekernels import models
from posekernels.models import create, load
from posekernels.models.load import published_state
from posekernels.models.ws_anl import WsAnl, with_mirror
from posekernels.pose.skeleton import H36M_16, H36M_17


def system(**options):
    torch.manual_seed(0)
    return WsAnl(create("mgcn_lw", hidden=16, depth=1), create("variance_linear", **options)).eval()


def keypoints(B=5):
    return torch.rand(B, 17, 2, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.mark.parametrize(
    "name,learnable,tensors",
    [("mgcn_lw", 157_696, 85), ("variance_gcn", 1_099_100, 85), ("variance_linear", 12_049, 23)],
)
def test_published_sizes_and_round_trip(name, learnable, tensors):
    net = create(name)
    assert sum(p.numel() for p in net.parameters()) == learnable
    state = published_state(net)
    assert len(state) == tensors
    other = load({f"module.{k}": v for k, v in state.items()}, create(name))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))


def test_original_modulated_gcn_has_sixteen_joints():
    net = create("variance_gcn", hidden=128, outputs=3, skeleton=H36M_16).eval()
    assert H36M_16.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)
    load({"epoch": 3, "state_dict": published_state(net)}, net)
    assert net(torch.zeros(1, 1, 16, 2)).shape == (1, 1, 16, 3)
    with pytest.raises(ValueError, match=r"\[B, T, 16, 2\]"):
        net(torch.zeros(1, 1, 17, 2))


def test_folded_batch_norm_is_batch_norm():
    torch.manual_seed(0)
    net = create("mgcn_lw", hidden=8, depth=1)
    x = torch.randn(4, 1, 17, 2)
    for _ in range(200):  # until running statistics are those of the batch, but for Bessel's correction
        y = net(x)
    torch.testing.assert_close(net.eval()(x), y, rtol=0.03, atol=0.03)


def test_hypotheses_do_not_depend_on_batch_or_chunk():
    net, x = system(), keypoints()
    with torch.no_grad():
        whole = net(x, 7, seed=3, alpha=0.1)
        for chunk in (2, 6, 14, 30):
            torch.testing.assert_close(net(x, 7, seed=3, alpha=0.1, chunk=chunk), whole)
        torch.testing.assert_close(net(x[2:4], 7, seed=3, alpha=0.1, first_pose=2), whole[2:4])
        torch.testing.assert_close(net(x, 4, seed=3, alpha=0.1), whole[:, :4])
        assert (net(x, 7, seed=4, alpha=0.1) - whole).abs().max() > 1e-3


def test_hypotheses_differ_and_alpha_zero_is_the_single_pose():
    net, x = system(), keypoints()
    with torch.no_grad():
        poses = net(x, 20, alpha=0.01)
        assert poses.shape == (5, 20, 17, 3) and (poses[:, :, 0] == 0).all()
        distances = torch.cdist(poses.flatten(2), poses.flatten(2)) + torch.eye(20)
        assert distances.min() > 1e-5
        torch.testing.assert_close(net(x, 3, alpha=0.0), net.single(x)[:, None].expand(5, 3, 17, 3))


def test_sigma_of_the_mirrored_pose_is_its_own():
    net, x = system(), keypoints()
    views = with_mirror(x)
    assert torch.equal(H36M_17.mirror(views[:, 1]), x)
    with torch.no_grad():
        sigma = net.sigma(views)
        torch.testing.assert_close(sigma[:, 1], net.variance(H36M_17.mirror(x)[:, None]).view(5, 17))
        torch.testing.assert_close(net(x, 3), net(views, 3, sigma=sigma))


def test_starts_in_eval_mode():
    net = WsAnl(create("mgcn_lw", hidden=16, depth=1), create("variance_linear"))
    keypoints = torch.rand(3, 17, 2)
    assert torch.equal(net(keypoints, 2), net(keypoints, 2))  # no dropout, no statistics of the batch
    assert net.train().variance.training and not net.lifter.training


def test_the_lifter_is_frozen():
    net = system().train()
    assert net.variance.training and not net.lifter.training
    assert not any(p.requires_grad for p in net.lifter.parameters())


def test_compiles_as_one_graph():
    net, x = system(), keypoints(2)
    with torch.no_grad():
        compiled = torch.compile(lambda k: net(k, 3, chunk=6), fullgraph=True)(x)
        torch.testing.assert_close(compiled, net(x, 3, chunk=6))


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda net: net(keypoints(), 0), "samples must be at least 1"),
        (lambda net: net(keypoints(), 5, alpha=-0.005), "alpha must be a finite number of at least 0, got -0.005"),
        (lambda net: net(keypoints() * 1000 + 500, 5), "look like pixels"),
        (lambda net: net(keypoints(), 5, sigma=torch.full((5, 2, 17), torch.nan)), "sigma holds NaN"),
        (lambda net: net(keypoints(), 5, sigma=torch.ones(5, 17)), r"sigma must be \[5, 2, 17\]"),
        (lambda net: net(keypoints()[:, :16], 5), "keypoints must be"),
        (lambda net: net(keypoints(), 5, chunk=1), "chunk must be at least 2"),
        (lambda net: WsAnl(net.variance, net.lifter), "swapped"),
        (
            lambda net: load(published_state(create("variance_gcn")), create("mgcn_lw")),
            r"does not fit MgcnLw.*looks like a file for create\('variance_gcn'",
        ),
        (lambda net: load(published_state(create("htnet")), create("variance_linear")), r"create\('htnet'"),
        (lambda net: load(published_state(create("variance_gcn")), create("htnet")), r"create\('variance_gcn'"),
        (lambda net: create("htnet", depth=0), "depth and hidden must be at least 1, got 0"),
        (lambda net: create("mgcn_lw", hidden=0), "hidden and outputs must be at least 1"),
        (lambda net: models.create("mgcn_lv"), "did you mean 'mgcn_lw'"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        call(system())
