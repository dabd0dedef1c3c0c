import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.train import loop, recipes
from posekernels.train.job import Job, Result
from posekernels.train.loop import Ema, Interrupted, Loop
from posekernels.train.place import Place, run_place
from posekernels.train.run_folder import curve, open_folder
from tests.train.synthetic import synthetic
from tests.train.toy import Toy, options, toy_parser, train


def weights(folder, file="last.pt"):
    return read_checkpoint(folder / file)


def without_seconds(history):
    return [{k: v for k, v in r.items() if "seconds" not in k} for r in history]


def interrupt_at(*moments, by=signal.SIGINT):
    """A signal when the given batches (counted over the stage) have been trained; each once."""
    left = list(moments)

    def hook(step):
        if left and step == left[0]:
            left.pop(0)
            os.kill(os.getpid(), by)

    return hook


@pytest.mark.parametrize(  # 12 batches an epoch: within epochs, and after their last batches
    "moment, by", [(2, signal.SIGINT), (11, signal.SIGTERM), (12, signal.SIGINT), (17, signal.SIGHUP)]
)
def test_an_interrupted_run_continued_is_the_unbroken_run(tmp_path, capsys, moment, by):
    _, whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted, match="--resume"):
        train(tmp_path / "broken", interrupt_at(moment, by=by))
    capsys.readouterr()
    _, resumed = train(tmp_path / "broken", resume="last.pt")
    epoch, batch = divmod(moment, 12)
    told = (
        f"goes on at epoch {epoch + 1} of 3, after {batch + 1} of 12 batches, from {tmp_path / 'broken' / 'last.pt'}\n"
    )
    assert capsys.readouterr().out.startswith(told)
    assert len(whole) == 3 and weights(tmp_path / "whole")["step"] == 36
    assert without_seconds(resumed) == without_seconds(whole)
    for part in ("weights", "ema"):
        a, b = (weights(tmp_path / name)[part] for name in ("whole", "broken"))
        assert all(torch.equal(a[k], b[k]) for k in a)
    logged = [json.loads(line) for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()]
    assert without_seconds(logged) == without_seconds(whole)


