import json
import zipfile

import numpy as np
import pytest

from posekernels.pose.camera import camera_to_world, project
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data import DataError, make_starter, motion
from posekernels.train.data.bvh import read_bvh

ANKLES, HIPS, KNEES, SHOULDERS = (3, 6), (1, 4), (2, 5), (14, 11)  # right, left


@pytest.fixture(scope="module")
def starter():
    return motion.load_starter()


@pytest.fixture(scope="module")
def clips():
    with np.load(motion.FILE, allow_pickle=False) as data:
        names = [" ".join(n) for n in zip(data["subjects"], data["actions"])]
        return dict(zip(names, np.split(data["positions"].astype(np.float64), data["lengths"].cumsum()[:-1])))


def test_the_file_is_small_and_about_110_s(clips):
    assert motion.FILE.stat().st_size < 2_000_000
    assert 105 < sum(map(len, clips.values())) / 50 < 115


def test_bones_are_rigid_and_of_human_size(clips):
    parents = np.array(H36M_17.parents)[1:]
    for name, clip in clips.items():
        lengths = np.linalg.norm(clip[:, 1:] - clip[:, parents], axis=-1)
        limbs = [j - 1 for j in (1, 2, 3, 4, 5, 6, 12, 13, 15, 16)]
        assert (lengths[:, limbs].std(0) < 0.002).all(), name
        assert (lengths[:, [1, 2, 4, 5]] > 0.35).all() and (lengths[:, [1, 2, 4, 5]] < 0.48).all(), name
        for left, right in zip(H36M_17.left, H36M_17.right):
            assert abs(lengths[:, left - 1].mean() - lengths[:, right - 1].mean()) < 0.04, name


def test_right_is_right(clips):
    """Knees bend forwards: forward x up must point to the right hip and shoulder, whatever the clip does."""
    for name, clip in clips.items():
        forward = sum(clip[:, KNEES[s]] - (clip[:, HIPS[s]] + clip[:, ANKLES[s]]) / 2 for s in (0, 1))
        right = np.cross(forward, clip[:, 8] - clip[:, 0])
        for pair in (HIPS, SHOULDERS):
            side = (right * (clip[:, pair[0]] - clip[:, pair[1]])).sum(-1)
            assert (side > 0).mean() > 0.8 and side.mean() > 0, (name, pair)


def test_feet_are_on_the_ground(clips):
    for name, clip in clips.items():
        lowest = clip[..., 2].min()
        assert -0.06 < lowest < 0.12, (name, lowest)
        assert clip[..., 2].max() < 2.1, name


def test_motion_is_smooth(clips):
    for name, clip in clips.items():
        assert np.linalg.norm(np.diff(clip, axis=0), axis=-1).max() * 50 < 15, name  # m/s


def test_every_clip_is_in_view_and_consistent(starter):
    assert len(starter.train) > 300 and len(starter.test) > 50
    kinds = {c.action.split()[0] for c in starter.train}
    assert {c.action.split()[0] for c in starter.test} <= kinds
    assert len({(c.subject, c.action, c.camera) for c in starter.train + starter.test}) == len(
        starter.train + starter.test
    )
    for clip in starter.train + starter.test:
        assert clip.keypoints.dtype == clip.positions.dtype == np.float32
        assert len(clip.keypoints) == len(clip.positions) >= motion.SHORTEST
        assert abs(clip.keypoints).max() <= 1.003
        absolute = clip.positions.copy()
        absolute[:, 1:] += absolute[:, :1]
        np.testing.assert_allclose(project(absolute, clip.intrinsics), clip.keypoints, atol=1e-5)
    world = camera_to_world(absolute, clip.orientation, clip.translation)
    assert world[:, 10, 2].mean() > world[:, 3, 2].mean() + 1  # z up: the last clip is a walk


def test_no_training_frame_is_a_test_frame(clips):
    with np.load(motion.FILE, allow_pickle=False) as data:
        sources = list(zip(data["sources"], data["parts"]))
    rows = [s[:3] + s[4:] for s in make_starter.CLIPS]
    assert [f"{a}:{m}" for a, m, *_ in rows] == [s for s, _ in sources]
    for a, m, start, end, _action, part in make_starter.CLIPS:
        for a2, m2, start2, _end2, _action2, part2 in make_starter.CLIPS:
            if (a, m) == (a2, m2) and part != part2 and start < start2:
                assert start2 - end >= 0.5


