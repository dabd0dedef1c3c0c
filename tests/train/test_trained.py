"""Checkpoints of training runs as networks: what ``convert-weights``, ``export`` and the like start from."""

import sys
import warnings
from argparse import ArgumentTypeError
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.cli import run_cli
from posekernels.models.examples import inputs_of
from posekernels.models.load import save_weights
from posekernels.people.commands import convert_weights
from posekernels.people.commands.lift import size
from posekernels.people.lifter import Lifter, load_lifter
from posekernels.pose.camera import normalise_screen
from posekernels.pose.skeleton import H36M_17
from posekernels.train import any_motion, cmu, h36m
from posekernels.train.data.forecasting import CMU
from posekernels.train.loop import Loop, prepare
from posekernels.train.place import Place
from tests.train.synthetic import synthetic

LIFTERS = {
    "any_camera": ["--strides", "3", "3", "--layers", "1", "--channels", "16", "--hidden", "16", "--heads", "2"],
    "htnet": ["--layers", "1", "--channel", "24", "--d_hid", "16"],
    "mgcn_lw": ["--hid_dim", "16", "--num_layers", "1"],
    "mixste": ["-f", "9", "-cs", "8", "--depth", "1", "--heads", "2"],
    "rie": ["-arc", "3,3", "-ch", "8", "-lfd", "8", "--causal"],
    "strided_transformer": ["--frames", "9", "--strides", "3,3", "--layers", "1", "--channel", "16", "--d_hid", "16"],
}
FORECASTERS = {
    "pkd": ["--num", "2", "--distill_layer_num", "1", "--layer-norm-axis", "temporal"],
    "simlpe": ["--num", "2", "--temporal-only"],
}
TOGETHER = {
    "diffpose": ["--setting", "frame", "--hid_dim", "8", "--num_layer", "1", "--n_head", "2", "-k", "gt"],
    "ws_anl": LIFTERS["htnet"],
}


def run_of(name, folder, stage=0):
    """A checkpoint of a fresh network, as the loop writes it."""
    if name in FORECASTERS:
        options, recipe = cmu.JOB.parse(["--model", name, *FORECASTERS[name]])
        data = SimpleNamespace(layout=CMU)
    elif name == "any_motion":
        options, recipe = any_motion.JOB.parse(["--network", "pkd", "--blocks", "2", "--distill-blocks", "1"])
        data = None
    else:
        options, recipe = h36m.JOB.parse(["--model", name, *(LIFTERS | TOGETHER)[name]])
        data = synthetic(12)
    loop = Loop(recipe(options, data), options, Place(), folder, None)
    prepare(loop.recipe, options, loop.place)
    loop.at.stage, loop.ema = stage, None
    loop.recipe.start_stage(stage, None)
    torch.save(loop.weights(), folder / "best.pt")
    return folder / "best.pt", loop.recipe


@pytest.mark.parametrize("name", [*LIFTERS, *FORECASTERS, "any_motion"])
def test_a_run_becomes_a_file_that_names_itself(tmp_path, name):
    path, recipe = run_of(name, tmp_path)
    net = models.load(path)
    save_weights(net, tmp_path / "a.safetensors", net.about)
    again = models.load(tmp_path / "a.safetensors")
    inputs = inputs_of(again.about.network, again, 2)
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), recipe.model.eval()(*inputs))
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in net.state_dict().items())


@pytest.mark.parametrize("name", TOGETHER)
def test_a_run_of_a_system_becomes_a_file_that_names_itself(tmp_path, name, capsys):
    path, recipe = run_of(name, tmp_path, stage=1)
    assert convert_weights.main([str(path), "-o", str(tmp_path / "a.safetensors")]) == 0
    again = models.load(tmp_path / "a.safetensors")
    assert again.about.network == name and type(again) is type(recipe.model)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in recipe.model.state_dict().items())
    poses = load_lifter(None, tmp_path / "a.safetensors")(np.random.rand(3, 17, 2) * 100, (100, 100), None)
    assert poses.shape == (3, 17, 3) and np.isfinite(poses).all()


@pytest.mark.parametrize("name", TOGETHER)
def test_a_system_that_is_not_trained_to_its_end_is_refused(tmp_path, name):
    path, _ = run_of(name, tmp_path, stage=0)
    with pytest.raises(CheckpointError, match="best.pt: of the stage before .* was trained; let the run finish"):
        models.load(path)


def test_a_run_whose_network_has_no_name_says_so(tmp_path):
    path, _ = run_of("mgcn_lw", tmp_path)
    torch.save(read_checkpoint(path) | {"about": None, "model": "toy"}, path)
    with pytest.raises(CheckpointError, match="a run of --model toy, whose network models.create does not know"):
        models.load(path)


def test_the_running_mean_of_a_run(tmp_path):
    path, recipe = run_of("mgcn_lw", tmp_path)
    mean = {name: tensor + 1 for name, tensor in recipe.model.state_dict().items()}
    torch.save(read_checkpoint(path) | {"ema": mean}, path)
    assert torch.equal(models.load(path, ema=True).state_dict()["output.bias"], mean["output.bias"])
    torch.save(read_checkpoint(path) | {"ema": None}, path)
    with pytest.raises(CheckpointError, match="ema=True"):
        models.load(path, ema=True)


def test_conversion_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path, _ = run_of("mgcn_lw", tmp_path)
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    monkeypatch.setitem(convert_weights.SAME, torch.float32, -1.0)
    with pytest.raises(ValueError, match="not written"):
        convert_weights.main([str(path), "-o", str(out)])
    assert out.read_text() == "precious" and len(list(tmp_path.iterdir())) == 2


