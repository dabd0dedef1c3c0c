"""Networks and systems by name, and what checkpoint files may hold."""

import copy
import os

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import read_checkpoint
from posekernels.models.examples import inputs_of


def test_unknown_name_tells_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'htnet'"):
        models.create("htnt")


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("grad", [True, False])
def test_inputs_of_another_dtype_are_refused_in_words(name, grad):
    net = models.create(name).eval()
    inputs = inputs_of(name, net, 1)
    with torch.set_grad_enabled(grad):
        with pytest.raises(TypeError, match=rf"{name}: \w+ must be float32 as the weights, got float64"):
            net(inputs[0].double(), *inputs[1:])
        again = copy.deepcopy(net).double()
        assert again(*(x.double() if x.is_floating_point() else x for x in inputs)).dtype == torch.float64


@pytest.mark.parametrize("name", models.names())
def test_made_under_another_default_dtype(name):
    torch.set_default_dtype(torch.float64)
    try:
        net = models.create(name).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        y = net(*(x.double() if x.is_floating_point() else x for x in inputs_of(name, net, 1)))
    assert y.dtype == torch.float64


@pytest.mark.parametrize("name", [*models.names(), *models.systems()])
def test_made_without_memory_then_given_weights(name):
    """``assign=True`` puts the given tensors in place of those that have none, in the given dtype."""
    want = models.create(name).double().state_dict()
    with torch.device("meta"):
        net = models.create(name)
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    net.load_state_dict(want, assign=True)
    got = net.state_dict(keep_vars=True)
    assert not any(t.is_meta for t in got.values())
    assert all(t.dtype == want[n].dtype and torch.equal(t, want[n]) for n, t in got.items())
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == frozen


def test_a_size_that_follows_from_another_says_from_which():
    with pytest.raises(TypeError, match="rie has no 'frames'; it follows from filter_widths"):
        models.create("rie", frames=27)


def test_random_state_in_a_checkpoint_is_skipped(tmp_path):
    file = tmp_path / "stage_1_epoch_3.bin"
    content = {
        "epoch": 3,
        "lr": np.float64(0.5),
        "random_state": np.random.RandomState(1),
        "model_pos": {"w": torch.ones(2)},
    }
    torch.save(content, file)
    assert torch.equal(read_checkpoint(file)["model_pos"]["w"], torch.ones(2))


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_hostile_checkpoint_is_refused_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"x": Hostile(str(marker))}, tmp_path / "bad.pth")
    with pytest.raises(models.CheckpointError, match="bad.pth"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not marker.exists()


def test_truncated_and_missing_files(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:500])
    for name in ("b.pth", "c.pth"):
        with pytest.raises(models.CheckpointError, match=name):
            read_checkpoint(tmp_path / name)


def test_skeletons_go_by_name():
    assert models.create("mgcn_lw", skeleton="h36m-16").skeleton.num_joints == 16


@pytest.mark.parametrize(
    "name, config",
    [
        ("ws_anl", {"lifter": "mgcn_lw", "sizes": {"hidden": 8, "depth": 1}}),
        (
            "diffpose",
            {"setting": "frame", "denoiser": {"channels": 8, "heads": 2}, "sampling": {"steps": 2, "limit": 9}},
        ),
    ],
)
def test_systems_are_created_by_name_and_again_from_what_they_were_created_with(name, config):
    net = models.create(name, **config)
    again = models.create(net.created[0], **net.created[1])
    shapes = {n: t.shape for n, t in net.state_dict().items()}
    assert not net.training and {n: t.shape for n, t in again.state_dict().items()} == shapes
    assert getattr(again, "sampling", None) == getattr(net, "sampling", None)
    assert name in models.systems() and name not in models.names()
    for wrong in ({"lifter": "rie"}, {"setting": "movie"}):
        with pytest.raises((TypeError, ValueError), match="lifter|setting"):
            models.create(name, **wrong)
