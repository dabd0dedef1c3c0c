"""Motion text sets, their cache, windows and loaders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posekernels.archive import DataError, write_npz
from posekernels.pose.kinematics import CMU_BODY, H36M_BODY, forward_kinematics
from posekernels.train.data import cmu_text, h36m_expmap, pw3d
from posekernels.train.data import forecasting as data
from posekernels.train.data.expmap import PositionCache, read_rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEKERNELS_CACHE", str(tmp_path / "cache"))


def rows(count: int, columns: int, seed=0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(count, columns)) * 0.02
    return np.cumsum(steps, 0).astype(np.float32)


def write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, table, "%.9g", delimiter=",")


def make_cmu(root, count=160):
    for part, takes in (("train", (1, 2, 10)), ("test", (1,))):
        for n, action in enumerate(cmu_text.ACTIONS):
            for take in takes:
                write(root / part / action / f"{action}_{take}.txt", rows(count + 2 * take, 117, n + take))
    return root


def make_h36m(root, count=210):
    for subject in (*h36m_expmap.TRAIN_SUBJECTS, "S5"):
        for n, action in enumerate(h36m_expmap.ACTIONS):
            for take in (1, 2):
                write(root / subject / f"{action}_{take}.txt", rows(count, 99, n + take))
    return root


def test_cmu(tmp_path):
    loaded = cmu_text.load_cmu(make_cmu(tmp_path / "cmu_mocap").parent)
    assert [m.take for m in loaded.train[:3]] == [1, 2, 10]  # by number, and a gap is no error
    text = np.loadtxt(tmp_path / "cmu_mocap/train/basketball/basketball_10.txt", np.float32, delimiter=",")
    want = forward_kinematics(torch.from_numpy(text[::2]), CMU_BODY) / 1000
    assert np.array_equal(loaded.train[2].positions, want.numpy())
    assert len(cmu_text.load_cmu(tmp_path, drop_rest_pose=True).test[0].positions) == len(range(1, 162, 2))
    make_cmu(tmp_path / "long", 310)
    true = cmu_text.load_cmu(tmp_path / "long", "walking", true_time=True)
    assert true.train[0].positions.shape[0] == len(range(1, 312, 5))
    assert true.layout.milliseconds == pytest.approx(1000 / 24) and "not the published protocol" in true.notes[0]


def test_h36m(tmp_path):
    loaded = h36m_expmap.load_h36m_expmap(make_h36m(tmp_path), "eating,walking")
    assert [str(m) for m in loaded.train[:3]] == ["S1/walking_1", "S1/walking_2", "S1/eating_1"]
    assert [m.subject for m in loaded.test] == ["S5"] * 4
    windows = data.evaluation_windows(loaded)
    assert {a: len(w) for a, w in windows.items()} == {"walking": 2 * 5, "eating": 2 * 5}  # n - 100 of 105 frames
    with pytest.raises(ValueError, match="did you mean 'walking'"):
        h36m_expmap.load_h36m_expmap(tmp_path, "waking")
    with pytest.raises(ValueError, match="at least 167 frames"):
        data.evaluation_windows(loaded, "256")


def test_bad_files_are_named_or_skipped(tmp_path):
    root = make_cmu(tmp_path)
    path = root / "train/walking/walking_2.txt"
    good = path.read_text().splitlines()

    def refused(lines, words):
        path.write_text("\n".join(lines))
        with pytest.raises(DataError, match=words):
            cmu_text.load_cmu(root)
        return cmu_text.load_cmu(root, skip_bad=True)

    left = refused(good[:7] + [good[7] + ",1"] + good[8:], r"walking_2.txt:8: 118 columns.*expected 117")
    assert len(left.train) == 23 and len(left.skipped) == 1
    refused([line.rsplit(",", 18)[0] for line in good], r"walking_2.txt:1: 99 columns.*skeleton of 32 joints")
    refused(good[:3] + [good[3].replace(",", ",x", 1)] + good[4:], r"walking_2.txt:4: column 2 is 'x.*expected a num")
    refused(good[:5] + [",".join(["nan"] * 117)], r"walking_2.txt:6: column 1 is nan; expected a finite")
    refused([], "the file is empty")
    refused(good[:50], "25 frames after taking every 2th row; a window needs at least 60")
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    with pytest.raises(DataError, match="walking_2.txt:1: column 1"):
        cmu_text.load_cmu(root)
    path.write_text("\n".join(good))
    for file in (root / "test/soccer").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no soccer_1.txt"):
        cmu_text.load_cmu(root)
    assert len(cmu_text.load_cmu(root, skip_bad=True).test) == 7
    with pytest.raises(DataError, match="no such folder"):
        cmu_text.load_cmu(tmp_path / "nowhere")


def test_cache_follows_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write(path, rows(20, 99))

    def read():
        with PositionCache(H36M_BODY, "h36m") as cache:
            return np.array(cache.positions(path))

    first = read()
    with monkeypatch.context() as patched:
        patched.setattr("posekernels.train.data.expmap.read_rows", lambda *_: pytest.fail("parsed again"))
        assert np.array_equal(read(), first)
        path.rename(tmp_path / "b.txt")
        (tmp_path / "b.txt").rename(path)
        assert np.array_equal(read(), first)
    write(path, rows(20, 99, seed=9))
    assert not np.array_equal(read(), first)
    for kept in (tmp_path / "cache").glob("*.npy"):
        kept.write_bytes(b"damaged")
    (tmp_path / "cache/index.json").write_text("{")
    assert np.array_equal(read(), forward_kinematics(torch.from_numpy(read_rows(path, 99)), H36M_BODY).numpy() / 1000)
    monkeypatch.setenv("POSEKERNELS_CACHE", "off")
    again = read()
    monkeypatch.setenv("POSEKERNELS_CACHE", str(path / "not a folder"))
    assert np.array_equal(read(), again)


def test_pw3d(tmp_path):
    import pickle

    people = [np.random.default_rng(n).normal(size=(count, 72)) for n, count in enumerate((77, 40))]
    for part in ("train", "test"):
        (tmp_path / "3dpw" / part).mkdir(parents=True)
        with open(tmp_path / "3dpw" / part / "a_00.pkl", "wb") as file:
            pickle.dump({"jointPositions": people, "sequence": "a_00"}, file, protocol=2)
    loaded = pw3d.load_pw3d(tmp_path)
    assert loaded.train[0].positions.dtype == np.float32 and loaded.test[0].positions.dtype == np.float64
    assert np.allclose(loaded.test[0].positions[:, 0], 0)
    assert len(data.training_windows(loaded)) == 18 and len(data.evaluation_windows(loaded)["a_00"]) == 3
    with open(tmp_path / "3dpw/test/b.pkl", "wb") as file:
        pickle.dump({"jointPositions": [np.zeros((5, 70))]}, file, protocol=2)
    with pytest.raises(DataError, match=r"jointPositions\[0\] must be \[frames, 72\]"):
        pw3d.load_pw3d(tmp_path)
    assert len(pw3d.load_pw3d(tmp_path, skip_bad=True).skipped) == 1


def clips(*counts):
    numbers = [np.arange(n * 32 * 3, dtype=np.float32).reshape(n, 32, 3) + 1e4 * i for i, n in enumerate(counts)]
    return [data.Motion("", "walking", i + 1, p) for i, p in enumerate(numbers)]


def test_windows_never_cross_clips_and_reverse_whole():
    windows = data.training_windows(data.ForecastData("x", data.H36M, clips(61, 30, 60), []))
    assert windows.index.tolist() == [[0, 0], [0, 1], [2, 0]]
    plain = windows.take([1, 2])
    assert torch.equal(plain[0, :, 0, 0], torch.from_numpy(clips(61)[0].positions[1:, 2, 0]))
    turned = windows.take([1, 2], torch.tensor([True, False]))
    assert torch.equal(turned[0], plain[0].flip(0)) and torch.equal(turned[1], plain[1])


def test_loader_is_one_stream_whatever_the_processes():
    windows = data.training_windows(data.ForecastData("x", data.H36M, clips(70, 66), []))  # 18 windows

    def stream(epochs, rank=0, world=1, start=0):
        loader = data.TrainingLoader(windows, 4, 50, 3, seed=5, rank=rank, world=world)
        batches = []
        for epoch in range(start, epochs):
            loader.set_epoch(epoch)
            batches += [torch.cat(pair, 1) for pair in loader]
        return batches

    whole = stream(4)
    assert len(whole) == 12 and len(windows) // 4 == 4
    assert all(torch.equal(a, b) for a, b in zip(stream(4, start=2), whole[6:]))  # resumed
    halves = zip(stream(4, 0, 2), stream(4, 1, 2))
    assert all(torch.equal(torch.cat(pair), w) for pair, w in zip(halves, whole))
    first_pass = torch.cat(whole[:4])[:, :, 0, 0].sort(1).values[:, 0]
    assert len(first_pass.unique()) == 16  # a pass draws without repetition, and drops the last partial batch
    with pytest.raises(ValueError, match="only 18 windows"):
        data.TrainingLoader(windows, 19, 50, 3, seed=5)


def test_restore_copies_predictions():
    truth, predicted = torch.zeros(1, 1, 38, 3), torch.ones(1, 1, 25, 3)
    whole = data.CMU.restore(predicted, truth)
    constant = [0, 1, 2, 7, 8, 13]
    assert whole[..., constant, :].eq(0).all() and whole.sum() == (38 - len(constant)) * 3


def test_h36m_from_positions(tmp_path):
    """Positions of exponential maps, turned and moved about, come out as they were, but for the pelvis's own pitch."""
    generator = np.random.default_rng(0)
    rows = np.zeros((140, 99), np.float32)
    rows[:, 39:99] = 0.3 * generator.standard_normal((140, 60))  # joints from Spine1 on: the spine itself stays upright
    rows[:, 6:36] = 0.3 * generator.standard_normal((140, 30))  # legs
    body = forward_kinematics(torch.from_numpy(rows), H36M_BODY).numpy() / 1000
    turn = np.linalg.qr(generator.standard_normal((140, 3, 3)))[0]
    turn[:, 0] *= np.linalg.det(turn)[:, None]
    world = (body @ turn + generator.standard_normal((140, 1, 3))).astype(np.float32)
    actions = {"Photo": world, "Photo 1": world[:120], "Walking 1": world, "WalkTogether": world}
    write_npz(tmp_path / "data_3d_h36m.npz", positions_3d={s: actions for s in ("S1", "S9", "S5", "S11")})
    loaded = h36m_expmap.load_h36m_expmap(tmp_path)
    assert [str(m) for m in loaded.test] == ["S5/walking_1", "S5/takingphoto_1", "S5/takingphoto_2",
                                             "S5/walkingtogether_1"]  # fmt: skip
    assert {m.subject for m in loaded.train} == {"S1", "S9"} and "do not compare" in loaded.notes[0]
    assert np.allclose(loaded.test[0].positions, body[::2], atol=2e-6) and len(loaded.test[2].positions) == 60
    with pytest.raises(DataError, match="nothing to train on"):
        h36m_expmap.load_h36m_expmap(tmp_path, "eating")
