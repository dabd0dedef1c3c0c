import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import read_checkpoint
from posekernels.cli import Notice, run_cli
from posekernels.models.load import published_state
from posekernels.train import h36m, recipes
from posekernels.train.evaluate import Report, evaluate_clips, evaluate_mean_pose, mean_pose, target_of
from posekernels.train.place import Place
from posekernels.train.recipes._lifting import Windows
from tests.train import fake_h36m
from tests.train.synthetic import synthetic

SMALL = ["--layers", "1", "--channel", "24", "--d_hid", "16", "--epochs", "1", "-b", "32", "--no-progress"]


@pytest.fixture
def data(monkeypatch):
    """The starter set's place is taken by a few synthetic clips."""
    data = synthetic(24)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    return data


def run(capsys, *arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: h36m.main([str(a) for a in arguments]))
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


def test_memory_that_runs_out_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(h36m, "main", lambda _: torch.empty(2**60))
    assert run(capsys)[0] == 2

    def failing(_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(h36m, "main", failing)
    with pytest.raises(RuntimeError, match="mistake"):
        run_cli(lambda: h36m.main([]))


def test_main_job_trains_evaluates_and_draws(tmp_path, capsys, data):
    out = tmp_path / "run"
    code, printed, _ = run(capsys, *SMALL, "--out", out, "--render", "walk.gif", "--viz-limit", 3, "--by-subject")
    assert code == 0
    assert "starter set" in printed and "synthetic: 4 test clips" in printed
    assert all(
        word in printed for word in ("P1", "P2", "P3", "MPJVE", "Walking", "Sitting", "average", "mean pose", "S9")
    )
    assert "P1: MPJPE; P2: P-MPJPE, aligned; P3: N-MPJPE, scaled; MPJVE: of the step from frame to frame" in printed
    files = {"best.pt", "last.pt", "log.jsonl", "options.json", "curve.png", "evaluation.json", "walk.gif"}
    assert {p.name for p in out.iterdir()} == files
    saved = json.loads((out / "evaluation.json").read_text())
    assert saved["data"] == "synthetic" and saved["figures"]["P1"] == read_checkpoint(out / "best.pt")["figures"]["P1"]

    # the checkpoint knows its sizes and its system; its figures come back
    picture = tmp_path / "again.gif"
    code, again, _ = run(capsys, "--evaluate", out / "best.pt", "--render", picture, "--viz-limit", 2)
    again, wrote = again.splitlines()[:-1], again.splitlines()[-1]
    assert code == 0 and len(again) == 10  # a line on the data, and the table
    assert "\n".join(again[1:]) in printed
    assert wrote == f"wrote {picture}" and picture.is_file()


def test_a_published_checkpoint_is_evaluated(tmp_path, capsys, data):
    torch.manual_seed(0)
    net = models.create("htnet", depth=1, channels=24, hidden=16)
    torch.save({f"module.{k}": v for k, v in published_state(net).items()}, tmp_path / "published.pth")
    code, printed, _ = run(capsys, *SMALL, "--evaluate", tmp_path / "published.pth")
    assert code == 0
    net.eval()

    def predict(clip):
        from posekernels.pose.skeleton import H36M_17

        order = list(H36M_17.mirrored)
        x = torch.from_numpy(clip.keypoints)[:, None]
        with torch.no_grad():
            plain, mirrored = net(x)[:, 0], net((x * torch.tensor([-1.0, 1]))[:, :, order])[:, 0]
        pose = (plain + (mirrored * torch.tensor([-1.0, 1, 1]))[:, order]) / 2
        pose[:, 0] = 0
        return pose

    want = Report.of(evaluate_clips(predict, data.test, Place())).figures
    average = next(line for line in printed.splitlines() if line.startswith("average"))
    assert average.split()[1:] == [f"{want[c]:.{2 if c == 'MPJVE' else 1}f}" for c in want]


def test_published_files_are_read(tmp_path, capsys):
    fake_h36m.write(tmp_path, *fake_h36m.tables(("S1", "S5", "S6", "S7", "S8", "S9", "S11")))
    code, printed, error = run(
        capsys, *SMALL, "--data-root", tmp_path, "-k", "gt", "-a", "Sitting", "--out", tmp_path / "r"
    )
    assert code == 0, error
    assert "Human3.6M (gt)" in printed and "SittingDown" in printed and "Walking" not in printed
    assert "starter" not in printed


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--model", "htnt"], "did you mean 'htnet'"),
        (["--model", "pdk"], "did you mean 'pkd'"),
        (["--epoch", "3"], "did you mean '--epochs'"),
        (["--epcohs", "3"], "did you mean '--epochs'"),
        (["--epochs", "none"], "--epochs"),
        (["--evaluate", "missing.pt"], "missing.pt: no such checkpoint"),
        (["--evaluate", "a.pt", "--resume"], "exclude each other"),
        (["--data-root", "missing"], "missing"),
        (["--resume"], "--resume needs --out"),
        (["--channel", "25", "--epochs", "1"], "multiple of 24"),
        (["--render", "x.avi", *SMALL], "x.avi"),
        (["--render", "nodir/x.gif", *SMALL], "--render nodir/x.gif: there is no folder nodir"),
        (["--viz-export", "nodir/x.npy", *SMALL], "--viz-export nodir/x.npy: there is no folder nodir"),
        (["--model", "pkd", "--render", "nodir/x.gif"], "--render nodir/x.gif: there is no folder nodir"),
        (["--viz-action", "Wlking", "--render", "x.gif", *SMALL], "did you mean 'Walking'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, capsys, monkeypatch, data, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *arguments)
    assert code == 2 and error.count("\n") == 1 and expected in error
    assert not list(tmp_path.rglob("*.pt")), "a mistake in the options must be found before the training"


def test_misspelt_actions_of_the_starter_set(tmp_path, capsys):
    for action in ("Walkng", "Wlaking"):
        code, _, error = run(capsys, "-a", action, "--out", tmp_path / "r")
        assert code == 2 and "did you mean 'Walk'" in error and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "-1"), ("--lr", "nan"), ("--clip", "-1"), ("--lr_decay", "inf"), ("--subjects-train", "S1")],
)
def test_what_cannot_be_done_is_told_before_there_is_a_folder(tmp_path, capsys, data, option, value):
    code, _, error = run(capsys, *SMALL, option, value, "--out", tmp_path / "r")
    assert code == 2 and option in error and not (tmp_path / "r").exists()