def test_the_best_of_each_stage_is_evaluated_as_that_stage(tmp_path):
    path, recipe = run_of("rie", tmp_path, stage=0)
    assert models.load(path).about.config["stage"] == 1 and recipe.number == 1
    path, _ = run_of("diffpose", tmp_path, stage=0)
    data = synthetic(12)
    for stage in (0, 1):
        torch.save(read_checkpoint(path) | {"stage": stage}, path)
        options, recipe = h36m.JOB.parse(["--evaluate", str(path), "-k", "gt"])
        recipe = recipe(options, data)
        prepare(recipe, options, Place())
        recipe.load_weights(path)
        assert ("P1 before" in recipe.evaluate(recipe.place).figures) == (stage == 1)
    path, _ = run_of("ws_anl", tmp_path, stage=0)
    options, recipe = h36m.JOB.parse(["--evaluate", str(path), "--multihyp_test"])
    recipe = recipe(options, data)
    prepare(recipe, options, Place())
    with pytest.raises(CheckpointError, match="variance model is not trained yet"):
        recipe.load_weights(path)


@pytest.mark.parametrize("name", ["gcnpose", "htnet", "mgcn_lw"])
def test_networks_of_single_frames_lift(name):
    torch.manual_seed(0)
    net = models.create(name, **({"depth": 1, "channels": 24} if name == "htnet" else {})).eval()
    poses = Lifter(net, name)(np.random.rand(5, 17, 2) * 100, (100, 100), None)
    assert poses.shape == (5, 17, 3) and np.isfinite(poses).all()


@pytest.mark.parametrize("frames", [1, 9, 20])
def test_mixste_lifts_in_chunks_of_its_own_length(tmp_path, frames):
    path, recipe = run_of("mixste", tmp_path)
    lifter = load_lifter("mixste", path)
    points = np.random.default_rng(0).random((frames, 17, 2), np.float32) * 100
    poses = lifter(points, (100, 100), None)
    clip = SimpleNamespace(keypoints=normalise_screen(torch.from_numpy(points), 100, 100).numpy())
    recipe.model.eval()
    recipe.data = SimpleNamespace(sides=[(H36M_17.left, H36M_17.right)] * 2)
    want = recipe.predict(clip).numpy()
    want[:, 0] = 0  # what is measured has the root's own prediction; what is lifted is relative to the root
    np.testing.assert_allclose(poses, want, atol=1e-6)


@pytest.mark.parametrize("setting", ["frame", "video"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_runs_of_diffpose_lift_as_they_are_evaluated(tmp_path, monkeypatch, setting, eta):
    sizes = [
        "--setting",
        setting,
        "--hid_dim",
        "8",
        "--num_layer",
        "1",
        "--n_head",
        "2",
        "-k",
        "gt",
        *LIFTERS["mixste"],
    ]
    monkeypatch.setitem(TOGETHER, "diffpose", [*sizes, "--eta", str(eta), "--test_times", "3"])
    torch.manual_seed(0)
    path, recipe = run_of("diffpose", tmp_path, stage=1)
    lifter = load_lifter("diffpose", path)
    points = np.random.default_rng(0).random((20, 17, 2), np.float32) * 100
    poses = lifter(points, (100, 100), None)
    recipe.model.eval()
    recipe.data = SimpleNamespace(sides=[(H36M_17.left, H36M_17.right)] * 2)
    want = recipe.predict(SimpleNamespace(keypoints=normalise_screen(torch.from_numpy(points), 100, 100).numpy()))
    if eta:  # the frames of the last chunk come in another order, with noise of their own
        assert np.isfinite(poses).all() and not poses[:, 0].any() and np.abs(poses - want.numpy()).max() < 1
        np.testing.assert_array_equal(poses, lifter(points, (100, 100), None))
    else:
        np.testing.assert_allclose(poses, want.numpy(), atol=1e-6)


def test_what_diffpose_cannot_lift_is_told(tmp_path):
    path, _ = run_of("diffpose", tmp_path)
    with pytest.raises(ValueError, match="before GCNdiff was trained"):
        load_lifter(None, path)
    path, _ = run_of("diffpose", tmp_path, stage=1)
    with pytest.raises(ValueError, match="weights of diffpose, not of htnet"):
        load_lifter("htnet", path)
    torch.save({}, tmp_path / "published.pth")
    with pytest.raises(ValueError, match="diffpose is several networks with a published file each"):
        load_lifter("diffpose", tmp_path / "published.pth")


@pytest.mark.parametrize("text", ["0x-5", "640x0", "640"])
def test_sizes_of_images_are_positive(text):
    with pytest.raises(ArgumentTypeError, match="WIDTHxHEIGHT"):
        size(text)


def test_a_warning_is_one_line_without_a_place_in_the_code(capsys):
    def main():
        warnings.showwarning = lambda *warning: sys.stderr.write(warnings.formatwarning(*warning))  # pytest has its own
        h36m.JOB.parse(["--model", "rie", "--dense"])

    with pytest.raises(SystemExit), warnings.catch_warnings():
        run_cli(main)
    assert capsys.readouterr().err == "warning: --dense: without effect: never read\n"


@pytest.mark.parametrize(
    "name, options",
    [
        ("rie", ["--stage", "2", "-p", "GONE"]),
        ("strided_transformer", ["--reload", "--previous_dir", "GONE"]),
        ("diffpose", ["--model_pose_path", "GONE"]),
        ("ws_anl", ["--lifter_checkpoint", "GONE"]),
    ],
)
def test_a_resumed_run_needs_no_file_it_began_with(tmp_path, name, options):
    options, recipe = h36m.JOB.parse(
        ["--model", name, *(LIFTERS | TOGETHER)[name], *options, "--out", str(tmp_path), "--resume"]
    )
    recipe = recipe(options, synthetic(12))
    prepare(recipe, options, Place())
    recipe.start_stage(0, None)
