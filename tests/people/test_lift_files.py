"""Keypoints of other programs in, lifted people out: every form, what each refuses, and that it reads back."""

import json

import numpy as np
import pytest

from posekernels.archive import DataError
from posekernels.people import keypoint_files, pose_files
from posekernels.people.keypoint_rules import Keypoints
from posekernels.people.lifter import Person, lift_all, load_lifter
from posekernels.people.tracking import Track
from posekernels.people.world import Lifted, stand
from posekernels.pose.layouts import from_h36m
from posekernels.train.data.motion import load_starter


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """[30, 17, 2] a person walking, H36M-17."""
    return (load_starter().test[0].keypoints[:30] + 1) * 500


@pytest.fixture(scope="module")
def person(pixels) -> Person:
    poses = load_starter().test[0].positions[:30].copy()
    poses[:, 0] = 0
    someone = Person(1, pixels.astype(np.float32), np.ones((30, 17), np.float32), poses)
    stand([someone], (1000, 1000), 1000.0)
    return someone


def triples(points, score=0.9):
    return np.concatenate((points, np.full((*points.shape[:-1], 1), score)), -1)


def test_videopose3d_archive(pixels, tmp_path):
    coco = from_h36m(pixels, "coco-17").astype(np.float32)
    metadata = {"layout_name": "coco", "num_joints": 17, "video_metadata": {"clip.mp4": {"w": 1280, "h": 720}}}
    np.savez(tmp_path / "data_2d_custom_x.npz", positions_2d={"clip.mp4": {"custom": [coco]}}, metadata=metadata)
    found = keypoint_files.read(tmp_path / "data_2d_custom_x.npz")
    assert (found.layout, found.frames, found.size) == ("coco-17", 30, (1280, 720))
    np.testing.assert_array_equal(found.people[0].points, coco)


def test_videopose3d_detections(pixels, tmp_path):
    coco = from_h36m(pixels, "coco-17").astype(np.float32)
    boxes, keypoints = np.empty(30, object), np.empty(30, object)
    for t in range(30):
        nobody = t in (0, 8, 9, 29)
        best = np.concatenate((coco[t].T, np.zeros((1, 17)), np.full((1, 17), 0.01)))  # x, y, logit, probability
        boxes[t] = [[], [] if nobody else np.array([[0, 0, 9, 9, 0.3], [0, 0, 9, 9, 0.9]], np.float32)]
        keypoints[t] = [[], [] if nobody else np.stack((best * 0 + 7, best)).astype(np.float32)]
    np.savez(tmp_path / "clip.npz", boxes=boxes, keypoints=keypoints, metadata={"w": 1280, "h": 720})
    found = keypoint_files.read(tmp_path / "clip.npz")
    want = coco.copy()
    want[[0, 29]] = coco[[1, 28]]
    want[8], want[9] = (2 * coco[7] + coco[10]) / 3, (coco[7] + 2 * coco[10]) / 3
    np.testing.assert_allclose(found.people[0].points, want, rtol=1e-5)
    assert found.size == (1280, 720) and (found.people[0].scores == 1).all() and "4 of 30 frames" in found.notes[0]
    np.savez(tmp_path / "none.npz", boxes=boxes[:1], keypoints=keypoints[:1])
    with pytest.raises(DataError, match="nobody in it"):
        keypoint_files.read(tmp_path / "none.npz")
    np.savez(tmp_path / "bad.npz", boxes=boxes, keypoints=keypoints[:3])
    with pytest.raises(DataError, match="must hold, for each frame, a pair"):
        keypoint_files.read(tmp_path / "bad.npz")


def openpose(folder, frames):
    folder.mkdir()
    for t, people in enumerate(frames):
        rows = [{"person_id": [-1], "pose_keypoints_2d": triples(p).ravel().tolist()} for p in people]
        (folder / f"clip_{t:d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": rows}))
    return folder


@pytest.mark.parametrize("layout", ["body-25", "body-25b", "halpe-26", "coco-17", "openpose-18"])
def test_openpose_folder_finds_the_layout_and_keeps_two_people_apart(pixels, tmp_path, layout):
    one = from_h36m(pixels, layout)
    frames = [[a, a + (400, 0)][:: -1 if t % 2 else 1] for t, a in enumerate(one)]  # listed in changing order
    found = keypoint_files.read(openpose(tmp_path / "json", frames))
    assert found.layout == layout and found.frames == 30 and len(found.people) == 2
    for track in found.people:
        middle = track.points[..., 0].mean(1) - one[..., 0].mean(1)
        assert np.ptp(middle) < 1, "one person all the way"


