"""Training and evaluating forecasters: the recipe, the command lines, the table, the picture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models import create, save_published
from posekernels.models.load import published_state
from posekernels.train import cmu, h36m, pw3d
from posekernels.train.data import forecasting as data
from posekernels.train.data.motion import load_starter_motion
from posekernels.train.recipes import pkd
from tests.train.test_forecasting_data import make_cmu, make_h36m

SMALL = ["--num", "2", "--iter", "4", "--every", "2", "--batch-size", "16", "--no-progress"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEKERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def test_actions_of_the_starter_set_are_chosen():
    every, some = load_starter_motion(), load_starter_motion("Swing")
    assert {c.action for c in some.test} == {"Swing"} < {c.action for c in every.test}
    assert len(some.train) < len(every.train)
    for action, told in {"Wlak": "did you mean 'Walk'", "Walk": "nothing as long as a window"}.items():
        with pytest.raises(ValueError, match=told):
            h36m.main(["--model", "pkd", "-a", action, *SMALL])
    with pytest.raises(ValueError, match="--actions Walk: the sequences of 3DPW have no actions"):
        pw3d.main(["-a", "Walk", "--data-root", "."])


def test_rate_as_published():
    rates = [pkd.LEARNING_RATE * pkd.rate_factor(i, 5000) for i in (0, 1, 5001, 5002, 9999)]
    assert rates == pytest.approx([1e-5, 3e-4, 3e-4, 1e-5, 1e-5])


def test_losses_by_hand():
    net = create("pkd", joints=2, history=50, future=10, blocks=1, distill_blocks=1)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    x, y = torch.randn(3, 50, 2, 3), torch.randn(3, 10, 2, 3)
    prediction, posterior = net.branches(x)
    P, K = prediction + x[:, -1:], posterior + x[:, -1:]
    first = pkd.first_losses(net, x, y, 0.1)
    assert torch.allclose(first["similarity"], (P - y - K).norm(dim=-1).mean())
    assert torch.allclose(first["loss"], first["position"] + first["velocity"] + 0.1 * first["similarity"])
    agreeing = pkd.first_losses(net, x, y, 0.1, agreeing=True)["similarity"]
    assert torch.allclose(agreeing, (P - y + posterior).norm(dim=-1).mean())
    velocity = ((P[:, 1:] - P[:, :-1]) - (y[:, 1:] - y[:, :-1])).norm(dim=-1).mean()
    assert torch.allclose(first["velocity"], velocity)
    second = pkd.second_losses(net, x, y)["position"]
    assert torch.allclose(second, (P + posterior - y).norm(dim=-1).mean(), atol=1e-6)


def test_training_resumes_to_the_bit(tmp_path, capsys):
    root = ["--data-root", str(make_cmu(tmp_path / "cmu"))]
    own = ["--distill_layer_num", "1", "--actions", "walking,running"]
    assert cmu.main([*root, *SMALL, *own, "--out", "a", "--render", "clip.html"]) == 0
    out = capsys.readouterr().out
    assert "nominal time" in out and "repeat the last frame" in out and "after 4 iterations" in out
    assert (tmp_path / "a/clip.html").stat().st_size > 10_000
    assert cmu.main([*root, *SMALL[:2], "--iter", "2", *SMALL[4:], *own, "--out", "b"]) == 0
    stored = torch.load("b/last.pt", weights_only=True)
    stored["options"]["iter"] = 4
    torch.save(stored, "b/last.pt")
    assert cmu.main([*root, "--out", "b", "--resume"]) == 0
    assert all(torch.equal(a, b) for a, b in zip(weights("a/last.pt").values(), weights("b/last.pt").values()))
    assert cmu.main([*root, "--evaluate", "b/last.pt", "--out", "c"]) == 0
    assert json.loads((tmp_path / "c/evaluation.json").read_text())["iterations"] == 4
    figures = json.loads((tmp_path / "a/evaluation.json").read_text())
    assert figures["iterations"] == 4 and figures["figures"].keys() == {*data.CMU.labels, "mean"}
    idle = "distiller.0.pre_weight"
    records = [json.loads(line) for line in (tmp_path / "a/log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 4] and "similarity" in records[0] and "loss2" in records[0]
    assert weights("a/last.pt")[idle].abs().max() <= 1e-8 * (6 / 100) ** 0.5  # idle: never moved, not even decayed


def test_evaluate_the_weights_that_ship(tmp_path, capsys):
    root = ["--data-root", str(make_cmu(tmp_path / "cmu")), "--actions", "walking"]
    shipped = Path(models.__file__).with_name("weights") / "pkd_cmu.safetensors"
    assert cmu.main([*root, "--evaluate", str(shipped), "--no-progress"]) == 0
    assert "--model pkd" in capsys.readouterr().out  # and its sizes, off the file
    (tmp_path / "torn.safetensors").write_bytes(shipped.read_bytes()[:99])
    with pytest.raises(ValueError, match="torn.safetensors: not a readable safetensors file"):
        cmu.main([*root, "--evaluate", "torn.safetensors"])


def test_evaluate_published_files(tmp_path, capsys):
    root = make_h36m(tmp_path / "h36m", 350)
    torch.manual_seed(0)
    net = create("pkd", blocks=2, distill_blocks=3)
    save_published(net, "net.pth")
    argv = ["--data-root", str(root), "--actions", "walking,eating", "--evaluate", "net.pth"]
    assert h36m.main([*argv, "--sampling", "256", "--out", "e"]) == 0  # the file tells its network
    out = capsys.readouterr().out
    assert "512 test windows (256), --model pkd" in out and "blocks named MLPBlocks.N" in out
    rows = {line.split("  ")[0]: re.findall(r"\d+\.\d+", line) for line in out.splitlines()}
    assert rows["all"] == rows["repeat the last frame"]  # an untrained network is the baseline
    both = np.array([rows["walking"], rows["eating"]], float).mean(0)
    assert np.allclose(both, np.array(rows["all"], float), atol=2e-3)  # the mean of the actions' means
    heads = [line.split()[2:] for line in out.splitlines() if line.startswith(("future frame", "mm at ms"))]
    assert heads[0] == ["2", "4", "8", "10", "14", "18", "22", "25"] and heads[1][1:3] == ["80", "160"]
    legacy = {n.replace("motion_mlp.mlps", "motion_transformer.transformer"): t
              for n, t in published_state(create("simlpe", blocks=3)).items()}  # fmt: skip
    torch.save(legacy, "simlpe.pth")
    assert h36m.main([*argv[:4], "--model-pth", "simlpe.pth", "--averaged"]) == 0
    out = capsys.readouterr().out
    assert "512 test windows (256), --model simlpe, averaged up to the frame" in out  # siMLPe's own sampling
    assert "motion_transformer.transformer.N" in out
    save_published(create("pkd", joints=25, blocks=2, distill_blocks=3), "cmu.pth")
    with pytest.raises(ValueError, match="a network of 25 joints; Human3.6M has 22"):
        h36m.main([*argv[:4], "--evaluate", "cmu.pth", "--model", "pkd"])


def test_published_options_without_effect():
    given = ["--weight", "1.0", "--exp-name", "x", "--temporal-only", "--num", "2"]
    with pytest.warns(UserWarning, match="without effect"):
        options, _ = cmu.JOB.parse(given)
    assert (options.num, options.sampling) == (2, "all")


def test_used_joints_are_those_that_are_forecast():
    window = torch.zeros(1, 75, 32, 3)
    predicted = torch.zeros(1, 25, 22, 3)
    predicted[:, :, 9] = 0.022  # joint 13, of which 16 and 24 are copies
    errors = pkd.errors_of(predicted, window, data.H36M)
    distance = 22 * 3**0.5
    assert np.allclose(errors.used_mpjpe_mm, distance / 22) and np.allclose(errors.mpjpe_mm, 3 * distance / 32)


def test_starter_and_simlpe(capsys):
    assert pw3d.main(["--model", "simlpe", *SMALL, "--out", "s"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no --data-root, and no 3dpw") and "using the starter set" in out and "starter set: " in out
    assert pw3d.main(["--evaluate", "s/last.pt"]) == 0
    assert "--model simlpe" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--sampling", "256"], "starter set has only 'all'"),
        (["--model", "pdk"], "did you mean 'pkd'"),
        (["--batch-size", "100000", "--out", "x"], "the training set has only"),
        (["--data-root", "nowhere"], "no such folder"),
        (["--num", "0"], "--num"),
        (["--render", "a.png"], "expected a name in"),
    ],
)
def test_refusals(argv, words):
    with pytest.raises(ValueError, match=words):
        cmu.main(argv)


def test_pooling_over_windows_or_actions():
    one, two = (
        pkd.ForecastErrors(np.full(25, 10.0), np.full(25, 20.0), 1),
        pkd.ForecastErrors(np.zeros(25), np.zeros(25), 3),
    )
    groups = {"a": one, "b": two, "empty": pkd.ForecastErrors(np.zeros(25), np.zeros(25), 0)}
    assert pkd.report_of(groups, data.CMU).figures["80"] == 2.5  # windows pooled
    assert pkd.report_of(groups, data.H36M).figures["80"] == 5.0  # mean of actions
    assert pkd.report_of(groups, data.CMU, used=True).figures["1000"] == 5.0