@pytest.mark.parametrize("moment", [5, 17])
def test_a_run_that_is_killed_goes_on_from_within_the_epoch(tmp_path, monkeypatch, moment):
    """last.pt is written by the clock; what was trained after it is trained again, to the bit."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    _, whole = train(tmp_path / "whole")

    def killed(step):
        if step == moment:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(tmp_path / "broken", killed)
    assert weights(tmp_path / "broken")["step"] == moment and weights(tmp_path / "broken")["batch"] == moment % 12
    _, resumed = train(tmp_path / "broken", resume="last.pt")
    assert without_seconds(resumed) == without_seconds(whole)
    for part in ("weights", "ema"):
        a, b = (weights(tmp_path / name)[part] for name in ("whole", "broken"))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_full_disk_leaves_the_last_save(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    left, real = [6], loop.save_checkpoint

    def save(state, path):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device", str(path))
        real(state, path)

    _, whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        with pytest.raises(OSError, match="No space"):
            train(tmp_path / "broken")
    _, resumed = train(tmp_path / "broken", resume="last.pt")
    assert without_seconds(resumed) == without_seconds(whole)


def test_what_a_step_and_an_epoch_cost_is_known_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "free_memory", lambda: 1 << 10)
    with pytest.raises(
        ValueError, match=r"--batch-size 32: a step needs about .* GiB of memory.*not even one sample fits"
    ):
        train(tmp_path / "a")
    monkeypatch.setattr(loop, "free_memory", lambda: 60_000)  # weights and gradients, and a few samples
    with pytest.raises(ValueError, match=r"--batch-size 32: .*at most \d+ fit"):
        train(tmp_path / "b")
    monkeypatch.setattr(loop, "free_memory", lambda: None)
    monkeypatch.setattr(loop.trial, "LONG", 0.0)
    train(tmp_path / "c", epochs=1)
    assert "an epoch takes about" in capsys.readouterr().out
    assert loop.trial.words(114 * 3600) == "about 5 days" and loop.trial.words(150) == "about 2 minutes"


def test_an_evaluation_is_left_at_once_and_made_again_by_the_resumed_run(tmp_path, monkeypatch):
    """The last one too, after which there is no step to wait for."""
    _, whole = train(tmp_path / "whole")
    evaluations, real = [], Toy.evaluate

    def evaluate(self, place):
        evaluations.append(len(evaluations))
        if len(evaluations) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            evaluations.append("went on")
        return real(self, place)

    monkeypatch.setattr(Toy, "evaluate", evaluate)
    with pytest.raises(Interrupted, match="--resume"):
        train(tmp_path / "broken")
    assert evaluations == [0, 1, 2]
    _, resumed = train(tmp_path / "broken", resume="last.pt")
    assert without_seconds(resumed) == without_seconds(whole)


def test_stages_start_from_the_best_before_and_resume(tmp_path):
    recipe, whole = train(tmp_path / "whole", stages=2)
    assert recipe.seen == [(0, False), (1, True)] and [r["stage"] for r in whole] == [0, 0, 0, 1, 1, 1]
    first, second = weights(tmp_path / "whole", "best-stage1.pt"), weights(tmp_path / "whole", "best.pt")
    frozen, free = "body.1.weight", "body.4.weight"
    assert torch.equal(first["weights"][frozen], second["weights"][frozen])
    assert not torch.equal(first["weights"][free], second["weights"][free])

    batches = []

    def hook(step):
        batches.append(step)
        if len(batches) == 40:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(tmp_path / "broken", hook, stages=2)
    recipe, resumed = train(tmp_path / "broken", stages=2, resume="last.pt")
    assert recipe.seen == [(0, False), (1, False)]
    assert without_seconds(resumed) == without_seconds(whole)
    a, b = (weights(tmp_path / n, "best.pt")["weights"] for n in ("whole", "broken"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_longer_training_continues_a_finished_run(tmp_path, capsys):
    train(tmp_path / "long", epochs=3)
    train(tmp_path / "short", epochs=2)
    assert "goes on" not in capsys.readouterr().out
    train(tmp_path / "short", epochs=3, resume="last.pt")
    last = tmp_path / "short" / "last.pt"
    assert capsys.readouterr().out.startswith(f"goes on at epoch 3 of 3, from {last}\n")
    train(tmp_path / "short", epochs=3, resume="last.pt")
    assert capsys.readouterr().out == f"all 3 epochs are in {last}\n"
    a, b = (weights(tmp_path / n)["weights"] for n in ("long", "short"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_resumed_run_takes_new_rates(tmp_path):
    train(tmp_path, epochs=1)
    _, history = train(tmp_path, epochs=2, lr=1e-4, resume="last.pt")
    assert [r["lr"] for r in history] == pytest.approx([5e-3, 1e-4 * 0.9])
    assert json.loads((tmp_path / "options.json").read_text())["lr"] == 1e-4
    groups = weights(tmp_path)["optimizers"][0]["param_groups"]
    assert [g["initial_lr"] for g in groups] == [1e-4, 1e-3], "the second group has a rate of its own"


@pytest.mark.parametrize("change", [{"batch_size": 16}, {"seed": 2}, {"dropout": 0.5}], ids=str)
def test_what_a_resumed_run_cannot_change_is_refused(tmp_path, change):
    train(tmp_path, epochs=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"--resume.*{next(iter(change))}=.*cannot change"):
        train(tmp_path, epochs=2, resume="last.pt", **change)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    train(tmp_path / "one", dropout=0.0, batch_size=31)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.train.toy", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=120, capture_output=True)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["step"] == two["step"] == 36  # the last batch is odd: 12 + 11 samples, weighed as such
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=1e-4, atol=1e-5)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["P1"] == pytest.approx(a["P1"], rel=1e-4) and b["loss"] == pytest.approx(a["loss"], rel=1e-4)


def test_best_is_the_lowest_and_is_what_the_recipe_ends_with(tmp_path):
    recipe, history = train(tmp_path, epochs=5, lr=0.3)  # a rate that bounces
    best = weights(tmp_path, "best.pt")
    assert best["figures"]["P1"] == min(r["P1"] for r in history)
    state = recipe.model.state_dict()
    assert all(torch.equal(state[k], best["weights"][k]) for k in state)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.pt",
        "curve.png",
        "last.pt",
        "log.jsonl",
        "options.json",
    ]


def test_epochs_that_are_not_tested_show_no_time_of_a_test(tmp_path, capsys):
    train(tmp_path, eval_every=2)  # of 3 epochs; the last one is always tested
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert ["test_seconds" in line for line in lines] == [False, True, True]


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_of_a_curve_are_whole_numbers(tmp_path, monkeypatch, epochs):
    def ticks(figure, path):
        for axes in figure.axes:
            found = axes.get_xticks()
            assert len(found) and (found == found.round()).all()
        assert figure.axes[1].get_title() == "P1 (MPJPE) on the test clips, mm"

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", ticks)
    curve([{"loss": 1.0}] * (epochs - 1) + [{"loss": 1.0, "P1": 3.0}], "P1", tmp_path / "curve.png")


def test_ema_is_the_published_average():
    net = torch.nn.Linear(2, 1)
    ema, shadow = Ema(net, 0.75), net.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            net.weight.add_(1)
        ema.update()
        shadow = 0.75 * shadow + 0.25 * net.weight.detach()
    torch.testing.assert_close(ema.state_dict()["weight"], shadow)
    raw = net.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(net.weight.detach(), shadow)
    assert torch.equal(net.weight.detach(), raw)


def test_gradients_are_clipped_and_groups_keep_their_own_rates(tmp_path):
    rates, norms = [], []

    def look(optimizer):
        rates.append([g["lr"] for g in optimizer.param_groups])
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in grads]).norm().item())

    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: look(optimizer))
    try:
        train(tmp_path, epochs=2, clip=1e-3)
    finally:
        hook.remove()
    assert max(norms) <= 1e-3 * 1.001
    assert rates[0] == pytest.approx([5e-3 / 4, 1e-3 / 4]) and rates[-1] == pytest.approx([5e-3 * 0.9, 1e-3 * 0.9])


def test_a_run_is_not_overwritten(tmp_path):
    train(tmp_path / "run", epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="--resume.*--overwrite"):
        train(tmp_path / "run", epochs=1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    train(tmp_path / "run", epochs=1, overwrite=True, seed=5)
    assert (tmp_path / "run" / "last.pt").read_bytes() != before["last.pt"]


def test_a_run_that_saved_nothing_is_not_in_the_way(tmp_path):
    """One that failed at its first step leaves its options and an empty log; it cannot be resumed."""
    for name, text in {"log.jsonl": "", "options.json": "{}"}.items():
        (tmp_path / name).write_text(text)
    train(tmp_path, epochs=1)
    (tmp_path / "last.pt").unlink()
    with pytest.raises(ValueError, match=r"a run is in it \(best.pt, log.jsonl\); replace it with --overwrite"):
        train(tmp_path, epochs=1)


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write there"):
        train(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="saves last.pt"):
        train(tmp_path / "empty", resume="last.pt")
    assert not (tmp_path / "empty").exists()


def test_checkpoints_that_cannot_be_resumed(tmp_path):
    train(tmp_path, epochs=1)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save(read_checkpoint(tmp_path / "last.pt") | {"model": "rie"}, tmp_path / "rie.pt")
    for file, message in (
        ("cut.pt", "truncated"),
        ("other.pt", "not a checkpoint to resume"),
        ("rie.pt", "--model rie"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(tmp_path, resume=file)
    assert (tmp_path / "last.pt").read_bytes() == whole


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match="the loss is (nan|inf) in epoch"):
        train(tmp_path, lr=1e30, clip=0.0)


@pytest.mark.parametrize("name, moment", [("loss", 14), ("loss2", 23), ("twice", 23)])
def test_what_was_saved_before_the_loss_diverged_is_kept(tmp_path, name, moment):
    """12 batches an epoch: within the second, and in its last batch, where only one of the losses tells."""
    recipe = None

    def diverge(step):
        if step != moment:
            return
        if name == "loss":
            torch.nn.init.constant_(recipe.model.body[1].weight, float("nan"))
        else:
            loop.at.losses[name][0].fill_(float("nan"))

    chosen = options(tmp_path)
    with run_place("cpu") as place:
        recipe = Toy(chosen, synthetic())
        recipe.hook = diverge
        loop = Loop(recipe, chosen, place, tmp_path, SimpleNamespace(asked=False, at_once=contextlib.nullcontext))
        with pytest.raises(ValueError, match=f"the {'(loss|twice)' if name == 'loss' else name} is nan in epoch 2"):
            loop.run()
    last = weights(tmp_path)
    assert last["epoch"] == 1 and all(t.isfinite().all() for t in last["weights"].values())


def test_a_loss_that_is_not_finite_elsewhere_stops_every_process(tmp_path):
    place = SimpleNamespace(gather=lambda mine: [mine, {"loss": float("nan")}])
    loop = Loop(Toy(options(tmp_path), synthetic()), options(tmp_path), place, tmp_path, None)
    loop.at.losses = {"loss": [torch.tensor(1.0), 1]}
    with pytest.raises(ValueError, match="the loss is nan"):
        loop.mean_losses()


def test_places():
    with pytest.raises(ValueError, match="tf32 needs a CUDA device"), run_place("cpu", "tf32"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"), run_place("cuda"):
            pass


def test_bf16_trains(tmp_path):
    chosen = options(tmp_path, precision="bf16")
    assert chosen.precision == "bf16"
    with run_place("cpu", "bf16") as place, place.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype == torch.bfloat16


def test_published_programs_count_epochs_from_one():
    assert toy_parser().parse_args(["--nepoch", "21"]).epochs == 20
    assert toy_parser().parse_args(["--epochs", "21"]).epochs == 21
    with pytest.raises(ValueError, match="--nepoch"):
        toy_parser().parse_args(["--nepoch", "1"])


HOLD = """
import sys, time
from posekernels.train.run_folder import lock
lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_has_one_run_at_a_time_and_what_a_killed_one_left_goes(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline() == "held\n"
        left = folder / f".last-aside-{child.pid}.pt"
        left.touch()
        with pytest.raises(ValueError, match=f"--out {folder}: another run is writing there"):
            open_folder(SimpleNamespace(out=str(folder), resume=None, overwrite=False), Place(), "toy")
        child.kill()
    assert open_folder(SimpleNamespace(out=str(folder), resume=None, overwrite=False), Place(), "toy") == folder
    assert not left.exists()


def test_runs_in_one_process_leave_nothing(tmp_path, monkeypatch):
    """Nor wait for Python to look for cycles, which it does by the number of objects and not by their size."""
    data, left = synthetic(), []

    class OneJob(Job):
        name, about, model, usual = "toy", "", "toy", Toy.defaults(starter=True) | {"dropout": 0.2, "two_losses": True}

        def add_data_arguments(self, group):
            group.add_argument("--data-root")

        def load(self, options):
            return data

        def test(self, recipe, place, step):
            left.append(weakref.ref(recipe.model))
            return Result("", {})

    monkeypatch.setattr(recipes, "find", lambda *names: Toy)
    gc.disable()
    try:
        assert OneJob().run(["--out", str(tmp_path / "a"), "--epochs", "1", "--no-progress"]) == 0
        assert left[0]() is None
    finally:
        gc.enable()