def test_a_person_broken_in_two_stays_one(pixels, tmp_path):
    one = from_h36m(pixels, "coco-17")
    frames = [[a] for a in one]
    upper, lower = one[10].copy(), one[10].copy()
    upper[11:], lower[:11] = 0, 0
    frames[10] = [upper, lower]
    found = keypoint_files.read(openpose(tmp_path / "json", frames))
    assert len(found.people) == 1 and (found.people[0].scores[10] > 0).all()


def test_alphapose_and_mmpose(pixels, tmp_path):
    coco = from_h36m(pixels, "coco-17")
    rows = [{"image_id": f"{t}.jpg", "keypoints": triples(p).ravel().tolist(), "idx": 7} for t, p in enumerate(coco)]
    (tmp_path / "alphapose.json").write_text(json.dumps(rows[:5] + rows[8:]))
    found = keypoint_files.read(tmp_path / "alphapose.json")
    assert found.frames == 30 and found.people[0].identity == 7
    assert np.flatnonzero(~found.people[0].over(found.frames).present).tolist() == [5, 6, 7]
    info = [
        {"frame_id": t + 1, "instances": [{"keypoints": p.tolist(), "keypoint_scores": [0.8] * 17}]}
        for t, p in enumerate(coco)
    ]
    (tmp_path / "mmpose.json").write_text(json.dumps({"meta_info": {}, "instance_info": info}))
    found = keypoint_files.read(tmp_path / "mmpose.json")
    np.testing.assert_allclose(found.people[0].points, coco, rtol=1e-6)


def test_plain_numbers(pixels, tmp_path):
    array = triples(from_h36m(pixels, "coco-17"))
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "x.json").write_text(json.dumps(array.tolist()))
    a, b = (keypoint_files.read(tmp_path / name) for name in ("x.npy", "x.json"))
    np.testing.assert_allclose(a.people[0].points, b.people[0].points, rtol=1e-6)


