"""What is derived from parameters follows them, and never travels with them."""

import copy

import pytest
import torch

from posekernels import derived, models, prepared, repack
from posekernels.prepared import State


def test_made_anew_after_every_write():
    a, b, made = torch.nn.Parameter(torch.ones(3)), torch.zeros(3), []

    def make():
        made.append(1)
        return a.detach() + b

    assert derived("sum", make, a, b) is derived("sum", make, a, b) and len(made) == 1
    b.add_(1)
    assert derived("sum", make, a, b)[0] == 2 and len(made) == 2
    with torch.no_grad():
        a.copy_(torch.full((3,), 5.0))
    assert derived("sum", make, a, b)[0] == 6 and len(made) == 3
    a.data = torch.zeros(3)
    assert derived("sum", make, a, b)[0] == 1 and len(made) == 4
    b.data.zero_()
    assert derived("sum", make, a, b)[0] == 0 and len(made) == 5
    module = torch.nn.Module()
    module.a = a
    repack(module)
    assert derived("sum", make, a, b)[0] == 0 and len(made) == 6


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("size", [1, 31, 70_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_is_compared_in_time(size, dtype, fallback, monkeypatch):
    if fallback:  # where PyTorch tells layouts one by one
        monkeypatch.setattr(prepared, "_layouts", lambda ts: [(t.data_ptr(), t.shape, t.stride(), t.dtype) for t in ts])
        monkeypatch.setattr(prepared, "_same_layouts", lambda ts, known: prepared._layouts(ts) == known)
    whole = torch.arange(3 * size).to(dtype)
    for tensor in (whole, whole[1:], whole.view(-1, 3).T, whole.view(-1, 3)[:, 1]):
        state = State([tensor])
        assert state.same([tensor]) and state.same([tensor], all_numbers=True)
        for at in {0, tensor.shape[-1] // 2, tensor.shape[-1] - 1}:
            place = (..., at) if tensor.dim() == 1 else (-1, at)
            before = tensor[place].clone()
            tensor.data[place] = torch.where(before == 5, 7, 5)
            assert not state.same([tensor], all_numbers=True)
            assert not all([state.same([tensor]) for _ in range(4096)])
            tensor.data[place] = before
            assert state.same([tensor], all_numbers=True)
        tensor.data.neg_()
        assert not state.same([tensor])
        tensor.data.neg_()
    assert not State([whole]).same([whole[:-1]])


def test_not_saved_and_not_copied(tmp_path):
    a = torch.nn.Parameter(torch.ones(3))
    derived("twice", lambda: a.detach() * 2, a)
    torch.save(a, tmp_path / "a.pt")
    for other in (torch.load(tmp_path / "a.pt", weights_only=True), copy.deepcopy(a)):
        with torch.no_grad():
            other.mul_(3)
        assert derived("twice", lambda other=other: other.detach() * 2, other)[0] == 6


def test_nothing_is_kept_where_writes_are_not_seen():
    with torch.inference_mode():
        a = torch.ones(3)
        assert derived("twice", lambda: a * 2, a)[0] == 2
        a.mul_(4)
        assert derived("twice", lambda: a * 2, a)[0] == 8
    doubled = torch.func.vmap(lambda t: derived("twice", lambda: t * 2, t))(torch.ones(2, 3))
    assert torch.equal(doubled, torch.full((2, 3), 2.0))


def test_adjacency_of_a_network_in_training():
    torch.manual_seed(0)
    net = models.create("htnet", depth=1, channels=24, hidden=16).eval()
    x = torch.randn(2, 1, 17, 2)
    with torch.no_grad():
        before = net(x)
        assert torch.equal(net(x), before)
    net(x).square().sum().backward()
    assert net.blocks[0].joint.conv1.adjacency_offset.grad.abs().sum() > 0
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    with torch.no_grad():
        after = net(x)
    torch.testing.assert_close(net(x).detach(), after)
    assert not torch.allclose(after, before)


def test_repack_reaches_what_is_made_of_all_parameters():
    net, x = models.create("rie", filter_widths=(3,), latent=4, channels=6).eval(), torch.randn(1, 3, 17, 2)
    with torch.no_grad():
        net(x)
        made = net._evaluated.value(net)
        assert net._evaluated.value(net) is made
        repack(net)
        assert net._evaluated.value(net) is not made
