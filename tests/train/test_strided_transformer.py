"""The Strided Transformer's two stages, its windows, and what it refuses."""

import json
import math

import pytest
import torch

from posekernels import models
from posekernels.archive import read_checkpoint
from posekernels.models.load import published_state
from posekernels.pose.hypotheses import HypothesisScores
from posekernels.train import h36m
from posekernels.train.recipes.strided_transformer import StridedTransformerRecipe, WholeWindows
from tests.train import fake_h36m
from tests.train.synthetic import synthetic

SIZES = ["--frames", "9", "--strides", "3,3", "--layers", "1", "--channel", "32", "--d_hid", "24"]
OPTIONS = ["--model", "strided_transformer", "-k", "gt", "-b", "32", *SIZES]


@pytest.fixture
def train(tmp_path):
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    fake_h36m.write(tmp_path, *fake_h36m.tables(subjects, {"Walking": 6, "Walking 1": 4, "Eating": 5}))

    def run(out, *options):
        return h36m.main([*OPTIONS, "--data-root", str(tmp_path), "--out", str(tmp_path / out), *map(str, options)])

    run.folder = tmp_path
    return run


def figures(folder):
    return json.loads((folder / "evaluation.json").read_text())["figures"]


def test_two_stages(train):
    assert train("one", "-e", 1) == 0
    assert train("two", "-e", 1, "--refine", "--reload", "--previous_dir", train.folder / "one" / "best.pt") == 0
    one, two = (read_checkpoint(train.folder / n / "last.pt") for n in ("one", "two"))
    assert one["options"]["lr"] == 1e-3 and two["options"]["lr"] == 1e-5
    moved = {n for n, t in one["weights"].items() if not torch.equal(t, two["weights"][f"lifter.{n}"])}
    assert any(n.startswith("vanilla.") for n in moved)
    assert not any(n.startswith("full_head.") for n in moved)  # published: it learns nothing in stage two
    assert {"P1", "P2", "P1 unrefined", "P2 unrefined"} <= figures(train.folder / "two").keys()


def test_a_last_batch_of_one_window_is_left_out(train):
    """Published: it ends the program, as the norm of the single head takes no statistics of one row."""
    windows = 5 * 4 * 15 * 2  # subjects, cameras, frames, mirrored
    assert train("one", "-e", 1, "-b", windows - 1) == 0


def test_published_files_are_found_by_their_first_letter(train, capsys):
    net = models.create("strided_transformer", frames=9, strides=(3, 3), layers=1, channels=32, hidden=24)
    refine = models.create("strided_refine")
    folder = train.folder / "published"
    folder.mkdir()
    torch.save(published_state(net), folder / "no_refine_9_4527.pth")
    torch.save(published_state(refine), folder / "refine_1_4368.pth")
    test = ("--test", "--reload", "--previous_dir", folder)
    assert train("alone", *test) == 0
    assert train("both", *test, "--refine", "--refine_reload") == 0
    told = capsys.readouterr().out
    assert all(
        f"--previous_dir: using {folder}/{file}\n" in told for file in ("no_refine_9_4527.pth", "refine_1_4368.pth")
    )
    assert figures(train.folder / "both")["P1 unrefined"] == pytest.approx(figures(train.folder / "alone")["P1"])
    assert train("as-published", *test, "--published_p2") == 0
    assert figures(train.folder / "as-published")["P1"] == pytest.approx(
        figures(train.folder / "alone")["P1"], abs=1e-3
    )
    with pytest.raises(ValueError, match=r"no transformer \(n\*.pth\) in it; it has refine_1_4368.pth"):
        (folder / "no_refine_9_4527.pth").unlink()
        train("none", *test)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--frames", 10), "frames must be odd"),
        (("--frames", 27), r"strides \(3, 3\) reduce frames=27 to 3 frames"),
        (("--strides", "3;3"), "such as 3,3,3"),
        (("--reload",), "need --previous_dir"),
        (("--refine_reload", "--previous_dir", "."), "is for --refine"),
        (("--stride", 2), "--stride: only 1 works"),
        (("--reload", "--previous_dir", "nowhere"), "--previous_dir nowhere: no such file or folder"),
        (("--test", "--previous_dir", "x", "--resume"), "--test and --resume exclude each other"),
        (("-b", 1), "--batch-size 1: expected 2 at least"),
    ],
)
def test_refuses(train, options, message):
    with pytest.raises(ValueError, match=message):
        train("bad", "-e", 1, *options)


def test_windows_cover_every_frame_with_its_target():
    data = synthetic()
    loader = WholeWindows(data.train, 16, *data.sides, pad=4, augment=True, reverse=True, shuffle=False)
    rows, frames = 0, sum(len(c.keypoints) for c in data.train)
    for batch in loader:
        rows += len(batch.rows)
        for row, (clip, first, _, mirrored, backwards) in enumerate(batch.rows):
            c = data.train[clip]
            index = torch.arange(first - 4, first + 5).clamp(0, len(c.keypoints) - 1)
            index = index.flip(0) if backwards else index
            sign = -1 if mirrored else 1
            order = list(data.skeleton.mirrored) if mirrored else range(17)
            for got, want in ((batch.keypoints[row], c.keypoints), (batch.poses[row], c.positions)):
                assert torch.equal(got[..., 0], sign * torch.from_numpy(want)[index][:, order, 0])
                assert torch.equal(got[..., 1], torch.from_numpy(want)[index][:, order, 1])
    assert rows == 4 * frames


def test_rate_halves_instead_of_every_fifth_decay():
    recipe = StridedTransformerRecipe.__new__(StridedTransformerRecipe)
    recipe.options = type("O", (), {"lr_decay": 0.95, "lr_decay_large": 0.5, "large_decay_epoch": 5})
    factors = [recipe.lr_factor(epoch, 0) for epoch in range(7)]
    assert factors[:5] == pytest.approx([0.95**e for e in range(5)])
    assert factors[5:] == pytest.approx([0.95**4 * 0.5, 0.95**5 * 0.5])


def test_mixed_batches_distort_p2_only_where_asked():
    g = torch.Generator().manual_seed(0)
    target = torch.randn(8, 17, 3, generator=g)
    predicted = target + 0.1 * torch.randn(8, 17, 3, generator=g) * torch.arange(1, 9)[:, None, None]
    labels = ["Walking"] * 4 + ["Eating"] * 4
    exact, published = HypothesisScores(), HypothesisScores(8)
    for errors in (exact, published):
        errors.add(predicted[:, None], target, labels)
    assert exact.per_action()["Walking"]["P2"] < exact.per_action()["Eating"]["P2"]
    assert published.per_action()["Walking"]["P2"] == pytest.approx(published.per_action()["Eating"]["P2"])
    assert math.isclose(published.average()["P1"], exact.average()["P1"])
