"""No network computes with weights that it no longer has, whoever wrote them and however; what is promised stands in
``posekernels.prepared``. Each way stands for something people do to any ``nn.Module``."""

import copy

import pytest
import torch

import posekernels
from posekernels import models, prepared
from posekernels.ops import graph_conv
from posekernels.testing import relative_error

NETWORKS = {  # name -> (arguments, shapes of the inputs)
    "gcndiff": ({"channels": 16, "layers": 2}, (2, 17, 5)),
    "gcnpose": ({"channels": 16, "layers": 2}, (2, 17, 2)),
    "htnet": ({"depth": 1, "channels": 24, "hidden": 16}, (2, 1, 17, 2)),
    "mgcn_lw": ({"hidden": 32, "depth": 2}, (4, 1, 17, 2)),
    "mixste": ({"frames": 9, "channels": 16, "depth": 1, "heads": 2}, (1, 9, 17, 2)),
    "pkd": ({"joints": 5, "history": 12, "future": 4, "blocks": 2, "distill_blocks": 1}, (2, 12, 5, 3)),
    "rie": ({"filter_widths": (3, 3), "latent": 8, "channels": 8, "stage": 2}, (3, 9, 17, 2)),
    "simlpe": ({"joints": 5, "history": 12, "future": 4, "blocks": 2}, (2, 12, 5, 3)),
    "strided_transformer": ({"frames": 27, "channels": 16, "hidden": 24, "heads": 2, "layers": 1}, (2, 27, 17, 2)),
    "variance_gcn": ({"hidden": 16, "depth": 1}, (4, 1, 17, 2)),
    "variance_linear": ({"hidden": 16}, (6, 1, 17, 2)),
}


def make(name):
    torch.manual_seed(0)
    config, shape = NETWORKS[name]
    net = models.create(name, **config).eval()
    with torch.no_grad():  # published starts are often nearly zero: give every weight a say
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    inputs = (torch.randn(shape),)
    return net, (*inputs, torch.tensor([3] * shape[0])) if name == "gcndiff" else inputs


def answer(net, inputs):
    with torch.no_grad():
        return net(*inputs)


def right(net, inputs):
    """What a network with these weights answers that has never been asked before."""
    return answer(copy.deepcopy(net), inputs)


def alike(got, want):
    return relative_error(got, want) < 1e-5


def learnt(net):
    return [p for p in net.parameters() if p.requires_grad]


def noise(p):
    return 0.02 * torch.randn_like(p)  # more, and a learnt graph may have a negative degree: NaN, as published


def data_added(net):
    for p in net.parameters():
        p.data += noise(p)


def data_replaced(net):
    for p in net.parameters():
        p.data = p.data + noise(p)


def through_arrays(net):
    for p in net.parameters():
        p.detach().numpy()[...] += noise(p).numpy()


def detached(net):
    for p in net.parameters():
        p.detach().add_(noise(p))


def averaged_weights_swapped_in(net):
    kept = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.data.copy_(p.data + noise(p))
    yield
    for p, old in zip(net.parameters(), kept):
        p.data.copy_(old)


def vectors(net):
    for _ in range(4):
        flat = torch.nn.utils.parameters_to_vector(net.parameters())
        torch.nn.utils.vector_to_parameters(flat + 0.02 * torch.randn_like(flat), net.parameters())
        yield


def half_and_float(net):
    for _ in range(4):
        net.half()
        net.float()
        data_added(net)
        yield


def loaded(net):
    net.load_state_dict({n: t + noise(t) if t.is_floating_point() else t for n, t in net.state_dict().items()})


def swapped(net):
    for p in net.parameters():
        torch.utils.swap_tensors(p, torch.nn.Parameter(p.detach() + noise(p), p.requires_grad))


def parametrized(net):
    class Scaled(torch.nn.Module):
        def forward(self, x):
            return 1.3 * x

    for module in [m for m in net.modules() if isinstance(getattr(m, "weight", None), torch.nn.Parameter)]:
        torch.nn.utils.parametrize.register_parametrization(module, "weight", Scaled())
    yield
    for p in net.parameters():
        p.data += noise(p)


def statistics(net):
    moved = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in moved:
        norm.running_var.data.mul_(3)
    return bool(moved)


WRITES = {w.__name__: w for w in (data_added, data_replaced, through_arrays, detached, averaged_weights_swapped_in,
    vectors, half_and_float, loaded, swapped, parametrized, statistics)}  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_inference_follows_every_write(name, write):
    net, inputs = make(name)
    before = answer(net, inputs)
    assert torch.equal(answer(net, inputs), before)
    written = WRITES[write](net)
    if written is False:
        pytest.skip("a network without batch norms")
    for _ in [None] if written is None or written is True else written:
        assert alike(answer(net, inputs), right(net, inputs))
        assert not alike(answer(net, inputs), before)
    assert alike(answer(net, inputs), right(net, inputs))


