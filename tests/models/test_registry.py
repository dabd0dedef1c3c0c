"""Networks by name, and what published checkpoint files may hold."""

import copy
import os

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import read_checkpoint
from posekernels.models.examples import inputs_of
from posekernels.models.pretrained import load_weights
from posekernels.models.registry import published_state


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


def test_nothing_is_loaded_partially():
    net = models.create("htnet", depth=1, channels=24, hidden=8)
    state = published_state(models.create("htnet", depth=1, channels=24, hidden=8))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    state["fcn.bias"] = torch.zeros(4)
    state["extra"] = torch.zeros(1)
    del state["fcn.weight"]
    with pytest.raises(models.CheckpointError) as error:
        models.load_published(net, state)
    assert "missing: fcn.weight [3, 24]" in str(error.value)
    assert "unexpected: extra" in str(error.value)
    assert "misshapen: fcn.bias is [4], the network has [3]" in str(error.value)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_skeletons_go_by_name():
    assert models.create("mgcn_lw", skeleton="h36m-16").skeleton.num_joints == 16


@pytest.mark.parametrize("load", [models.load_published, load_weights])
@pytest.mark.parametrize("name", models.names())
def test_files_of_another_kind_are_refused_in_words(tmp_path, name, load):
    """A list as DiffPose's trainer writes it, with something else in it than the network's tensors; and no list."""
    file, net = tmp_path / "file.pth", models.create(name)
    of_lists = [{"a": torch.zeros(2)}, {}, 3, 4, {}], {"model_pos": [1]}, [], {}
    for checkpoint in (*of_lists, {"state_dict": 3}, {3: torch.zeros(2)}, 3, torch.zeros(2), None):
        torch.save(checkpoint, file)
        with pytest.raises(models.CheckpointError, match="file.pth"):
            load(file, name) if load is load_weights else load(net, file)


SIZES = [
    ("rie", {"filter_widths": (3, 5, 1), "stage": 3, "latent": 6, "channels": 10}),
    ("rie", {"filter_widths": (3,), "stage": 1, "latent": 5, "channels": 4}),
    ("strided_transformer", {"frames": 27, "layers": 1, "channels": 16, "hidden": 24}),
    ("strided_transformer", {"frames": 81, "layers": 2, "channels": 8, "hidden": 9, "joints": 15, "out_joints": 16}),
    ("htnet", {"depth": 2, "channels": 48, "hidden": 7}),
    ("mgcn_lw", {"hidden": 5, "depth": 3, "outputs": 3}),
    ("variance_gcn", {"hidden": 6, "depth": 0, "outputs": 3, "skeleton": "h36m-16"}),
    ("variance_linear", {"hidden": 9, "stages": 2}),
    ("mixste", {"frames": 9, "depth": 1}),
    ("pkd", {"joints": 21, "blocks": 1, "distill_blocks": 1}),
]


@pytest.mark.parametrize("name, config", SIZES)
def test_a_published_file_tells_its_own_size(tmp_path, name, config):
    net = models.create(name, **config)
    models.save_published(net, tmp_path / "net.pth")
    again, about = load_weights(tmp_path / "net.pth", name)
    assert about.network == name
    state = published_state(again)
    assert all(torch.equal(state[n], t) for n, t in published_state(net).items())


def test_a_file_of_another_size_says_which(tmp_path):
    file = tmp_path / "net.pth"
    models.save_published(models.create("rie", filter_widths=(3,), stage=2, latent=6, channels=4), file)
    with pytest.raises(models.CheckpointError, match=r"create\('rie', stage=3, latent=6\)$"):
        models.load_published(models.create("rie", filter_widths=(3,), latent=5, channels=4), file)
    models.save_published(models.create("strided_transformer", frames=27), file)
    with pytest.raises(models.CheckpointError, match=r"create\('strided_transformer', frames=27\)$"):
        models.load_published(models.create("strided_transformer", frames=81), file)
    models.save_published(models.create("strided_transformer", frames=9, strides=(3, 3), layers=1, channels=8), file)
    for name, message in (("strided_transformer", "no such strides are published"), ("rie", "not a RIE state dict")):
        with pytest.raises(models.CheckpointError, match=message):
            load_weights(file, name)


def test_rie_is_written_as_its_program_reads_it(tmp_path):
    net = models.create("rie", filter_widths=(3,), latent=5, channels=4)
    models.save_published(net, tmp_path / "net.bin")
    file = read_checkpoint(tmp_path / "net.bin")
    assert file.keys() == {"epoch", "model_pos"} and file["model_pos"].keys() == published_state(net).keys()
