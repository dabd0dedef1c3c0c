"""Every rule on what is believed of 2D keypoints, through every reader that can bring the case."""

import json
import tracemalloc

import numpy as np
import pytest

from posekernels.__main__ import run
from posekernels.archive import DataError
from posekernels.people import keypoint_files
from posekernels.pose.layouts import from_h36m
from posekernels.train.data.motion import load_starter

SIZE = (1920, 1080)


@pytest.fixture(scope="module")
def body() -> np.ndarray:
    """[30, 17, 2] pixels, COCO-17: a person who walks."""
    clip = (load_starter().test[0].keypoints[:30] + 1) * 400 + 100
    return from_h36m(clip, "coco-17").astype(np.float32)


# A clip: (name or number of the frame, [(points [J, 2 or 3], scores [J], identity), ...]) for each frame.
def clip(*people, names=range(1000), identities=None):
    """Frames of people [T, J, C]; identities: one for each, a list of one a frame for each, or None."""
    identities = identities or [None] * len(people)
    return [
        (
            names[t],
            [(p[t], np.full(p.shape[1], 0.9), i[t] if isinstance(i, Each) else i) for p, i in zip(people, identities)],
        )
        for t in range(len(people[0]))
    ]


class Each(list):
    """An identity of its own in each frame."""


def flat(points, scores):
    return (points if points.shape[1] == 3 else np.column_stack((points, scores))).ravel().tolist()


def known(**entries):
    return {key: value for key, value in entries.items() if value is not None}


def openpose(path, frames):
    path.mkdir()
    for name, people in frames:
        rows = [known(pose_keypoints_2d=flat(p, s), person_id=i) for p, s, i in people]
        label = f"clip_{name:012d}_keypoints" if isinstance(name, int) else str(name).rsplit(".", 1)[0]
        (path / f"{label}.json").write_text(json.dumps({"version": 1.3, "people": rows}))
    return path


def written(path, content):
    path = path.with_suffix(".json")
    path.write_text(json.dumps(content, default=lambda a: a.tolist()))
    return path


def image(name):
    return f"{name}.jpg" if isinstance(name, int) else name


def alphapose(path, frames):
    rows = [known(image_id=image(n), keypoints=flat(p, s), idx=i) for n, people in frames for p, s, i in people]
    return written(path, rows)


def alphapose_cmu(path, frames):
    people = {
        image(n): {"version": "AlphaPose v0.3", "bodies": [{"joints": flat(p, s)} for p, s, _ in of]}
        for n, of in frames
    }
    return written(path, people)


def alphapose_open(path, frames):
    people = {image(n): {"people": [{"pose_keypoints_2d": flat(p, s)} for p, s, _ in of]} for n, of in frames}
    return written(path, people)


def mmpose(path, frames):
    rows = [
        {"frame_id": n, "instances": [known(keypoints=p, keypoint_scores=s, track_id=i) for p, s, i in people]}
        for n, people in frames
    ]
    return written(path, {"meta_info": {}, "instance_info": rows})


def coco(path, frames):
    images = [{"id": k, "file_name": image(n)} for k, (n, _) in enumerate(frames)]
    people = [
        known(id=100 * k + j, image_id=k, category_id=1, keypoints=flat(p, s), track_id=i)
        for k, (_, of) in enumerate(frames)
        for j, (p, s, i) in enumerate(of)
    ]
    return written(path, {"images": images, "annotations": people, "categories": []})


def ultralytics(path, frames):
    def person(p, s, i):
        return known(name="person", keypoints={"x": p[:, 0], "y": p[:, 1], "visible": s}, track_id=i, box={"x1": 1})

    return written(path, [[person(*of) for of in people] for _, people in frames])


def points(path, frames):  # of tfjs and others
    def person(p, s, i):
        return known(keypoints=[{"x": x, "y": y, "score": v} for (x, y), v in zip(p.tolist(), s.tolist())], id=i)

    return written(path, [{"poses": [person(*of) for of in people], "frame": n} for n, people in frames])


def stacked(frames):
    people = len(frames[0][1])
    return np.array([[flat(*of[p][:2]) for _, of in frames] for p in range(people)]).reshape(people, len(frames), -1, 3)


