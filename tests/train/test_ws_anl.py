"""WS-ANL's training on synthetic clips, its test with hypotheses, and MPI-INF-3DHP."""

import json
import re

import numpy as np
import pytest
import torch

from posekernels.archive import read_checkpoint, write_npz
from posekernels.cli import run_cli
from posekernels.models import create
from posekernels.models.load import published_state
from posekernels.train import h36m, mpi_inf_3dhp
from posekernels.train.recipes.ws_anl import SigmaLoader
from tests.people.films import film_in
from tests.train.synthetic import synthetic


@pytest.fixture
def data(monkeypatch):
    data = synthetic(12)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    return data


def run(capsys, main, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: main([str(a) for a in arguments]))
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


def train(capsys, tmp_path, lifter, *more):
    size = ["--layers", 1, "--channel", 24, "--d_hid", 16] if lifter == "htnet" else []
    brief = ["--lifter_epochs", 2, "--epochs", 2, "-b", 32, "--no-progress", "--sigma_cache", tmp_path / "sigma"]
    start = ["--model", "ws_anl", "--lifter", lifter, "--out", tmp_path / lifter]
    return run(capsys, h36m.main, *start, *size, *brief, *more)


def test_a_first_stage_that_does_not_fit_names_the_option_of_its_batch(tmp_path, capsys, data, monkeypatch):
    monkeypatch.setattr("posekernels.train.loop.free_memory", lambda: 1 << 10)
    for given, batch in (((), 20), (("--lifter_batch_size", 8), 8)):  # 20: all there is
        code, _, error = train(capsys, tmp_path / str(batch), "htnet", *given)
        assert code == 2 and f"--lifter_batch_size {batch}: a step needs" in error and "--batch-size" not in error


def test_a_cache_that_cannot_be_written_is_told_before_the_training(tmp_path, capsys, data):
    (tmp_path / "file").touch()
    code, printed, error = train(capsys, tmp_path, "mgcn_lw", "--sigma_cache", tmp_path / "file" / "sigma")
    assert code == 2 and "error: --sigma_cache" in error and "epoch 1" not in printed


@pytest.mark.parametrize("lifter", ["mgcn_lw", "htnet"])
def test_trains_lifter_then_variance_and_samples(tmp_path, capsys, data, monkeypatch, lifter):
    monkeypatch.setattr("posekernels.train.recipes.ws_anl.CURVE", (1, 3, 6))
    curve = tmp_path / "curve.json"
    sampling = "--train", "--mutilhyp_test", "--sample_nums", 5, "--curve", curve
    code, printed, error = train(capsys, tmp_path, lifter, *sampling)
    assert code == 0, error
    assert all(
        word in printed
        for word in ("P1", "P2", "single P1", "spread", "mean P1", "median P1", "reprojected P1", "average")
    )
    best = read_checkpoint(tmp_path / lifter / "best.pt")
    assert best["stage"] == 1 and best["epoch"] == 1  # the last epoch is kept
    before = read_checkpoint(tmp_path / lifter / "best-stage1.pt")["weights"]
    assert all(torch.equal(before[k], v) for k, v in best["weights"].items() if k.startswith("lifter."))
    assert any(not torch.equal(before[k], v) for k, v in best["weights"].items() if k.startswith("variance."))
    saved = json.loads(curve.read_text())
    for name in ("ws_anl", "random"):
        assert all(a >= b for a, b in zip(saved[name]["P1"], saved[name]["P1"][1:]))
    caches = set((tmp_path / "sigma").iterdir())
    assert len(caches) == 2  # training and test clips

    # the checkpoint comes back with its lifter, and so do its figures; another chunk changes nothing
    code, again, error = run(
        capsys, h36m.main, "--model", "ws_anl", "--evaluate", tmp_path / lifter / "best.pt", "--multihyp_test",
        "--samples", 5, "--chunk", 64, "--render", tmp_path / "x.html",
    )  # fmt: skip
    assert code == 0, error
    assert again.splitlines()[-3:] == [*printed.splitlines()[-2:], f"wrote {tmp_path / 'x.html'}"]
    shown = film_in(tmp_path / "x.html")
    assert shown["bodies"][0]["cloud"]["width"] == 20 * 3 * len(shown["joints"]), "20 hypotheses"


def test_sigma_targets_follow_the_lifter(tmp_path, capsys, data):
    assert train(capsys, tmp_path, "mgcn_lw")[0] == 0
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "sigma").iterdir()}
    own = tmp_path / "lifter.pth"
    torch.save(published_state(create("mgcn_lw")), own)
    code, _, error = train(capsys, tmp_path, "mgcn_lw", "--lifter_checkpoint", own, "--overwrite")
    assert code == 0, error
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "sigma").iterdir()}
    assert len(now) == 4 and all(now[p] == t for p, t in first.items())
    assert train(capsys, tmp_path, "mgcn_lw", "--lifter_checkpoint", own, "--overwrite")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "sigma").iterdir()} == now


def test_two_processes_share_a_batch():
    x = torch.arange(11.0).view(-1, 1, 1, 1)
    whole, halves = SigmaLoader(x, x, 4, 1, 0, 1), [SigmaLoader(x, x, 4, 1, rank, 2) for rank in (0, 1)]
    for loader in (whole, *halves):
        loader.set_epoch(3)
    for batch, *parts in zip(whole, *halves, strict=True):
        rows = torch.cat([p.keypoints for p in parts]).flatten()
        assert sorted(rows.tolist()) == sorted(batch.keypoints.flatten().tolist()) and parts[0].total == batch.total


