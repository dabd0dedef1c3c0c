"""Modules are more than their weights: what people hang on submodules runs, and where one call of an op would pass it
by, the modules are called one by one. ``posekernels.explain(net)`` tells which and why."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import posekernels
from tests.models.test_changing_weights import NETWORKS, alike, answer, learnt, make

LAYERS = (nn.Linear, nn.Conv1d)
UNREAD = {"strided_transformer": ("unread_norms", "full_head")}  # called by nobody, or for ``full`` alone


def layers(net, kinds=LAYERS):
    return {name: m for name, m in net.named_modules() if isinstance(m, kinds)}


def forced(net, monkeypatch):
    """``net`` module by module, as it is where it is peculiar."""
    monkeypatch.setattr(posekernels.prepared, "peculiar", lambda module, training: "the test says so")
    return copy.deepcopy(net)


@pytest.mark.parametrize("name", NETWORKS)
def test_hooks_on_every_layer_run_and_change_nothing(name):
    net, inputs = make(name)
    want, seen = answer(net, inputs), set()
    for layer, module in layers(net, (*LAYERS, nn.BatchNorm1d, nn.LayerNorm)).items():
        module.register_forward_hook(lambda *_, layer=layer: seen.add(layer))
    assert alike(answer(net, inputs), want)
    wanted = {
        n for n in layers(net, (*LAYERS, nn.BatchNorm1d, nn.LayerNorm)) if not n.startswith(UNREAD.get(name, ("-",)))
    }
    assert seen == wanted
    seen.clear()
    net.train()(*inputs)
    assert seen == wanted


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norms_of_all_processes_are_called_in_training(name, monkeypatch):
    """Their statistics are not those of this process's batch; in evaluation they are as all others."""
    net, inputs = make(name)
    want, called = answer(net, inputs), []
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert alike(answer(net, inputs), want)
    forward = nn.SyncBatchNorm.forward
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: called.append(self) or forward(self, x))
    net.train()(*inputs)
    norms = layers(net, nn.SyncBatchNorm)
    assert set(called) == {m for n, m in norms.items() if not n.startswith(UNREAD.get(name, ("-",)))}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_hook_on_the_way_in_changes_what_it_changes(name):
    net, inputs = make(name)
    before = answer(net, inputs)
    layer = (
        next(m for n, m in layers(net).items() if not n.startswith(UNREAD.get(name, ("-",)))) if layers(net) else net
    )
    handle = layer.register_forward_hook(lambda module, args, y: 1.5 * y)
    changed = answer(net, inputs)
    assert not alike(changed, before)
    handle.remove()
    assert alike(answer(net, inputs), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_infer_and_train(name):
    net, inputs = make(name)
    if not layers(net):
        pytest.skip("a network without layers of PyTorch's that have weights")
    answer(net, inputs)
    read = [n for n in layers(net) if not n.startswith(UNREAD.get(name, ("-",)))]
    for layer in read:
        prune.random_unstructured(net.get_submodule(layer), "weight", amount=0.3)
    pruned = answer(net, inputs)  # without gradients: else PyTorch does not copy what was pruned
    fixed = copy.deepcopy(net)
    for layer in read:
        prune.remove(fixed.get_submodule(layer), "weight")
    assert alike(pruned, answer(fixed, inputs))
    optimizer = torch.optim.SGD(learnt(net), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        net.train()(*inputs).square().sum().backward()
        optimizer.step()
    net.eval()
    pruned = answer(net, inputs)
    fixed = copy.deepcopy(net)
    for layer in read:
        prune.remove(fixed.get_submodule(layer), "weight")
    assert alike(pruned, answer(fixed, inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_weight_norm(name):
    net, inputs = make(name)
    before = answer(net, inputs)
    for module in layers(net).values():
        parametrizations.weight_norm(module)
    assert alike(answer(net, inputs), before)
    net.train()(*inputs).square().sum().backward()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.01)
    net.eval()
    if layers(net):
        assert not alike(answer(net, inputs), before)
    assert alike(answer(net, inputs), answer(copy.deepcopy(net), inputs))


@pytest.mark.filterwarnings("ignore")  # PyTorch speaks of what comes after its own quantization
@pytest.mark.parametrize("name", NETWORKS)
def test_dynamic_quantization(name):
    net, inputs = make(name)
    before = answer(net, inputs)
    try:
        quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    except RuntimeError as error:
        pytest.skip(f"PyTorch has no quantized kernels here: {error}")
    got = answer(quantized, inputs)
    assert (got - before).norm() < 0.2 * before.norm()
    assert alike(got, before) == (not layers(net, nn.Linear))


class Adapted(nn.Linear):
    """A layer of a class of somebody's own."""

    def forward(self, x):
        return super().forward(x) + 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_of_a_foreign_class_computes_what_it_computes(name):
    net, inputs = make(name)
    before = answer(net, inputs)
    linear = [m for n, m in layers(net, nn.Linear).items() if not n.startswith(UNREAD.get(name, ("-",)))]
    if not linear:
        pytest.skip("a network without linear layers")
    linear[len(linear) // 2].__class__ = Adapted
    assert not alike(answer(net, inputs), before)
    with torch.no_grad():
        assert "test_more_than_weights.Adapted" in posekernels.explain(net)


@pytest.mark.parametrize("name", ["mgcn_lw", "rie", "variance_linear", "strided_transformer"])
def test_a_norm_in_training_mode_in_a_network_in_evaluation(name):
    net, inputs = make(name)
    before = answer(net, inputs)
    norm = next(iter(layers(net, nn.BatchNorm1d).values()))
    count = norm.num_batches_tracked.item()
    norm.train()
    assert not alike(answer(net, inputs), before)
    assert norm.num_batches_tracked == count + 1


@pytest.mark.parametrize("name", NETWORKS)
def test_module_by_module_is_the_same_function(name, monkeypatch):
    net, inputs = make(name)
    want = answer(net, inputs)
    assert alike(answer(forced(net, monkeypatch), inputs), want)


def test_a_clip_module_by_module(monkeypatch):
    rie, _ = make("rie")
    clip = torch.randn(20, 17, 2)
    want = rie.sequence(clip)
    assert alike(forced(rie, monkeypatch).sequence(clip), want)


def test_explain_a_network():
    net, inputs = make("htnet")
    assert "gradients are recorded" in posekernels.explain(net)
    with torch.no_grad():
        assert posekernels.explain(net) == "HTNet: in one call"
        net.blocks[0].mlp.fc1.register_forward_hook(lambda *_: None)
        assert posekernels.explain(net) == "HTNet: module by module: blocks.0.mlp.fc1: it has hooks"
        net.train()
        assert posekernels.explain(net) == "HTNet: module by module: it is in training mode"
        net = make("mgcn_lw")[0]
        net.input.norm.train()
        assert posekernels.explain(net) == "MgcnLw: module by module: input.norm: it is in training mode"
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert "hooks for all modules" in posekernels.explain(make("mgcn_lw")[0])
        handle.remove()


TRANSFORMED = [n for n in NETWORKS if n != "gcndiff"]


@pytest.mark.parametrize("name", TRANSFORMED)
def test_torch_func(name):
    net, (x,) = make(name)
    weights = {n: p.detach() for n, p in net.named_parameters()}
    call = lambda w, x: torch.func.functional_call(net, w, (x,))  # noqa: E731
    want = answer(net, (x,))
    assert alike(call(weights, x), want)
    with torch.no_grad():
        doubled = {n: 1.01 * w for n, w in weights.items()}
        other = copy.deepcopy(net)
        other.load_state_dict(doubled, strict=False) if name not in ("pkd", "simlpe") else [
            p.mul_(1.01) for p in other.parameters()
        ]
        assert alike(call(doubled, x), answer(other, (x,)))
        assert alike(net(x), want)
    grads = torch.func.grad(lambda w: call(w, x).square().sum())(weights)
    net(x).square().sum().backward()
    for n, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[n], p.grad, rtol=1e-3, atol=1e-4 * (1 + p.grad.abs().max().item()))
    rows = torch.func.vmap(lambda row: call(weights, row[None])[0])(x)
    assert alike(rows.detach(), want)
    _, tangent = torch.func.jvp(lambda x: call(weights, x), (x,), (torch.ones_like(x),))
    back = torch.autograd.grad(net(x.requires_grad_()).sum(), x)[0].sum()
    torch.testing.assert_close(tangent.sum(), back, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRANSFORMED)
def test_traced_networks_answer_the_same(name):
    net, (x,) = make(name)
    want = answer(net, (x,))
    with torch.no_grad():
        assert alike(torch.jit.trace(net, (x,), check_trace=False)(x), want)
    assert alike(torch.jit.trace(net, (x,), check_trace=False)(x).detach(), want)


def test_a_named_backend_says_that_transforms_run_the_reference():
    net, (x,) = make("mgcn_lw")
    with posekernels.use_backend("cpu"), pytest.raises(posekernels.BackendError, match="torch.func runs the reference"):
        torch.func.vmap(lambda row: net(row[None])[0])(x)