class DataSGD(torch.optim.Optimizer):
    """Writes through ``.data``, as many an optimizer outside PyTorch does: no version is raised."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.data.add_(p.grad.data.sign(), alpha=-0.01)


OPTIMIZERS = {
    "plain": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=1e-3, fused=True),
    "fused Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, fused=True),
    "data": DataSGD,
}


@pytest.mark.parametrize("mode", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_are_followed(name, mode):
    net, inputs = make(name)
    before = answer(net, inputs)
    optimizer = OPTIMIZERS[mode](learnt(net))

    def gradients(net):
        net.zero_grad()
        torch.manual_seed(1)  # of the dropout
        net.train()(*inputs).square().sum().backward()
        net.eval()
        return [p.grad.clone() for p in learnt(net) if p.grad is not None]

    for _ in range(2):
        other = copy.deepcopy(net)
        for got, want in zip(gradients(net), gradients(other), strict=True):
            assert alike(got, want)
        optimizer.step()
        assert alike(answer(net, inputs), right(net, inputs))
        assert not alike(answer(net, inputs), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturable optimizers need a GPU")
def test_capturable_optimizers_are_followed():
    net, inputs = make("mgcn_lw")
    net, inputs = net.cuda(), [x.cuda() for x in inputs]
    answer(net, inputs)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, fused=True, capturable=True)
    net.train()(*inputs).square().sum().backward()
    optimizer.step()
    net.eval()
    assert alike(answer(net, inputs), right(net, inputs))


def test_an_op_follows_fused_steps_and_data_in_training():
    x, adjacency = torch.randn(4, 17, 6), torch.rand(2, 17, 17)
    for mode in OPTIMIZERS:
        weight = torch.nn.Parameter(torch.randn(2, 6, 8))
        optimizer = OPTIMIZERS[mode]([weight])
        for _ in range(3):
            y = graph_conv(x, weight, adjacency)
            assert alike(y, graph_conv(x, weight.detach().clone(), adjacency))
            (got,) = torch.autograd.grad(y.square().sum(), weight)
            other = weight.detach().clone().requires_grad_()
            (want,) = torch.autograd.grad(graph_conv(x, other, adjacency).square().sum(), other)
            assert alike(got, want)
            weight.grad = got
            optimizer.step()


def test_a_transposed_weight_is_another():
    x, weight = torch.randn(3, 17, 8), torch.nn.Parameter(torch.randn(1, 8, 8))
    adjacency = torch.rand(1, 17, 17)
    with torch.no_grad():
        before = graph_conv(x, weight, adjacency)
        weight.data = weight.data.transpose(1, 2)  # the same memory, the same version
        after = graph_conv(x, weight, adjacency)
    assert alike(after, graph_conv(x, weight.detach().clone(), adjacency)) and not alike(after, before)


def test_one_number_written_unseen_is_seen_in_time_and_at_once_after_repack():
    net, inputs = make("htnet")
    weight = net.blocks[0].mlp.fc1.weight
    for seen in (lambda: [answer(net, inputs) for _ in range(4096)], lambda: posekernels.repack(net)):
        answer(net, inputs)
        weight.data[3, 5] += 30
        seen()
        assert alike(answer(net, inputs), right(net, inputs))


def test_one_number_written_unseen_is_seen_in_the_first_call_of_the_next_second(monkeypatch):
    net, inputs = make("htnet")
    now = [0.0]
    monkeypatch.setattr(prepared.time, "monotonic", lambda: now[0])
    answer(net, inputs)
    for delta in (30, -30):
        net.blocks[0].mlp.fc1.weight.data[3, 5] += delta
        now[0] += 1.0
        assert alike(answer(net, inputs), right(net, inputs))


def test_all_numbers_are_compared_once_gradients_were_recorded():
    net, inputs = make("htnet")
    answer(net, inputs)
    net(*inputs).sum().backward()
    net.blocks[0].mlp.fc1.weight.data[3, 5] += 30  # what a sparse step may do
    assert alike(answer(net, inputs), right(net, inputs))


def test_frozen_weights_are_not_looked_at_until_gradients_are_recorded():
    net, inputs = make("mgcn_lw")
    assert posekernels.freeze(net) is net
    answer(net, inputs)
    data_added(net)
    assert not alike(answer(net, inputs), right(net, inputs))  # the promise was broken
    posekernels.repack(net)
    assert alike(answer(net, inputs), right(net, inputs))
    net(*inputs)
    data_added(net)
    assert alike(answer(net, inputs), right(net, inputs))
    posekernels.freeze(net, False)
    data_added(net)
    assert alike(answer(net, inputs), right(net, inputs))