def write_3dhp(folder, scale=1.0, metre=1.0):
    random = np.random.default_rng(0)
    poses = {
        s: {"Seq1": [random.normal(size=(4, 17, 3)).astype(np.float32) * 0.3 * metre]} for s in mpi_inf_3dhp.SUBJECTS
    }
    points = {
        s: {"Seq1": [(random.uniform(500, 900, size=(5, 17, 2)) * scale).astype(np.float32)]}
        for s in mpi_inf_3dhp.SUBJECTS
    }
    write_npz(folder / "data_3d_3dhp.npz", positions_3d=np.array(poses, dtype=object))
    write_npz(folder / "data_2d_3dhp_gt.npz", positions_2d=np.array(points, dtype=object))


def published_pair(folder):
    torch.manual_seed(0)
    files = {}
    for role, name in (("lifter", "mgcn_lw"), ("variance", "variance_linear")):
        files[role] = folder / f"{role}.pth"
        torch.save(published_state(create(name)), files[role])
    return files


def test_published_command_lines(tmp_path, capsys, data):
    files = published_pair(tmp_path)
    start = ["--model", "ws_anl", "--shhpe_model", "mgcn_lw", "--lifter_checkpoint", files["lifter"]]
    with pytest.warns(UserWarning, match="--gpu"):
        code, printed, error = run(
            capsys, h36m.main, *start, "--sample_nums", 4, "--mutilhyp_test", "--gpu", 1, "--dataset", "h36m",
            "--evaluate", files["variance"],
        )  # fmt: skip
    assert code == 0 and "reprojected P1" in printed, error
    code, _, error = run(capsys, h36m.main, *start, "--dataset", "3dhp")
    assert code == 2 and "train.mpi_inf_3dhp" in error
    for option in ("--large_decay_epoch", "--lifter_epochs", "--channel"):
        code, _, error = run(capsys, h36m.main, *start, option, 0)
        assert code == 2 and option in error
    torch.save(published_state(create("htnet")), tmp_path / "z.pth")
    (tmp_path / "htnet").mkdir()
    (tmp_path / "z.pth").rename(tmp_path / "htnet/z.pth")
    code, printed, error = run(capsys, h36m.main, "--model", "htnet", "--reload", "--previous_dir", tmp_path / "htnet")
    assert code == 0 and "average" in printed, error
    both = ["--evaluate", tmp_path / "htnet/z.pth", "--reload", "--previous_dir", tmp_path / "htnet"]
    for pair in (both, ["--resume", "--out", tmp_path / "run", *both[2:]]):
        code, _, error = run(capsys, h36m.main, "--model", "htnet", *pair)
        assert code == 2 and f"--reload and {pair[0]} exclude each other" in error
    code, _, error = run(capsys, h36m.main, "--model", "htnet", "--reload", "--previous_dir", tmp_path / "none")
    assert code == 2 and "no .pth file" in error


def test_3dhp(tmp_path, capsys):
    write_3dhp(tmp_path)
    files = published_pair(tmp_path)
    pair = ["--lifter", "mgcn_lw", "--lifter_checkpoint", files["lifter"], "--variance_checkpoint", files["variance"]]
    main = mpi_inf_3dhp.main
    code, printed, error = run(capsys, main, "--data-root", tmp_path, *pair, "--multihyp_test", "--samples", 4)
    assert code == 0, error
    assert "24 frames, best of 4, alpha 0.01" in printed and "MPI-INF-3DHP  [  pck: " in printed
    out = "--out", tmp_path / "figures"
    code, printed, error = run(capsys, main, "--data-root", tmp_path, *pair, "--group", "outdoor", *out)
    assert code == 0 and "8 frames, single pose" in printed
    assert "PCK" in json.loads((tmp_path / "figures/evaluation.json").read_text())["figures"]
    code, _, error = run(capsys, main, "--data-root", tmp_path, *pair[:2], "--evaluate", files["variance"])
    assert code == 2 and "name the lifter with --lifter_checkpoint" in error
    code, _, error = run(capsys, main, "--data-root", tmp_path, *pair, "--dataset", "h36m")
    assert code == 2 and "train.h36m" in error
    code, _, error = run(capsys, main, "--data-root", tmp_path, *pair, "--out", tmp_path / "run", "--resume")
    assert code == 2 and "--resume: train.mpi_inf_3dhp trains nothing" in error  # and no fresh network is tested
    code, _, error = run(capsys, main, "--data-root", tmp_path, "-k", "hrnet_coc", *pair)
    assert code == 2 and "keypoints here: gt" in error and len(error.splitlines()) == 1
    write_3dhp(tmp_path, metre=1000)
    code, _, error = run(capsys, main, "--data-root", tmp_path, *pair)
    assert code == 2 and "expected metres" in error


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--samples", "0"], "at least 1 hypothesis, got 0"),
        (["--alpha", "-0.1"], "noise scale of at least 0, got -0.1"),
        (["--lifter", "htnett"], "invalid choice: 'htnett'"),
        (
            ["--lifter", "mgcn_lw", "--lifter_checkpoint", "VARIANCE"],
            r"looks like a file for create\('variance_linear'",
        ),
        (
            ["--lifter", "mgcn_lw", "--lifter_checkpoint", "LIFTER", "--variance_checkpoint", "LIFTER"],
            r"does not fit Var.*'mgcn_lw'",
        ),
        (["--lifter", "mgcn_lw", "--evaluate", "VARIANCE"], "name the lifter with --lifter_checkpoint"),
    ],
)
def test_refusals(tmp_path, capsys, data, arguments, words):
    files = published_pair(tmp_path)
    arguments = [{"LIFTER": files["lifter"], "VARIANCE": files["variance"]}.get(a, a) for a in arguments]
    code, _, error = run(capsys, h36m.main, "--model", "ws_anl", "--out", tmp_path / "run", "--epochs", 1, *arguments)
    assert code == 2 and re.search(words, error) and len(error.splitlines()) == 1, error
