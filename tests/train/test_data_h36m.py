import numpy as np
import pytest

from posekernels.archive import write_npz
from posekernels.pose.camera import camera_to_world, h36m_cameras, normalise_screen, project
from posekernels.pose.skeleton import H36M_17_OF_32
from posekernels.train.data import DataError, load_h36m, load_humaneva, published
from tests.train import fake_h36m as fake

SPLIT = {"keypoints": "gt", "train_subjects": "S1,S5", "test_subjects": ("S9", "S11")}


@pytest.fixture
def files(tmp_path):
    return tmp_path, *fake.tables()


def test_clips_are_what_the_files_say(files):
    root, positions, keypoints, metadata = files
    fake.write(root, positions, keypoints, metadata)
    data = load_h36m(root, **SPLIT)
    assert data.name == "Human3.6M (gt)" and data.left == (4, 5, 6, 11, 12, 13)
    want = [(s, a, c) for s in ("S1", "S5") for a in fake.ACTIONS for c in range(4)]
    assert [(c.subject, c.action, c.camera) for c in data.train] == want
    assert {c.subject for c in data.test} == {"S9", "S11"}
    for clip in data.train + data.test:
        world = positions[clip.subject][clip.action][:, H36M_17_OF_32]
        assert clip.keypoints.dtype == clip.positions.dtype == np.float32
        assert len(clip.keypoints) == len(clip.positions) == len(world)  # the longer 2D is cut
        absolute = clip.positions.copy()
        absolute[:, 1:] += absolute[:, :1]
        back = camera_to_world(absolute, clip.orientation, clip.translation)
        np.testing.assert_allclose(back, world, atol=1e-5)
        np.testing.assert_allclose(project(absolute, clip.intrinsics), clip.keypoints, atol=1e-5)
        np.testing.assert_array_equal(clip.intrinsics, h36m_cameras(clip.subject)[clip.camera].intrinsics)


def test_action_prefixes_differ_between_training_and_testing(files):
    root, *tables = files
    fake.write(root, *tables)
    data = load_h36m(root, **SPLIT, actions="Sitting")
    assert {c.action for c in data.train} == {c.action for c in data.test} == {"Sitting", "SittingDown 1"}
    data = load_h36m(root, **SPLIT, actions=["Walking 1", "SittingDown"])
    assert {c.action for c in data.train} == {"Walking 1", "SittingDown 1"}
    assert {c.action for c in data.test} == {"SittingDown 1"}
    assert len(load_h36m(root, **SPLIT, actions="*").train) == 32
    with pytest.raises(DataError, match="leave nothing to test on"):
        load_h36m(root, **SPLIT, actions="Walking 1")


def test_downsample_and_subset(files):
    root, *tables = files
    fake.write(root, *tables)
    whole, half = load_h36m(root, **SPLIT), load_h36m(root, **SPLIT, downsample=2)
    np.testing.assert_array_equal(half.test[0].positions, whole.test[0].positions[::2])
    assert half.test[0].fps == 25
    part = load_h36m(root, **SPLIT, subset=0.4)
    keep = published.kept_frames(9, 1, 0.4)
    np.testing.assert_array_equal(part.train[0].keypoints, whole.train[0].keypoints[keep])
    assert len(part.test[0].positions) == 9
    with pytest.raises(DataError, match="subset"):
        load_h36m(root, **SPLIT, subset=0)


def test_published_random_numbers():
    assert published.det(0, 100, "1500") == 52
    assert published.det(0, 2000, "3000") == 1405
    keep = published.kept_frames(1500, 3, 0.1)  # round(500 * 0.1) * 3 = 150 frames, then every third
    assert keep == slice(published.det(0, 1351, "1500"), published.det(0, 1351, "1500") + 150, 3)
    assert published.kept_frames(50, 1, 0.05).stop - published.kept_frames(50, 1, 0.05).start == 2  # half to even


def test_2d_only_sequences_are_left_out(files):
    root, positions, keypoints, metadata = files
    del positions["S11"]["Sitting"]
    keypoints["S2"] = keypoints["S1"]
    fake.write(root, positions, keypoints, metadata)
    data = load_h36m(root, **SPLIT)
    assert not [c for c in data.test if (c.subject, c.action) == ("S11", "Sitting")]
    with pytest.raises(DataError, match="no subject 'S2'"):
        load_h36m(root, "gt", train_subjects="S2", test_subjects="S9")


def test_scores_pass_unchanged(files):
    root, positions, keypoints, metadata = files
    for actions in keypoints.values():
        for views in actions.values():
            views[:] = [np.concatenate((v, np.full((*v.shape[:2], 1), 0.7, np.float32)), -1) for v in views]
    fake.write(root, positions, keypoints, metadata)
    assert (load_h36m(root, **SPLIT).train[0].keypoints[..., 2] == np.float32(0.7)).all()


def break_nan(p, k, m):
    k["S5"]["Sitting"][2][3, 7, 0] = np.nan


def break_nan_3d(p, k, m):
    p["S5"]["Sitting"][3, 7, 0] = np.inf


def break_joints(p, k, m):
    p["S9"]["Walking"] = p["S9"]["Walking"][:, :17]


def break_points(p, k, m):
    k["S9"]["Walking"][1] = k["S9"]["Walking"][1][:, :16]


