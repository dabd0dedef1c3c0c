"""RIE: its two forms, its causal form, and what it refuses."""

import pytest
import torch

from posekernels import models, use_backend
from posekernels.models.load import published_state

SMALL = {"filter_widths": (3, 3), "latent": 8, "channels": 12}


def fresh(**config):
    torch.manual_seed(0)
    net = models.create("rie", **(SMALL | config)).eval()
    for module in net.modules():  # statistics that matter
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("causal", [False, True])
def test_strided_form_equals_dilated_form_on_its_window(causal):
    net = fresh(causal=causal).double()
    x = torch.randn(4, net.frames, 17, 2, dtype=torch.float64)
    with torch.no_grad():
        for strided, dilated in zip(net.features(x)[0], net.local_features_dilated(x)):
            torch.testing.assert_close(strided, dilated)


def test_causal_form_differs():
    x = torch.randn(1, 9, 17, 2)
    with torch.no_grad():
        assert not torch.allclose(fresh()(x), fresh(causal=True)(x))


def test_evaluation_equals_training_layers_with_running_statistics(monkeypatch):
    """The folded batch norm of one path against PyTorch's batch norm in the other."""
    net = fresh(stage=2, dropout=0.0)
    net.fc_dropout = 0.0
    x = torch.randn(5, 9, 17, 2)

    def act(y, n, dropout):
        y = torch.nn.functional.batch_norm(y.mT, n.running_mean, n.running_var, n.weight, n.bias, False, 0.0, n.eps)
        return torch.nn.functional.leaky_relu(y.mT, 0.2)

    monkeypatch.setattr("posekernels.models.rie._act", act)
    with torch.no_grad():
        torch.testing.assert_close(net.train()(x), net.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_training_step_equals_the_reference_but_for_its_dropout():
    """Loss, gradients and running statistics of the kernels' step against those of PyTorch's own layers."""
    x, found = torch.randn(6, 9, 17, 2), []
    for backend in ("reference", "auto"):
        net = fresh(stage=3, dropout=0.0).train()
        net.fc_dropout = 0.0
        with use_backend(backend):
            loss = net(x).square().mean()
            loss.backward()
        state = {n: t for n, t in net.state_dict().items() if "running" in n or "tracked" in n}
        # Biases before a norm, and what only shifts one, have no gradient but rounding noise (rie, quirk 9).
        grads = {n: p.grad for n, p in net.named_parameters() if p.grad.norm() > 1e-4}
        found.append({"loss": loss.detach()} | grads | state)
    assert len(found[0]) > 300
    for name in found[0].keys() & found[1].keys():
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-3, atol=1e-4, msg=name)


def test_folded_norm_follows_its_parameters():
    net = fresh()
    x = torch.randn(1, 9, 17, 2)
    with torch.no_grad():
        before = net(x)
        net.encoders["torso"].expand_norm.weight.mul_(2)
        assert not torch.allclose(net(x), before)


@pytest.mark.parametrize("config", [{"stage": 2}, {"causal": True, "filter_widths": (3, 5)}])
def test_sequence_equals_a_window_per_frame(config):
    net = fresh(**config)
    x = torch.randn(10, 17, 2)
    before, after = (2 * (net.frames // 2), 0) if net.causal else (net.frames // 2, net.frames // 2)
    padded = torch.cat((x[:1].expand(before, -1, -1), x, x[-1:].expand(after, -1, -1)))
    with torch.no_grad():
        want = net(padded.unfold(0, net.frames, 1).permute(0, 3, 1, 2))[:, 0]
    torch.testing.assert_close(net.sequence(x, chunk=4), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.sequence(x[:1]), net.sequence(x[:1].repeat(5, 1, 1))[:1], rtol=1e-4, atol=1e-5)
    for wrong in (x[None], x[:, :16], x[:0]):
        with pytest.raises(ValueError, match=r"sequence takes \[T, 17, 2\]"):
            net.sequence(wrong)


def test_evaluation_follows_every_kind_of_change():
    net, x = fresh(), torch.randn(2, 9, 17, 2)

    def changed(before):
        with torch.no_grad():
            after = net(x)
        assert not torch.allclose(before, after)
        return after

    with torch.no_grad():
        y = net(x)
    net.encoders["torso"].expand_norm.running_mean.add_(1)
    y = changed(y)
    net.decoders["left_leg"].last.bias = torch.nn.Parameter(torch.ones(9))
    y = changed(y)
    net.whole_body.first.weight.data = torch.randn(1024, 34)
    y = changed(y)
    net.encoders["left_arm"] = type(net.encoders["left_arm"])(18, (3, 3), 12, 8).eval()
    y = changed(y)
    assert net.double()(x.double()).dtype == torch.float64


def test_humaneva_grouping():
    skeleton = type(models.create("rie", **SMALL).skeleton)(
        "humaneva-15", tuple("abcdefghijklmno"), (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
        left=(2, 3, 4, 8, 9, 10), right=(5, 6, 7, 11, 12, 13),
    )  # fmt: skip
    net = models.create("rie", **SMALL, skeleton=skeleton).eval()
    assert net(torch.randn(2, 9, 15, 2)).shape == (2, 1, 15, 3)
    with pytest.raises(ValueError, match=r"\[B, 9, 15, 2\], got \[2, 9, 17, 2\]"):
        net(torch.randn(2, 9, 17, 2))


@pytest.mark.parametrize(
    "config, message", [({"filter_widths": (3, 4)}, "odd"), ({"stage": 4}, "stage"), ({"filter_widths": ()}, "odd")]
)
def test_refuses(config, message):
    with pytest.raises(ValueError, match=message):
        models.create("rie", **config)


def test_published_checkpoint_round_trip():
    net, other = fresh(stage=3), models.create("rie", **SMALL, stage=3)
    models.load({"epoch": 3, "model_pos": {f"module.{n}": t for n, t in published_state(net).items()}}, other)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    with pytest.raises(models.CheckpointError, match="unexpected .*stage=3"):
        models.load(published_state(net), models.create("rie", **SMALL, stage=1))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"filter_widths": (4,)}, r"odd numbers, at least one, got \[4\]"),
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"channels": -1}, "channels must be"),
        ({"skeleton": "h36m-32"}, "no body parts for skeleton 'h36m-32'"),
    ],
)
def test_sizes_that_cannot_be_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        models.create("rie", **config)


def test_a_skeleton_may_be_named():
    assert models.create("rie", **SMALL, skeleton="humaneva-15").skeleton.num_joints == 15


@pytest.mark.filterwarnings("ignore")
def test_a_trace_takes_other_batches():
    net, x = fresh(stage=2), torch.randn(3, 9, 17, 2)
    with torch.no_grad():
        traced, want = torch.jit.trace(net, (x[:2],)), net(x)
        torch.testing.assert_close(traced(x), want, rtol=1e-4, atol=1e-5)