def npy(path, frames):
    np.save(path.with_suffix(".npy"), stacked(frames))
    return path.with_suffix(".npy")


def npz(path, frames):
    whole = stacked(frames)
    np.savez(path.with_suffix(".npz"), keypoints=whole[..., :2], scores=whole[..., 2])
    return path.with_suffix(".npz")


def nested(path, frames):
    return written(path, stacked(frames))


ARRAYS = (npy, npz, nested)
NUMBERED = (openpose, alphapose, mmpose, coco, ultralytics, points)  # hold identities
COUNTED = (openpose, alphapose, alphapose_cmu, alphapose_open, mmpose, coco, points)  # number their frames
NAMED = (openpose, alphapose, alphapose_cmu, alphapose_open, coco)  # by the names of images
ALL = (*NUMBERED, alphapose_cmu, alphapose_open, *ARRAYS)


def cases(*readers):
    return pytest.mark.parametrize("write", readers, ids=lambda f: f.__name__)


def joints_of(write, person):
    """The form's own layout: AlphaPose's cmu and open have 18 joints."""
    if write in (alphapose_cmu, alphapose_open):
        return np.insert(person, 1, (person[:, 5] + person[:, 6]) / 2, axis=1)
    return person


def assert_two(found, a, b):
    assert len(found.people) == 2
    for person in (a, b):
        off = [np.nanmax(np.abs(track.points[:, 5] - person[:, 5])) for track in found.people]
        assert min(off) < 0.1, "one person all the way"


# -- identities ------------------------------------------------------------------------------------------------------
@cases(*NUMBERED)
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ([0, 0], "0 is several people's in one frame"),
        ([-1, -1], "gives people: -1 is no number of a person; who has it is told apart by place"),
        ([[-1], [-1]], "-1 is no number of a person"),
        ([Each(range(0, 60, 2)), Each(range(1, 60, 2))], "are in one frame only"),
        ([Each([0, 1] * 15), Each([1, 0] * 15)], "0, 1 are now of one, now of another"),
        ([7, None], ""),
    ],
)
def test_identities_that_say_nothing_are_not_believed(write, what, told, body, tmp_path):
    a, b = body, body + (600, 0)
    frames = [(n, people[:: -1 if n % 3 else 1]) for n, people in clip(a, b, identities=what)]
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert_two(found, a, b)
    assert told in " ".join(found.notes)


@cases(*NUMBERED)
@pytest.mark.parametrize(
    ("what", "numbers"),
    [
        ([3.0, 8.0], {3, 8}),
        (["3", "8"], {3, 8}),
        ([[3], [8]], {3, 8}),
        (["person_3", "person_8"], {3, 8}),
        (["Al", "Bo"], {1, 2}),
    ],
)
def test_identities_in_another_dress_are_understood(write, what, numbers, body, tmp_path):
    a, b = body, body[::-1] + (30, 0)  # so close that only the numbers tell them apart
    found = keypoint_files.read(write(tmp_path / "x", clip(a, b, identities=what)))
    assert {track.identity for track in found.people} == numbers and "told apart" not in " ".join(found.notes)
    assert_two(found, a, b)


@cases(*ARRAYS)
def test_places_in_an_array_that_are_sorted_anew_are_no_identities(write, body, tmp_path):
    a, b = body, body + (600, 0)
    frames = [(n, people[:: -1 if n % 3 else 1]) for n, people in clip(a, b)]
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert_two(found, a, b)
    assert "1, 2 are now of one, now of another" in " ".join(found.notes)


def test_an_array_of_frames_of_people_is_told_by_how_they_move(body, tmp_path):
    two = np.stack((body, body + (600, 0)), 1)
    np.save(tmp_path / "x.npy", two)
    found = keypoint_files.read(tmp_path / "x.npy")
    assert (found.frames, len(found.people)) == (30, 2) and "30 frames of 2 people" in found.notes[0]
    np.testing.assert_allclose(found.people[1].points, two[:, 1], rtol=1e-6)