def test_nan_scores_and_zero_points_are_not_seen(pixels, tmp_path):
    array = triples(from_h36m(pixels, "coco-17"))
    array[3, :, 2], array[4, 5, :2], array[5, 6, 0] = np.nan, 0, np.nan
    np.save(tmp_path / "x.npy", array)
    track = keypoint_files.read(tmp_path / "x.npy").people[0].over(40)
    assert not track.present[3] and track.scores[4, 5] == 0 and track.scores[5, 6] == 0 and track.scores[4, 6] > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", np.zeros((5, 19, 2)), "19 joints fit no known layout; known are .*coco-17 \\(17\\)"),
        (
            "x.npy",
            np.full((5, 17, 3), 1.7),
            "third column is no score \\(from 1.7 to 1.7\\); for 3D .* forecast --joints",
        ),
        ("x.npy", np.full((5, 17, 3), -0.3), "the third column is no score \\(from -0.3 to -0.3\\)"),
        ("x.npy", np.full((5, 17, 3), 500), "the third column is no score \\(from 500 to 500\\)"),
        ("x.npy", np.zeros((5, 17, 2)), "nobody in it"),
        ("x.npy", np.zeros((0, 17, 2)), "no frames"),
        ("x.npy", np.zeros((17, 2)), "must be \\[frames, joints"),
        ("x.json", "{", "not a readable JSON file"),
        ("x.json", '{"a": 1}', "JSON of no known form"),
        ("x.json", "[[1, 2], [3]]", "lists of numbers, all of one length"),
        ("x.json", "[[1, 2], [3, 4]]", "must be \\[frames, joints"),
        ("x.json", '[{"image_id": "1", "keypoints": [1, 2]}]', "x, y, score"),
        ("x.npy", b"", "an empty file, expected 2D keypoints"),
        ("x.json", b"", "an empty file, expected 2D keypoints"),
        ("x.npz", b"zip", "x.npz"),
        ("x.txt", b"1", "not '.txt'"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        keypoint_files.read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_bad_layout_is_named(tmp_path, pixels):
    np.save(tmp_path / "x.npy", pixels)
    with pytest.raises(DataError, match="did you mean 'body-25'"):
        keypoint_files.read(tmp_path / "x.npy", "body25")
    with pytest.raises(DataError, match="17 joints, but layout halpe-26 has 26"):
        keypoint_files.read(tmp_path / "x.npy", "halpe-26")
    with pytest.raises(DataError, match="no such file"):
        keypoint_files.read(tmp_path / "nothing.npy")


# -- out -------------------------------------------------------------------------------------------------------------
def lifted(*people):
    return Lifted(list(people), 50.0, (1000, 1000), "clip.mp4")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_our_files_read_back(person, tmp_path, suffix):
    [path] = pose_files.write(tmp_path / f"x{suffix}", lifted(person))
    again = keypoint_files.read(path)
    assert (again.layout, again.fps, again.size) == ("h36m-17", 50.0, (1000, 1000))
    np.testing.assert_allclose(again.people[0].points, person.points, atol=0.006)
    read = pose_files.read(path)
    assert (read.fps, read.size, read.source) == (50.0, (1000, 1000), "clip.mp4")
    np.testing.assert_allclose(read.people[0].world, person.world, atol=0 if suffix == ".npz" else 1e-4)


@pytest.mark.parametrize("wrong", [{"identities": []}, {"identities": [1, 2]}, {"fps": 0.0}, {"fps": np.nan}])
def test_people_whose_parts_do_not_belong_together_are_refused(person, tmp_path, wrong):
    [path] = pose_files.write(tmp_path / "x.npz", lifted(person))
    np.savez(path, **dict(np.load(path)) | wrong)
    with pytest.raises(DataError, match="x.npz: expected an identity for each of 1 people and a positive fps, got"):
        pose_files.read(path)


def test_people_of_another_file_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", keypoints=np.zeros((1, 3, 17, 2)))
    (tmp_path / "x.json").write_text('{"people": []}')
    (tmp_path / "y.json").write_text('{"format": "posekernels", "people": [{"id": 1}], "fps": 50}')
    for name, message in (
        ("x.npz", "no 3D people in it"),
        ("x.json", "no 3D people in it"),
        ("y.json", "not as posek"),
    ):
        with pytest.raises(DataError, match=message):
            pose_files.read(tmp_path / name)


@pytest.mark.parametrize("layout", ["halpe-26", "coco-17"])
def test_joints_beyond_those_lifted_are_kept_of_keypoint_files_too(pixels, tmp_path, layout):
    points = from_h36m(pixels[:12], layout).astype(np.float32)
    keypoints = Keypoints(
        [Track(7, points, np.full(points.shape[:2], 0.9, np.float32))], layout, 12, 50.0, (1000, 1000)
    )
    (one,) = lift_all(load_lifter(None), keypoints)
    if layout == "coco-17":  # no hands, no feet
        assert one.detected is None
        return
    np.testing.assert_array_equal(one.detected[..., :2], points)
    stand([one], keypoints.size)
    pose_files.write(tmp_path / "x.npz", Lifted([one], 50.0, keypoints.size, "clip", detected_layout=layout))
    broken = dict(np.load(tmp_path / "x.npz")) | {"detected_layout": np.array("body-25")}
    np.savez(tmp_path / "broken.npz", **broken)
    with pytest.raises(
        DataError, match=r"detected: expected \[1, 12, 25, 3\] of a known layout, got \[1, 12, 26, 3\] of 'body-25'"
    ):
        pose_files.read(tmp_path / "broken.npz")


def test_whole_bodies_of_a_file_keep_all_that_a_layout_has(pixels, tmp_path):
    """COCO-WholeBody's 133 are a layout of their own; of Halpe's 136 the first 26 are one."""
    whole = from_h36m(pixels, "coco-133").astype(np.float32)
    whole[:, 17:] += 1
    np.save(tmp_path / "coco.npy", whole)
    np.save(tmp_path / "halpe.npy", np.concatenate((from_h36m(pixels, "halpe-26"), np.zeros((30, 110, 2))), 1))
    (tmp_path / "coco.json").write_text(json.dumps([[{"keypoints": triples(frame).tolist()}] for frame in whole]))
    for name, layout in (("coco.npy", "coco-133"), ("coco.json", "coco-133"), ("halpe.npy", "halpe-26")):
        found = keypoint_files.read(tmp_path / name)
        assert found.layout == found.found == layout
    points = [keypoint_files.read(tmp_path / name).people[0].points for name in ("coco.npy", "coco.json")]
    np.testing.assert_allclose(points, [whole, whole])


def test_joints_beside_people_whose_numbers_are_not_believed_are_left_out_by_name(person, tmp_path):
    """Whose they are is not known then."""
    layout, seen = "halpe-26", np.ones((30, 26, 3), np.float32)
    someone = Person(-3, person.points, person.scores, person.poses, person.world, detected=seen)
    pose_files.write(tmp_path / "x.npz", Lifted([someone], 50.0, (1000, 1000), "clip", detected_layout=layout))
    found = keypoint_files.read(tmp_path / "x.npz")
    assert found.found == "h36m-17" and found.people[0].detected is None
    assert "people are told apart anew: the joints of halpe-26 kept beside them are left out" in found.notes