def test_shares_are_below_one(tmp_path, capsys):
    for command in ("--model rie -drop 1", "--model mixste --drop_path 3", "--model diffpose --ema_rate 2"):
        code, _, error = run(capsys, *command.split(), "--out", tmp_path / "r")
        assert code == 2 and "at least 0 and below 1" in error


def test_help_names_forecasters_too(capsys):
    with pytest.raises(SystemExit):
        h36m.main(["--help"])
    assert "pkd" in (printed := capsys.readouterr().out) and "simlpe" in printed and "htnet" in printed


def test_wrong_checkpoints(tmp_path, capsys, data):
    assert run(capsys, *SMALL, "--out", tmp_path / "r")[0] == 0
    good = (tmp_path / "r" / "best.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    damaged = shutil.copytree(tmp_path / "r", tmp_path / "damaged")
    (damaged / "last.pt").write_bytes((damaged / "last.pt").read_bytes()[:5000])
    torch.save({"x": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({"x": torch.nn.Linear(1, 1)}, tmp_path / "module.pth")
    (tmp_path / "empty.pt").touch()
    torch.save(read_checkpoint(tmp_path / "r" / "best.pt") | {"model": "rie"}, tmp_path / "rie.pt")
    for arguments, expected in (
        (["--evaluate", tmp_path / "cut.pt"], "truncated"),
        (["--evaluate", tmp_path / "other.pth"], "does not fit HTNet"),
        (
            ["--evaluate", tmp_path / "module.pth"],
            "containers (it holds the name torch.nn.modules.linear.Linear, which is refused)",
        ),
        (["--evaluate", tmp_path / "empty.pt"], "(truncated, empty or another kind of file"),
        (["--evaluate", tmp_path / "rie.pt", "--model", "htnet"], "--model rie"),
        (["--evaluate", tmp_path / "r" / "best.pt", "--channel", 48], "does not fit HTNet"),
        ([*SMALL, "--out", tmp_path / "r"], "--overwrite"),
        (["--resume", "--out", damaged], f"{damaged / 'best.pt'} beside it is whole, the weights of epoch 1"),
    ):
        code, _, error = run(capsys, *arguments)
        assert code == 2 and error.count("\n") == 1 and expected in error
    assert (tmp_path / "r" / "best.pt").read_bytes() == good
    (damaged / "best.pt").write_bytes(good[:5000])
    assert "beside it" not in run(capsys, "--resume", "--out", damaged)[2]
    net = models.load(tmp_path / "r" / "best.pt")
    assert net.about.network == "htnet" and not net.training
    assert re.fullmatch(r"a run of --model htnet: P1 [\d.]+, .*", net.about.made)


def test_resume_takes_the_options_of_the_run(tmp_path, capsys, data):
    out = tmp_path / "r"
    assert run(capsys, *SMALL, "--out", out, "--seed", 7)[0] == 0
    assert run(capsys, "--out", out, "--resume", "--epochs", 2)[0] == 0
    options = json.loads((out / "options.json").read_text())
    assert (options["seed"], options["channel"], options["epochs"]) == (7, 24, 2)
    assert len((out / "log.jsonl").read_text().splitlines()) == 2


def test_evaluation_is_the_same_however_it_is_sharded(data):
    def predict(clip):
        return target_of(clip) * 1.1

    class Part(Place):
        def gather(self, value):
            return [value]

    class All(Place):
        def gather(self, value):
            return parts

    parts = []
    whole = evaluate_clips(predict, data.test, Place())
    for rank in range(3):
        mine = {}

        class Spy(Place):
            def gather(self, value, mine=mine):
                mine.update(value)
                return [value]

        evaluate_clips(predict, data.test, Spy(rank=rank, world=3))
        parts.append(mine)
    assert sum(map(len, parts)) == len(data.test)
    assert evaluate_clips(predict, data.test, All(rank=1, world=3)).records == whole.records


def test_the_mean_pose_is_the_mean(data):
    every = np.concatenate([target_of(c) for c in data.train])
    np.testing.assert_allclose(mean_pose(data.train), every.mean(0), atol=1e-6)
    figures = Report.of(evaluate_mean_pose(data.train, data.test, Place())).figures
    assert 50 < figures["P1"] < 500


def test_htnet_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: synthetic(60))
    small = ["--layers", 1, "--channel", 24, "--d_hid", 32, "-b", 16, "-lr", 5e-3, "--epochs", 24, "--eval-every", 24]
    small += ["-lrd", 1, "--large_decay_epoch", 20, "--every", 5]
    assert run(capsys, *small, "--no-progress", "--out", tmp_path / "r")[0] == 0
    report = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert report["figures"]["P1"] < 0.75 * report["mean_pose"]["P1"]


def test_htnet_learning_rate_is_the_published_one(tmp_path):
    options, recipe = h36m.JOB.parse(["--data-root", str(tmp_path), "--out", str(tmp_path)])
    assert (options.batch_size, options.lr) == (512, 5e-4)
    rates, rate = [], 1.0
    for epoch in range(1, 13):  # after each epoch x 0.95, or x 0.5 when it is a multiple of 5
        rates.append(rate)
        rate *= 0.5 if epoch % 5 == 0 else 0.95
    assert [recipe(options, synthetic(10)).lr_factor(e, 0) for e in range(12)] == pytest.approx(rates)


def test_windows_resume_at_any_epoch_and_share_every_batch(data):
    def epochs(**kwargs):
        return Windows(data.train, 10, *data.sides, augment=True, **kwargs)

    running = epochs()
    orders = []
    for _ in range(3):
        orders.append(np.concatenate([b.rows for b in running]))
    fresh = epochs()
    fresh.set_epoch(2)
    np.testing.assert_array_equal(np.concatenate([b.rows for b in fresh]), orders[2])
    assert len(fresh) == sum(1 for _ in fresh)
    parts = [list(epochs(rank=r, world=3)) for r in range(3)]
    for whole, shares in zip(epochs(), zip(*parts, strict=True), strict=False):
        assert sorted(map(tuple, whole.rows)) == sorted(tuple(row) for s in shares for row in s.rows)
    every = epochs(every=4)
    assert set(np.concatenate([b.rows for b in every])[:, 1] % 4) == {0}


def test_recipes_are_found_by_file_name():
    assert "htnet" in recipes.names("lifting") and recipes.find("htnet").name == "htnet"
    with pytest.raises(ValueError, match="for lifting, not motion"):
        recipes.find("htnet", "motion")


def test_ctrl_c_of_the_command_says_how_to_resume(tmp_path):
    root = Path(__file__).resolve().parents[2]
    small = ["--layers", "1", "--channel", "24", "--d_hid", "16", "-b", "256", "--epochs", "1000"]
    command = [
        sys.executable,
        "-m",
        "train.h36m",
        *small,
        "-a",
        "Walk",
        "--every",
        "40",
        "--eval-every",
        "1000",
        "--out",
        tmp_path / "r",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch 1"):
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in error and "Traceback" not in error
    assert read_checkpoint(tmp_path / "r" / "last.pt")["epoch"] >= 1


def test_help_shows_what_matters_and_help_published_the_rest(capsys):
    shown = {}
    for option in ("--help", "--help-published"):
        with pytest.raises(SystemExit):
            h36m.main(["--model", "strided_transformer", option])
        shown[option] = capsys.readouterr().out
    for name in ("--data-root", "--out", "--frames", "--render"):
        assert f"{name} " in shown["--help"] and f"{name} " in shown["--help-published"]
    for name in ("--viz-bitrate", "--workers", "--nepoch"):
        assert name not in shown["--help"] and name in shown["--help-published"], name
    with pytest.warns(Notice, match="--workers: without effect"):
        h36m.JOB.parse(["--model", "strided_transformer", "--workers", "4"])