# -- frames ----------------------------------------------------------------------------------------------------------
@cases(*COUNTED)
def test_frames_left_out_are_empty(write, body, tmp_path):
    frames = clip(joints_of(write, body), names=range(4, 100))
    found = keypoint_files.read(write(tmp_path / "x", frames[:10] + frames[18:]))
    assert found.frames == 30 and len(found.people) == 1
    assert np.flatnonzero(~found.people[0].over(found.frames).present).tolist() == list(range(10, 18))
    holder = "folder" if (tmp_path / "x").is_dir() else "file"
    told = (
        f"the {holder} numbers its frames from 4 to 33; here they count from 1 to 30; 8 of them are not in the {holder}"
    )
    assert any(note.startswith(told) for note in found.notes), found.notes


@cases(*COUNTED)
def test_frames_stand_where_their_numbers_say(write, body, tmp_path):
    frames = clip(joints_of(write, body))
    found = keypoint_files.read(write(tmp_path / "x", frames[::-1]))
    np.testing.assert_allclose(found.people[0].points[:, 0], body[:, 0], atol=0.1)


@cases(*NAMED)
@pytest.mark.parametrize(
    "name", ["{:06d}_1080p.jpg", "frame{}_cam2.png", "2024-05-01 cam {} at {}0.jpg", "v1/{:03d}.png", "f{}_{}.TIME.jpg"]
)
def test_the_digits_that_vary_are_the_number_of_the_frame(write, name, body, tmp_path):
    if "/" in name and write is openpose:
        name = name.replace("/", "-")
    frames = clip(joints_of(write, body), names=[time_of(name.format(t, t), t) for t in range(1, 31)])
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert found.frames == 30 and found.people[0].present.all()
    np.testing.assert_allclose(found.people[0].points[:, 0], body[:, 0], atol=0.1)


def time_of(name, t):
    """Seconds and milliseconds beside the number of a frame."""
    return name.replace("TIME", f"{t // 10:02d}.{100 * (t % 10):03d}") if "TIME" in name else name


@cases(*NAMED)
@pytest.mark.parametrize("names", [("frame{}_cam2.png", "frame{}_cam3.png"), ("left_{}.jpg", "right_{}.jpg")])
def test_several_videos_are_named_and_one_is_chosen(write, names, body, tmp_path):
    own = joints_of(write, body)
    frames = [f for k, name in enumerate(names) for f in clip(own + 50 * k, names=[name.format(t) for t in range(30)])]
    path = write(tmp_path / "x", frames)
    with pytest.raises(DataError, match=r"holds 2 videos: .*\(30 frames\), .*\(30 frames\); --clip TEXT chooses"):
        keypoint_files.read(path)
    for k, text in enumerate(("cam2", "cam3") if "cam" in names[0] else ("left", "right")):
        found = keypoint_files.read(path, clip=text)
        np.testing.assert_allclose(found.people[0].points[:, 0], body[:, 0] + 50 * k, atol=0.1)
    with pytest.raises(DataError, match="--clip cam9: expected it in the name of one video, found it in 0 of 2"):
        keypoint_files.read(path, clip="cam9")


@cases(alphapose, mmpose, coco)
@pytest.mark.parametrize("times", [range(0, 30 * 33333, 33333), [round(t * 1000 / 30) for t in range(30)]])
def test_times_in_place_of_numbers_are_said(write, times, body, tmp_path):
    frames = clip(body, names=list(times))
    found = keypoint_files.read(write(tmp_path / "x", frames[:20] + frames[22:]))
    assert found.frames == 30 and "taken for times" in " ".join(found.notes)
    assert np.flatnonzero(~found.people[0].over(found.frames).present).tolist() == [20, 21]


@pytest.mark.parametrize("first, told", [(0, "from 0 to 29; here they count from 1 to 30"), (1, "from 1 to 30")])
def test_frames_count_from_1_whatever_the_file_says(first, told, body, tmp_path):
    found = keypoint_files.read(mmpose(tmp_path / "x", clip(body, names=list(range(first, first + 30)))))
    assert f"the file numbers its frames {told}" in found.notes


def test_numbers_that_occur_twice_do_not_count(body, tmp_path):
    found = keypoint_files.read(mmpose(tmp_path / "x", clip(body, names=[0] * 30)))
    assert found.frames == 30 and "30 frames have the same number" in " ".join(found.notes)


