"""RIE's three stages: what each takes over, freezes and trains; what it refuses."""

import math

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import read_checkpoint
from posekernels.models import rie
from posekernels.train import h36m
from tests.train import fake_h36m

OPTIONS = ["--model", "rie", "-k", "gt", "-arc", "3,3", "-ch", "8", "-lfd", "8", "-b", "32", "--seed", "3"]


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    fake_h36m.write(tmp_path, *fake_h36m.tables(subjects, {"Walking": 6}))

    def run(out, *options):
        return h36m.main([*OPTIONS, "--data-root", str(tmp_path), "--out", str(tmp_path / out), *map(str, options)])

    run.folder = tmp_path
    return run


def weights(path):
    return read_checkpoint(path)["weights"]


def test_three_stages_in_one_run(train, capsys):
    assert train("all", "-e", 2) == 0
    first, second = (weights(train.folder / "all" / f"best-stage{n}.pt") for n in (1, 2))
    last = weights(train.folder / "all" / "last.pt")
    frozen = [n for n in second if n.startswith(("encoders.", "whole_body."))]
    learnt = [n for n in frozen if "running" not in n and "num_batches" not in n]
    assert all(torch.equal(first[n], second[n]) for n in learnt)
    assert any(not torch.equal(first[n], second[n]) for n in frozen if "running_mean" in n)  # published: they move on
    assert any(not torch.equal(last[n], second[n]) for n in learnt)  # stage 3 trains everything
    assert "P1" in capsys.readouterr().out


def test_stage_by_stage_and_interrupted_equals_at_once(train):
    train("one", "-e", 1, "--stage", 1)
    train("two", "-e", 1, "--stage", 2, "-p", train.folder / "one" / "best.pt")
    train("three", "-e", 1, "--stage", 3, "-ft", train.folder / "two" / "best.pt")
    assert (
        h36m.main([*OPTIONS, "--data-root", str(train.folder), "--evaluate", str(train.folder / "three/best.pt")]) == 0
    )


def test_momentum_of_the_encoders_only(train):
    from argparse import Namespace

    from posekernels.train.recipes.rie import RIERecipe

    recipe = RIERecipe.__new__(RIERecipe)
    recipe.options, recipe.number = Namespace(epochs=80), 1
    recipe.model = models.create("rie", filter_widths=(3,), latent=4, channels=4)
    recipe.start_epoch(1)
    assert recipe.model.encoders["torso"].expand_norm.momentum == pytest.approx(0.0944, abs=1e-4)
    recipe.start_epoch(40)
    assert recipe.model.encoders["torso"].expand_norm.momentum == pytest.approx(0.01)
    assert recipe.model.whole_body.first_norm.momentum == 0.1
    assert math.isclose(recipe.model.decoders["torso"].first_norm.momentum, 0.1)


def test_the_root_counts_as_any_other_joint(train):
    """Published: it is measured against 0 and exported as predicted."""
    assert train("one", "-e", 1, "--stage", 1) == 0
    options = [*OPTIONS, "--data-root", str(train.folder), "--evaluate", str(train.folder / "one" / "best.pt")]
    assert h36m.main([*options, "--render", "--viz-export", str(train.folder / "poses.npy")]) == 0
    assert np.linalg.norm(np.load(train.folder / "poses.npy")[:, 0], axis=-1).min() > 1e-4


@pytest.mark.parametrize(
    "options, message",
    [
        (("-s", 2), "--stride: only 1 works"),
        (("--stage", 2), "--stage 2 needs -p/--pretrain FILE, a checkpoint of stage 1"),
        (("--stage", 3), "--stage 3 needs -ft/--finetune FILE, a checkpoint of stage 2"),
        (("--stage", 1, "-ft", "x"), "-ft/--finetune is for --stage 3, got --stage 1"),
        (("-arc", "3,4"), "filter_widths must be odd"),
        (("-arc", "3;3"), "such as 3,3,3"),
    ],
)
def test_refuses(train, options, message):
    with pytest.raises(ValueError, match=message):
        train("bad", "-e", 1, *options)


def test_refuses_a_checkpoint_of_the_wrong_stage(train):
    train("one", "-e", 1, "--stage", 1)
    with pytest.raises(ValueError, match="a checkpoint of stage 1, expected stage 2"):
        train("three", "-e", 1, "--stage", 3, "-ft", train.folder / "one" / "best.pt")
