"""Every network trains under bfloat16 autocast: ops bring float32 weights to the dtype of what reaches them."""

import pytest
import torch

from posekernels import models
from posekernels.ops.graph_conv import graph_conv

INPUTS = {
    "gcndiff": lambda net: (torch.randn(2, 17, 5), torch.tensor([3, 7])),
    "gcnpose": lambda net: (torch.randn(2, 17, 2),),
    "htnet": lambda net: (torch.randn(2, 1, 17, 2),),
    "mgcn_lw": lambda net: (torch.randn(2, 1, 17, 2),),
    "mixste": lambda net: (torch.randn(1, 27, 17, 2),),
    "pkd": lambda net: (torch.randn(2, 50, 22, 3),),
    "rie": lambda net: (torch.randn(2, 243, 17, 2),),
    "simlpe": lambda net: (torch.randn(2, 50, 22, 3),),
    "strided_transformer": lambda net: (torch.randn(2, 27, 17, 2),),
    "variance_gcn": lambda net: (torch.randn(2, 1, 17, 2),),
    "variance_linear": lambda net: (torch.randn(2, 1, 17, 2),),
}
SMALL = {"mixste": {"frames": 27}, "strided_transformer": {"frames": 27}}


@pytest.mark.parametrize("name", INPUTS)
def test_networks_train_under_autocast(name):
    torch.manual_seed(0)
    net = models.create(name, **SMALL.get(name, {}))
    inputs = INPUTS[name](net)
    with torch.autocast("cpu", torch.bfloat16):
        result = net(*inputs)
    results = result if isinstance(result, tuple) else (result,)
    sum(r.float().square().mean() for r in results).backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert grads and all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", INPUTS)
def test_networks_infer_under_autocast(name):
    torch.manual_seed(0)
    net = models.create(name, **SMALL.get(name, {})).eval()
    inputs = INPUTS[name](net)
    with torch.no_grad():
        want = net(*inputs)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", torch.bfloat16):
                got = net(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
            for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want))):
                assert a.dtype in (dtype, torch.bfloat16)
                assert (a.float() - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("name", ["htnet", "mixste", "rie", "strided_transformer"])
def test_networks_whose_first_product_is_in_an_op_answer_in_autocast_s_dtype(name):
    net = models.create(name, **SMALL.get(name, {})).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert net(*INPUTS[name](net)).dtype == torch.bfloat16


def test_rie_s_training_is_in_autocast_s_dtype_but_for_its_statistics():
    """Its products are rounded, each result a little; the norms' statistics are those of float32 results."""
    torch.manual_seed(0)
    net = models.create("rie", filter_widths=(3, 3), latent=8, channels=12, dropout=0.0, fc_dropout=0.0)
    x, found = torch.randn(32, 9, 17, 2), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(net(x))
    assert found[1].dtype == torch.bfloat16
    assert 0 < (found[1].float() - found[0]).norm() < 0.05 * found[0].norm()
    assert all(b.dtype == torch.float32 for n, b in net.named_buffers() if "running" in n)


def test_ops_follow_their_first_argument_only_under_autocast():
    x, weight, adjacency = torch.randn(2, 17, 4).bfloat16(), torch.randn(1, 4, 5), torch.randn(1, 17, 17)
    with pytest.raises(TypeError, match="bfloat16"):
        graph_conv(x, weight, adjacency)
    with torch.autocast("cpu", torch.bfloat16):
        got = graph_conv(x, weight, adjacency)
    assert torch.equal(got, graph_conv(x, weight.bfloat16(), adjacency.bfloat16()))