def test_choosing(starter):
    assert {c.action for c in motion.load_starter(actions="Walk").test} == {"Walk"}
    half = motion.load_starter(actions="Walk", downsample=2)
    assert half.test[0].fps == 25
    with pytest.raises(DataError, match="no action 'Dence'; did you mean 'Dance'"):
        motion.load_starter(actions="Dence")
    with pytest.raises(DataError, match="no keypoints 'cpn'"):
        motion.load_starter("cpn")
    with pytest.raises(DataError, match="leave nothing to test on"):
        motion.load_starter(actions="Backflip")


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Arm
  {
    OFFSET 1 0 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 2 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.01
0 0 0 0 0 0 0 0 0
5 6 7 90 0 0 0 0 90
"""


def test_bvh(tmp_path):
    (tmp_path / "a.bvh").write_text(BVH)
    got = read_bvh(tmp_path / "a.bvh")
    assert got.names == ("Hips", "Arm", "Arm_site") and got.parents == (-1, 0, 1) and got.frame_time == 0.01
    # the hips turn x into y; the arm then turns its y into the hips' z
    want = [[[0, 0, 0], [1, 0, 0], [1, 2, 0]], [[5, 6, 7], [5, 7, 7], [5, 7, 9]]]
    np.testing.assert_allclose(got.positions(), want, atol=1e-12)
    for damaged in (BVH[:300], BVH.replace("Frames: 2", "Frames: 3"), BVH.replace("Xposition", "Wposition"), "hello"):
        (tmp_path / "a.bvh").write_text(damaged)
        with pytest.raises(DataError, match="a.bvh: not a BVH file"):
            read_bvh(tmp_path / "a.bvh")


def humanoid(**angles):
    """One DeepMimic frame at rest, twice, with some columns set."""
    row = np.zeros(44)
    row[0] = 0.04
    row[2] = 0.9
    for _name, _parent, _offset, columns in make_starter._HUMANOID:
        if columns is not None and columns.stop - columns.start == 4:
            row[columns.start] = 1
    for name, value in angles.items():
        row[next(c for n, _p, _o, c in make_starter._HUMANOID if n == name)] = value
    return json.dumps({"Loop": "none", "Frames": [row.tolist()] * 2})


def test_deepmimic_at_rest_and_bent():
    rest, fps = make_starter.humanoid_motion(humanoid())
    assert rest.shape == (2, 17, 3) and fps == 50
    np.testing.assert_allclose(rest[0, 3], [0, -0.084887, 0.9 - 0.421546 - 0.40987])  # right is -y when x is forward
    bent, _ = make_starter.humanoid_motion(humanoid(right_knee=-np.pi / 2))
    np.testing.assert_allclose(bent[0, 3], [-0.40987, -0.084887, 0.9 - 0.421546], atol=1e-9)  # the shin goes back
    turned, _ = make_starter.humanoid_motion(humanoid(root=(2**-0.5, 0, 2**-0.5, 0)))  # a quarter turn to the left
    np.testing.assert_allclose(turned[0, 1] - turned[0, 0], [0.084887, 0, 0], atol=1e-9)


def test_resampling_keeps_a_parabola_inside():
    t = np.arange(20) / 120
    points = np.stack((t, t**2, 0 * t), -1)[:, None]
    got = make_starter.resample(points, 120)[:, 0]
    at = np.arange(len(got)) / 50
    np.testing.assert_allclose(got[1:-1], np.stack((at, at**2, 0 * at), -1)[1:-1], atol=1e-9)


def test_a_wrong_archive_is_refused(tmp_path, capsys):
    for archive in make_starter.ARCHIVES.values():
        with zipfile.ZipFile(tmp_path / archive.file, "w"):
            pass
    assert make_starter.main(["--out", str(tmp_path / "out"), "--cache", str(tmp_path)]) == 2
    assert "SHA-256 is" in capsys.readouterr().err and not (tmp_path / "out").exists()