# -- units -----------------------------------------------------------------------------------------------------------
@cases(*ALL)
def test_parts_of_the_image_become_pixels_by_its_size(write, body, tmp_path):
    path = write(tmp_path / "x", clip(joints_of(write, body / SIZE)))
    with pytest.raises(
        DataError, match="coordinates from .* parts of the image; --size WIDTHxHEIGHT makes them pixels"
    ):
        keypoint_files.read(path)
    found = keypoint_files.read(path, size=SIZE)
    np.testing.assert_allclose(found.people[0].points[:, 0], body[:, 0], atol=0.1)
    assert any("made pixels of 1920x1080" in note for note in found.notes)


@cases(*ALL)
def test_coordinates_already_normalised(write, body, tmp_path):
    path = write(tmp_path / "x", clip(joints_of(write, body / SIZE * 2 - 1)))
    if write is openpose:  # its --keypoint_scale 4
        found = keypoint_files.read(path, size=SIZE)
        np.testing.assert_allclose(found.people[0].points[:, 0], body[:, 0], atol=0.1)
    else:
        with pytest.raises(DataError, match="coordinates from -.* already normalised.* must be in pixels"):
            keypoint_files.read(path, size=SIZE)


@cases(*ALL)
@pytest.mark.parametrize(("scale", "why"), [(1 / 300, "in metres"), (1 / 19.2, "in an image of 1920x1080: percent")])
def test_metres_and_percent_of_the_image_are_refused(write, scale, why, body, tmp_path):
    path = write(tmp_path / "x", clip(joints_of(write, (body + 400) * scale)))
    with pytest.raises(DataError, match=f"coordinates from .*{why}"):
        keypoint_files.read(path, size=SIZE)


@cases(*ALL)
def test_scores_in_percent(write, body, tmp_path):
    frames = [(n, [(p, s * 100, i) for p, s, i in people]) for n, people in clip(joints_of(write, body))]
    found = keypoint_files.read(write(tmp_path / "x", frames))
    np.testing.assert_allclose(found.people[0].scores, 0.9, rtol=1e-6)
    assert "taken for percent" in " ".join(found.notes)


@cases(*ALL)
def test_visibility_of_coco(write, body, tmp_path):
    person, flags = joints_of(write, body), np.full(len(joints_of(write, body)[0]), 2.0)
    flags[:2] = 1, 0
    frames = [(n, [(p, flags, i) for p, _, i in people]) for n, people in clip(person)]
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert found.people[0].scores[3, :3].tolist() == [0.5, 0, 1] and "COCO's visibility" in " ".join(found.notes)


@cases(*ALL)
def test_scores_of_no_known_kind_are_refused(write, body, tmp_path):
    frames = [(n, [(p, s * 9, i) for p, s, i in people]) for n, people in clip(joints_of(write, body))]
    with pytest.raises(DataError, match="no score|scores from 8.1 to 8.1; expected 0 to 1, or percent"):
        keypoint_files.read(write(tmp_path / "x", frames))


# -- missing ---------------------------------------------------------------------------------------------------------
@cases(*ALL)
@pytest.mark.parametrize("mark", [(0, 0), (-1, -1), (-999, -999), (9999, 9999), (65535, 65535), (np.nan, np.nan)])
def test_marks_of_what_was_not_seen(write, mark, body, tmp_path):
    person = joints_of(write, body).copy()
    person[5:15, 3] = mark
    found = keypoint_files.read(write(tmp_path / "x", clip(person)))
    assert (found.people[0].scores[5:15, 3] == 0).all() and np.isnan(found.people[0].points[5:15, 3]).all()
    assert (found.people[0].scores > 0).sum() == person[..., 0].size - 10
    if abs(mark[0]) > 0:
        assert any(f"10 keypoints at {mark[0]}, {mark[1]}: taken for not seen" in note for note in found.notes)


@cases(*ALL)
def test_a_score_of_0_is_not_seen_and_all_joints_at_one_place_are_nobody(write, body, tmp_path):
    person = joints_of(write, body).copy()
    person[7] = (333.0, 222.0)
    frames = clip(person)
    frames[3][1][0][1][4] = 0
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert found.people[0].over(found.frames).scores[3, 4] == 0 and np.flatnonzero(
        ~found.people[0].over(found.frames).present
    ).tolist() == [7]