def break_short(p, k, m):
    k["S9"]["Walking"][1] = k["S9"]["Walking"][1][:4]


def break_cameras(p, k, m):
    k["S9"]["Walking"].pop()


def break_action(p, k, m):
    k["S9"]["Walkin"] = k["S9"].pop("Walking")


def break_subject(p, k, m):
    del k["S9"]


def break_symmetry(p, k, m):
    m["keypoints_symmetry"][0][0] = 17


def break_metadata(p, k, m):
    del m["keypoints_symmetry"]


def break_type(p, k, m):
    p["S1"]["Walking"] = "text"


def break_unit(p, k, m):
    p["S9"]["Walking"] = p["S9"]["Walking"] * 1000


def break_pixels(p, k, m):
    k["S9"]["Walking"][1] = normalise_screen(k["S9"]["Walking"][1], 1000, 1000)


def break_table(p, k, m):
    p["S1"] = 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_nan, r"gt.npz: S5 'Sitting' camera 2: NaN or infinite coordinates, first at frame 3, point 7"),
        (break_nan_3d, r"3d_h36m.npz: S5 'Sitting': NaN or infinite coordinates, first at frame 3, point 7"),
        (break_joints, r"3d_h36m.npz: S9 'Walking': expected \[T, 32, 3\], got \[9, 17, 3\]"),
        (break_points, r"gt.npz: S9 'Walking' camera 1: expected \[T, 17, 2\], got \[10, 16, 2\]"),
        (break_short, r"gt.npz: S9 'Walking' camera 1: 4 frames of keypoints, but 9 frames of 3D"),
        (break_cameras, r"gt.npz: S9 'Walking': expected 4 cameras, got 3"),
        (break_action, r"gt.npz: S9 'Walking' of the 3D file is missing; did you mean 'Walkin'"),
        (break_subject, r"gt.npz: subject 'S9' of the 3D file is missing"),
        (break_symmetry, r"gt.npz: keypoints_symmetry must pair points below 17"),
        (break_metadata, r"gt.npz: metadata must hold keypoints_symmetry"),
        (break_type, r"3d_h36m.npz: S1 'Walking': expected numbers \[T, 32, 3\], got str"),
        (break_unit, r"3d_h36m.npz: S9 'Walking': joints .* from the middle of the body; expected metres"),
        (break_pixels, r"gt.npz: S9 'Walking' camera 1: coordinates from .*; expected pixels \(got normalised"),
        (break_table, r"3d_h36m.npz: positions_3d must be"),
    ],
)
def test_bad_files_are_told_in_one_line(files, damage, message):
    root, *tables = files
    damage(*tables)
    fake.write(root, *tables)
    with pytest.raises(DataError, match=message) as caught:
        load_h36m(root, **SPLIT)
    assert "\n" not in str(caught.value)


def test_misspelt_arguments(files):
    root, *tables = files
    fake.write(root, *tables)
    with pytest.raises(DataError, match="did you mean 'gt'"):
        load_h36m(root, "gtt")
    with pytest.raises(DataError, match="no subject 's9'.*did you mean 'S9'"):
        load_h36m(root, "gt", "S1", "s9")
    with pytest.raises(DataError, match="no action 'Wakling'; did you mean 'Walking'"):
        load_h36m(root, **SPLIT, actions="Wakling")
    with pytest.raises(DataError, match="no such folder"):
        load_h36m(root / "nowhere", "gt")
    (root / "data_3d_h36m.npz").unlink()
    with pytest.raises(DataError, match="data_3d_h36m.npz: no such file"):
        load_h36m(root, "gt")


def test_humaneva(tmp_path):
    actions = {"Walking 1 chunk0": 6, "ThrowCatch 1 chunk0": 5}
    subjects = [f"{part}/S{i}" for part in ("Train", "Validate") for i in (1, 2, 3)]
    positions = {s: {a: fake.motion(n, 15) for a, n in actions.items()} for s in subjects}
    keypoints = {s: {a: [p[:, :, :2] * 100 + 300] * 3 for a, p in acts.items()} for s, acts in positions.items()}
    keypoints["Unlabeled/S4"] = {"Box 1 chunk0": [np.zeros((4, 15, 2), np.float32)] * 3}
    metadata = {"num_joints": 15, "keypoints_symmetry": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]]}
    write_npz(tmp_path / "data_3d_humaneva15.npz", positions_3d=positions)
    write_npz(tmp_path / "data_2d_humaneva15_gt.npz", positions_2d=keypoints, metadata=metadata)
    data = load_humaneva(tmp_path, actions="Walk")
    assert len(data.train) == len(data.test) == 9 and data.skeleton.num_joints == 15
    clip = data.test[4]
    assert (clip.subject, clip.action, clip.camera, clip.fps) == ("Validate/S2", "Walking 1 chunk0", 1, 60)
    assert not clip.intrinsics.any()
    back = clip.positions.copy()
    back[:, 1:] += back[:, :1]
    world = camera_to_world(back, clip.orientation, clip.translation)
    np.testing.assert_allclose(world, positions["Validate/S2"]["Walking 1 chunk0"], atol=1e-5)
    with pytest.raises(DataError, match="no action 'Jog'"):
        load_humaneva(tmp_path)
