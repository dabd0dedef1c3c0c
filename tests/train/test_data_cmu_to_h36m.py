import numpy as np
import pytest

from posekernels.pose.skeleton import H36M_17, H36M_17_OF_32
from posekernels.train.data import cmu_to_h36m, load_h36m

T = 300


def walk(frames: int = T, speed: float = 1.2) -> np.ndarray:
    """[T, 117] somebody upright who bends a knee (x axis of joint 9, right leg) and moves along z, 120 Hz."""
    rows = np.zeros((frames, 117))
    seconds = np.arange(frames) / 120
    rows[:, 1] = 17.5  # about 1 m
    rows[:, 2] = speed * seconds / 0.056444
    rows[:, 3 + 3 * 9] = 0.8 - 0.6 * np.cos(6 * seconds)
    rows[0, 6:] = 1.0  # the rest pose is another pose
    return rows


def write(root, part, action, number, rows):
    folder = root / part / action
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / f"{action}_{number}.txt", rows, delimiter=",", fmt="%.6f")


@pytest.fixture
def cmu(tmp_path):
    root = tmp_path / "cmu"
    for number in range(1, 6):
        write(root, "train", "walking", number, walk())
    rootless = walk()
    rootless[:, :6] = 0
    write(root, "train", "washwindow", 1, rootless)
    write(root, "test", "walking", 1, walk(2 * T))
    return root


def test_the_output_trains(cmu, tmp_path, capsys):
    out = tmp_path / "out"
    assert cmu_to_h36m.main([str(cmu), "--out", str(out)]) == 0
    assert "S11: " in capsys.readouterr().out
    data = load_h36m(out, "gt")
    assert data.name == "CMU mocap (gt)"  # never called Human3.6M
    assert {c.subject for c in data.train} == {"S1", "S5", "S6", "S7", "S8"}
    assert {c.subject for c in data.test} == {"S9", "S11"} and {c.action for c in data.test} >= {"Walking"}
    parents = np.array(H36M_17.parents)[1:]
    for clip in data.train + data.test:
        assert abs(clip.keypoints).max() <= 1.003  # the whole person is in every image
        pose = clip.positions.copy()
        pose[:, 0] = 0
        lengths = np.linalg.norm(pose[:, 1:] - pose[:, parents], axis=-1)
        assert (lengths.std(0) < 0.002).all()
        assert lengths[0, 1] == pytest.approx(0.056444 * np.hypot(2.59502, 7.12977), abs=1e-4)  # true size


def test_time_space_and_side(cmu):
    positions, keypoints, _ = cmu_to_h36m.convert(cmu)
    world = positions["S1"]["Walking"][:, H36M_17_OF_32]
    assert len(world) == pytest.approx((T - 2) * 50 / 120, abs=1)  # 50 Hz, without the rest pose
    assert np.linalg.norm(np.diff(world[:, 0], axis=0), axis=-1).mean() * 50 == pytest.approx(1.2, rel=0.01)
    assert world[0, 0, 2] == pytest.approx(17.5 * 0.056444, abs=1e-3)
    ahead, right = world[-1, 0] - world[0, 0], world[0, 1] - world[0, 4]
    assert np.cross(ahead, [0, 0, 1]) @ right > 0
    standing = positions["S1"]["WashWindow"]
    assert np.ptp(standing[:, 0], axis=0).max() < 1e-5 and -0.01 < standing[..., 2].min() < 0.3
    for actions in keypoints.values():
        for views in actions.values():
            assert len(views) == 4


def test_recordings_are_cut_where_joints_leap_or_people_leave(cmu):
    rows = walk()
    rows[150, 3 + 3 * 9] = 3.0
    stretches = list(cmu_to_h36m.world_motion(rows))
    assert len(stretches) == 2
    far = list(cmu_to_h36m.world_motion(walk(1200, speed=2.0)))[0]  # 20 m
    pieces = list(cmu_to_h36m.takes(far, cmu_to_h36m.h36m_cameras("S1"), 0.3))
    assert len(pieces) > 3
    assert len(far) - 25 <= sum(map(len, pieces)) <= len(far)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: f.write_text("1,2,3\n4,5,6\n"),
            "walking_1.txt: expected at least 2 rows of 117 numbers, got [2, 3]",
        ),
        (lambda f: f.write_text("hello"), "walking_1.txt: not comma-separated numbers"),
        (lambda f: f.write_text(f.read_text().replace("0.000000", "nan", 1)), "walking_1.txt: NaN or infinite"),
    ],
)
def test_bad_files(cmu, tmp_path, capsys, damage, message):
    damage(cmu / "train" / "walking" / "walking_1.txt")
    assert cmu_to_h36m.main([str(cmu), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_an_empty_folder_is_told(cmu, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data_3d_h36m.npz").write_text("mine")
    assert cmu_to_h36m.main([str(cmu), "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "data_3d_h36m.npz").read_text() == "mine"
    assert cmu_to_h36m.main([str(tmp_path / "out"), "--out", str(tmp_path / "x")]) == 2
    assert "no CMU text set here" in capsys.readouterr().err