# -- the third number ------------------------------------------------------------------------------------------------
@cases(openpose, alphapose, alphapose_cmu, alphapose_open, mmpose, coco, npy, nested)
@pytest.mark.parametrize("metres", [True, False])
def test_joints_in_3d_are_refused(write, metres, body, tmp_path):
    poses = load_starter().test[0].positions[:30]
    person = joints_of(write, from_h36m(poses, "coco-17"))
    if not metres:
        person = person * 400 + (800, 500, 0)  # x and y in pixels, z in their unit
    with pytest.raises(DataError, match="no score|joints in 3D.* forecast --joints"):
        keypoint_files.read(write(tmp_path / "x", clip(person)))


def test_joints_in_3d_under_other_names_are_refused(body, tmp_path):
    rows = [{"people": [{"pose_keypoints_2d": [], "pose_keypoints_3d": [1.0] * 68}]}]
    with pytest.raises(DataError, match="joints in 3D and none in 2D"):
        keypoint_files.read(written(tmp_path / "a", rows))
    with pytest.raises(DataError, match="x, y and z of joints and no scores"):
        keypoint_files.read(written(tmp_path / "b", [[[{"x": 0.1, "y": 0.2, "z": 0.3}] * 33]]))


# -- joints and layout -----------------------------------------------------------------------------------------------
@cases(*NUMBERED)
def test_detections_of_other_joints_are_left_out(write, body, tmp_path):
    frames = clip(body)
    frames[4] = (frames[4][0], [(body[4][:9], np.full(9, 0.9), None)])
    found = keypoint_files.read(write(tmp_path / "x", frames))
    assert (
        not found.people[0].over(found.frames).present[4]
        and "1 detections left out" in found.notes[-2] + found.notes[0] + found.notes[1]
    )


@cases(*ALL)
def test_the_layout_is_said_where_it_is_a_guess(write, body, tmp_path):
    path = write(tmp_path / "x", clip(joints_of(write, body)))
    found = keypoint_files.read(path)
    assert f"taken for {found.layout}; --layout NAME if they are others" in " ".join(found.notes)
    assert "taken for" not in " ".join(keypoint_files.read(path, found.layout).notes)


# -- forms -----------------------------------------------------------------------------------------------------------
@cases(*ALL)
def test_every_form_gives_the_same_person(write, body, tmp_path):
    found = keypoint_files.read(write(tmp_path / "x", clip(joints_of(write, body))))
    assert (found.frames, len(found.people)) == (30, 1)
    np.testing.assert_allclose(found.people[0].points, joints_of(write, body), atol=0.1)
    np.testing.assert_allclose(found.people[0].scores, 0.9, rtol=1e-6)


@cases(alphapose, mmpose, coco, ultralytics, nested)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_byte_order(write, encoding, body, tmp_path):
    path = write(tmp_path / "x", clip(body))
    path.write_bytes(path.read_text().encode(encoding))
    assert keypoint_files.read(path).frames == 30


def test_single_images_alone_and_in_a_folder(body, tmp_path):
    one = {"keypoints": body[0].tolist(), "keypoint_scores": [0.9] * 17}
    for content in ([one], one, {"predictions": [[one]]}, {"instances": [one]}):
        found = keypoint_files.read(written(tmp_path / "one", content))
        np.testing.assert_allclose(found.people[0].points[0], body[0])
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, points in enumerate(body):
        written(folder / f"img_{t}", [one | {"keypoints": points.tolist()}])
    np.testing.assert_allclose(keypoint_files.read(folder).people[0].points, body)


