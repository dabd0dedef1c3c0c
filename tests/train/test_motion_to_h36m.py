"""Open motion in the published form, and the comparison of ideas that trains on it."""

import json

import numpy as np
import pytest
import torch

from posekernels.archive import DataError, write_npz
from posekernels.train import compare
from posekernels.train.data import cmu_to_h36m, load_h36m, motion_to_h36m

from .test_data_cmu_to_h36m import walk

SUBJECTS = ("SNU-wd2", "CMU07", "SNU-kang", "CMU69", "SNU-s_001")  # the second and the last are held out


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """A folder as ``train.data.open_motion`` writes it: walks of 6 s, each of another speed."""
    folder = tmp_path_factory.mktemp("motion")
    walks = [next(cmu_to_h36m.world_motion(walk(720, 0.4 + 0.1 * n))) for n in range(len(SUBJECTS))]
    write_npz(
        folder / "walks.npz",
        positions=np.concatenate([np.round(w * 1000).astype(np.int16) for w in walks]),
        lengths=np.array([len(w) for w in walks]),
        unit=np.float32(0.001),
        fps=np.full(len(walks), 50.0, np.float32),
        subjects=np.array(SUBJECTS),
    )
    return folder


@pytest.fixture(scope="module")
def published(motion, tmp_path_factory):
    out = tmp_path_factory.mktemp("published")
    assert motion_to_h36m.main([str(motion), "--out", str(out)]) == 0
    return out


def test_the_output_is_published_data_with_held_out_performers(motion, published):
    exact, seen = (load_h36m(published, name) for name in ("gt", "detected"))
    assert exact.name == "open motion (gt)"  # never called Human3.6M
    assert {c.subject for c in exact.test} == {"S9", "S11"}
    frames = [sum(len(c.keypoints) for c in part) / 4 for part in (exact.train, exact.test)]
    assert frames[0] == pytest.approx(3 * 299, abs=10) and frames[1] == pytest.approx(2 * 299, abs=10)
    errors = []
    for a, b in zip(exact.train + exact.test, seen.train + seen.test, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        unit = np.linalg.norm(a.keypoints - a.keypoints[:, :1], axis=-1).mean()
        errors.append(np.linalg.norm(a.keypoints - b.keypoints, axis=-1).mean(0) / unit)
    errors = np.mean(errors, 0)
    assert errors[[13, 16]].mean() > 1.3 * errors[[11, 14]].mean()  # wrists err more than shoulders
    assert 0.02 < errors.mean() < 0.12  # of the mean distance from the root
    again, _, other = motion_to_h36m.convert(motion, 20, 3, seed=2)
    assert again.keys() == {"S1", "S5", "S6", "S7", "S8", "S9", "S11"}
    first = motion_to_h36m.convert(motion, 20, 3, seed=1)[2]
    assert not np.allclose(first["S9"]["Motion 0"][0], other["S9"]["Motion 0"][0])


def test_the_amount_is_what_was_asked_for(motion):
    positions, _, _ = motion_to_h36m.convert(motion, 5 / 60, 3, seed=1)
    trained = sum(len(a) for s, actions in positions.items() if s not in ("S9", "S11") for a in actions.values())
    assert 200 <= trained <= 300


def test_what_cannot_be_done_is_told(motion, published, tmp_path):
    with pytest.raises(DataError, match="is there already"):
        motion_to_h36m.main([str(motion), "--out", str(published)])
    with pytest.raises(ValueError, match="--test-minutes: expected more than 0, got 0"):
        motion_to_h36m.main([str(motion), "--out", str(tmp_path), "--test-minutes", "0"])
    with pytest.raises(ValueError, match="--arms: no arm 'none'"):
        compare.main(["--data-root", str(published), "--out", str(tmp_path), "--arms", "none"])


def test_arms_are_trained_once_and_the_page_tells_of_them(published, tmp_path, capsys):
    arms = [
        "ws_anl",
        "strided refined",
        "strided",
        "full length",
        "diffpose refined",
        "diffpose video refined",
        "rie one part",
    ]
    words = ["--data-root", str(published), "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page")]
    words += ["--seconds", "0.2", "--seeds", "1", "--arms"]
    assert compare.main([*words, ",".join(arms)]) == 0
    assert capsys.readouterr().out.count(", seed 1: ") == len(arms)
    results = json.loads((tmp_path / "page" / "compare.json").read_text())
    assert {r["arm"] for r in results} == set(arms)
    for result in results:
        assert min(result["steps"]) > 0 and result["processor_s"] > 0.2
    curve = next(r for r in results if r["arm"] == "ws_anl")
    assert curve["ws_anl"]["P1"] == sorted(curve["ws_anl"]["P1"], reverse=True)  # more hypotheses: a better best
    page = (tmp_path / "page" / "README.md").read_text()
    assert "Strided layers beat full-length ones" in page and "undecided: one seed" in page
    assert "five parts" not in page.split("Each arm's own")[0]  # its other side is missing
    assert compare.main([*words, "strided"]) == 0
    assert ", seed 1: " not in capsys.readouterr().out
    (tmp_path / "page" / "README.md").unlink()
    assert compare.main([*words, "ws_anl", "--no-train"]) == 0
    assert (tmp_path / "page" / "README.md").read_text() == page
    with pytest.raises(ValueError, match="nothing is done yet"):
        compare.main([*words[:2], "--out", str(tmp_path / "new"), *words[4:], "ws_anl", "--no-train"])
    with pytest.raises(ValueError, match="trained for 0.2 s, not 0.3"):
        compare.main([*words[:4], "--seconds", "0.3", "--seeds", "1"])


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(10, 12), (10, 13), (11, 12)], "holds here"),
        ([(12, 10), (13, 10), (12, 11)], "does not hold here"),
        ([(10, 12), (10, 9.9)], "undecided within the spread"),
        ([(10, 10.1), (10, 14), (10, 10.1)], "undecided within the spread"),  # one seed alone makes the mean
        ([(10, 20)], "undecided: one seed"),
    ],
)
def test_verdicts(pairs, words):
    assert compare.verdict(pairs) == words


def test_full_length_answers_for_the_centre_and_has_the_strided_ones_weights():
    torch.manual_seed(0)
    net = compare.FullLength(27, layers=1, channels=16, hidden=32).eval()
    strided = compare.StridedTransformer(27, layers=1, channels=16, hidden=32)
    assert {n: p.shape for n, p in net.named_parameters()} == {n: p.shape for n, p in strided.named_parameters()}
    clip = torch.randn(40, 17, 2)
    single, every = net(clip[None, :27], full=True)
    assert single.shape == (1, 1, 17, 3) and every.shape == (1, 27, 17, 3)
    torch.testing.assert_close(net.lift(clip)[13], single[0, 0], rtol=1e-4, atol=1e-5)


def test_one_part_sees_all_joints_and_has_no_relative_encoding():
    torch.manual_seed(0)
    net = compare.OnePart((3, 3), 8, 8).eval()
    assert [len(part) for part in net.parts] == [17]
    clip = torch.randn(20, 17, 2)
    windows = clip.unfold(0, 9, 1).movedim(-1, 1)
    torch.testing.assert_close(net.lift(clip)[4:16], net(windows)[:, 0], rtol=1e-4, atol=1e-5)
    moved = windows.clone()
    moved[:, 0, 16] += 1  # a wrist, long ago, tells about every joint
    assert ((net(moved) - net(windows))[0, 0].abs().sum(-1) > 0).all()
