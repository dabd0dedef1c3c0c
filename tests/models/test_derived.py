"""What networks keep of their weights survives export and follows changes."""

import gc
import weakref

import pytest
import torch

import posekernels
from posekernels import models

NETWORKS = {
    "htnet": ({"depth": 1, "channels": 24, "hidden": 16}, (2, 1, 17, 2)),
    "mgcn_lw": ({}, (2, 1, 17, 2)),
    "rie": ({"filter_widths": (3,), "latent": 4, "channels": 4, "stage": 2}, (2, 3, 17, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("first", [False, True])
def test_a_network_works_on_after_it_was_exported(name, first):
    config, shape = NETWORKS[name]
    net, x = models.create(name, **config).eval(), torch.randn(shape)
    with torch.no_grad():
        want = net(x) if first else None
        with posekernels.use_backend("reference"):
            torch.export.export(net, (x,), strict=False)
        got = net(x)
    assert type(got) is torch.Tensor
    assert want is None or torch.equal(got, want)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_follows_its_weights(name):
    config, shape = NETWORKS[name]
    net, other, x = models.create(name, **config).eval(), models.create(name, **config).eval(), torch.randn(shape)
    with torch.no_grad():
        net(x)
        net.load_state_dict(other.state_dict())
        torch.testing.assert_close(net(x), other(x))


@pytest.mark.parametrize("name", ["mgcn_lw", "variance_linear", "rie", "strided_transformer"])
def test_a_network_follows_statistics_that_a_pass_in_training_moved(name):
    others = {"variance_linear": ({}, (2, 1, 17, 2))}
    others["strided_transformer"] = {"frames": 27, "channels": 16, "hidden": 16}, (2, 27, 17, 2)
    config, shape = (NETWORKS | others)[name]
    net, other, x = models.create(name, **config).eval(), models.create(name, **config).eval(), torch.randn(shape)
    with torch.no_grad():
        net(x)
        net.train()(x)
        net.eval()
        other.load_state_dict(net.state_dict())
        got, want = net(x), other(x)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", [*NETWORKS, "strided_transformer"])
def test_a_network_leaves_memory_with_its_last_name(name):
    """And not when Python looks for cycles: tens of runs in one process would grow by all their networks."""
    config, shape = {**NETWORKS, "strided_transformer": ({"frames": 27}, (1, 27, 17, 2))}[name]
    net = models.create(name, **config).eval()
    gc.disable()
    try:
        with torch.no_grad():
            net(torch.randn(shape))
        left = weakref.ref(net)
        parts = [weakref.ref(part) for part in net.modules()]
        del net
        assert left() is None and not [part() for part in parts if part() is not None]
    finally:
        gc.enable()