def test_ultralytics_texts_and_mediapipe_landmarks(body, tmp_path):
    person = {"name": "person", "keypoints": {"x": body[0, :, 0].tolist(), "y": body[0, :, 1].tolist()}, "track_id": 4}
    found = keypoint_files.read(written(tmp_path / "texts", [json.dumps([person, {"name": "dog", "box": {}}])] * 5))
    assert found.frames == 5 and found.people[0].identity == 4
    face = from_h36m((load_starter().test[0].keypoints[:5] + 1) / 2, "blazepose-33")
    rows = [[{"x": x, "y": y, "z": -0.2, "visibility": 0.8} for x, y in t] for t in face.tolist()]
    for content in (rows, [{"landmarks": t} for t in rows], [[t] for t in rows]):
        found = keypoint_files.read(written(tmp_path / "mp", content), size=(1000, 1000))
        assert (found.frames, found.layout) == (5, "blazepose-33")
        np.testing.assert_allclose(found.people[0].points[:, 11], face[:, 11] * 1000, atol=0.1)
    columns = np.concatenate((face, np.full((5, 33, 1), -0.2), np.full((5, 33, 1), 0.8)), -1)
    np.save(tmp_path / "mp.npy", columns)
    found = keypoint_files.read(tmp_path / "mp.npy", size=(1000, 1000))
    assert "z is left out" in found.notes[0] and found.people[0].scores[0, 0] == np.float32(0.8)


@pytest.mark.parametrize("content", [{"a": 1}, "text", 3, [{"b": 2}], [["x"]], {"annotations": 3}, [None]])
def test_what_is_of_no_form_is_told_the_forms(content, tmp_path):
    with pytest.raises(DataError, match="x.json") as error:
        keypoint_files.read(written(tmp_path / "x", content))
    assert "\n" not in str(error.value)
    if content != [["x"]]:
        assert f"JSON of no known form (known: {keypoint_files.FORMS})" in str(error.value)


def test_a_video_is_chosen_from_the_command_line(body, tmp_path):
    frames = clip(body, names=[f"left_{t}.jpg" for t in range(30)]) + clip(
        body, names=[f"right_{t}.jpg" for t in range(30)]
    )
    path = alphapose(tmp_path / "x", frames)
    assert run(["lift", str(path), "--clip", "left", "--size", "1920x1080", "-o", str(tmp_path / "x.npz")]) == 0
    with pytest.raises(ValueError, match="holds 2 videos"):
        run(["lift", str(path), "-o", str(tmp_path / "x.npz")])
    np.save(tmp_path / "y.npy", body)
    with pytest.raises(DataError, match="--clip left: its frames have no names"):
        keypoint_files.read(tmp_path / "y.npy", clip="left")


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900, json.dumps(["[" * 100_000])], ids=["lists", "texts of lists"])
def test_what_is_nested_too_deeply_is_told_in_one_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="^[^\n]*a.json: [^\n]*$"):
        keypoint_files.read(tmp_path / "a.json")


def test_reading_holds_few_copies(tmp_path):
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.normal(0, 0.1, (20000, 1, 2)), 0) + rng.uniform(200, 600, (1, 17, 2))
    array = np.concatenate((path, rng.uniform(0.5, 1, (20000, 17, 1))), -1).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    tracemalloc.start()
    try:
        keypoint_files.read(tmp_path / "a.npy", size=(1920, 1080))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * array.nbytes


def test_people_who_stand_on_their_heads_are_told(body, tmp_path):
    """Plots count y upwards; whoever lies, or stands on their hands for a while, is no reason to doubt."""

    def told(points):
        np.save(tmp_path / "clip.npy", points[:, None].astype(np.float32))
        return [note for note in keypoint_files.read(tmp_path / "clip.npy", None, SIZE, None).notes if "upside" in note]

    upwards = body * (1, -1) + (0, 1080)
    assert told(upwards) == ["warning: 100% of the people are upside down; is y, in pixels, counted downwards?"]
    assert told(body * -1 + SIZE)
    lying = body[..., ::-1]
    assert not told(body) and not told(lying) and not told(np.concatenate((body, upwards[:20])))


def test_what_is_too_far_away_for_pixels_is_told(body, tmp_path):
    np.save(tmp_path / "far.npy", body[:, None] * np.float32(1e8))
    with pytest.raises(DataError, match=r"nobody in it: coordinates up to .*e\+\d\d are no pixels"):
        keypoint_files.read(tmp_path / "far.npy", None, SIZE, None)


def test_an_empty_list_holds_no_detection(tmp_path):
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DataError, match="nobody in it: it holds no detection"):
        keypoint_files.read(tmp_path / "empty.json", None, SIZE, None)
