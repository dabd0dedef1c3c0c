"""bench.people and bench.detector_errors: figures of people whose errors are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import detector_errors, people
from posekernels.people.lifter import Person
from posekernels.people.world import facing
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import ADULT, motions


@pytest.fixture(scope="module")
def case():
    recording = max(motions(load_starter().test), key=len)[:120]
    return next(people.synthetic([("starter", recording)]))


def perfect(case: people.Case) -> Person:
    truth = case.truth.astype(np.float32)
    world = truth @ facing(case.up).astype(np.float32).T
    pixels = truth[..., :2] / truth[..., 2:] * case.focal + np.array(case.size) / 2
    scores = np.ones(truth.shape[:2], np.float32)
    return Person(1, pixels, scores, truth - truth[:, :1], world)


def test_a_perfect_person_has_no_errors(case):
    found = people.figures(case, perfect(case))
    assert found["MPJPE"] < 0.1 and found["P-MPJPE"] < 0.1 and found["knees"] < 0.1 and found["swaps"] == 0
    assert found["bones"] < 2 and found["drift"] < 1e-3 and found["shaking"] == pytest.approx(1, abs=1e-3)
    assert not found["slide"] > people.PLANTED


def test_each_figure_sees_its_error(case):
    person = perfect(case)
    person.poses[:, [1, 2, 3, 4, 5, 6]] = person.poses[:, [4, 5, 6, 1, 2, 3]]
    assert people.figures(case, person)["swaps"] > 90
    person = perfect(case)
    person.world = person.world + np.linspace(0, 1, len(person.world))[:, None, None] * np.float32([1, 0, 0])
    assert people.figures(case, person)["drift"] == pytest.approx(0.95, abs=0.02)
    person = perfect(case)
    person.poses[::2, 13] += 0.1 * (person.poses[::2, 13] - person.poses[::2, 12])
    assert people.figures(case, person)["bones"] > 1
    person = perfect(case)
    person.poses[:, 3] = person.poses[:, 2] + (person.poses[:, 2] - person.poses[:, 1])
    assert people.figures(case, person)["knees"] > 1
    person = perfect(case)
    person.poses *= 1.1
    found = people.figures(case, person)
    assert found["MPJPE"] > 20 and found["P-MPJPE"] < 0.1, "size alone"


def test_walkers_walk_on_level_ground():
    """Somebody who steps along, half a second a step; up a stair, with every step, that is no level ground."""
    pose = max(motions(load_starter().test), key=len)[:1]
    at = 0.3 * (np.arange(250) // 25)

    def walkers(rise: float) -> float:
        world = pose + np.stack((at, 0 * at, rise * at), -1)[:, None]
        case = next(people.synthetic([("steps", world.astype(np.float32))]))
        return people.figures(case, perfect(case))["walkers"]

    assert walkers(0.0) < 0.1 and np.isnan(walkers(0.5))


def test_who_sways_along_the_view_is_told_apart(case):
    pose = np.repeat(case.truth[:1] - case.truth[0, 0], 300, 0)
    sway = np.outer(0.04 * np.sin(np.arange(300) / 40), facing(case.up)[1])
    moving = [0, *range(7, 17)]
    pose[:, moving] += sway[:, None]
    swaying = replace(case, truth=pose + (0, 0, 4.0))
    found = people.figures(swaying, perfect(swaying))
    assert found["stands"] < 1e-3 and 0.04 < found["sways"] < 0.08


def test_flat_goes_through_and_errors_are_measured(case):
    assert np.isnan(case.track.points).any() and (case.track.scores == 0).any(), "some joints are not seen"
    found = people.measured(case, None, 15)
    assert 80 < found["P-MPJPE"] < 300 and set(found) == set(people.COLUMNS)
    table = people.table("title", {"flat": found})
    assert table.splitlines()[0] == "title" and f"{found['P-MPJPE']:.1f}" in table


def test_live_lifting_is_measured_beside_offline(case, capsys):
    found = people.latencies([case], people.load_lifter(), [0], smooth=15)["means"]
    assert list(found) == ["latency 0", "offline"] and found["offline"]["delay"] <= 20 < found["latency 0"]["delay"]
    assert found["latency 0"]["P-MPJPE"] < 200 and "latency 0" in capsys.readouterr().out
    for more in (["--weights", "x"], ["--wheel", "x"], ["--each"]):
        with pytest.raises(ValueError, match="--latency is of the shipped weights"):
            people.main(["--latency", *more])
    motion_ = np.arange(12.0).reshape(6, 2)
    np.testing.assert_allclose(people.at(motion_, np.array([1.5, 4.0])), [[3, 4], [8, 9]])


def camera(x: float, y: float) -> dict:
    """At (x, y, 1), looking at the middle of the floor's square, z up."""
    away = -np.array([x, y, 0.0]) / np.hypot(x, y)
    right = np.cross(away, (0, 0, 1.0))
    return {
        "turn": np.stack((right, (0, 0, 1.0), -away)),
        "centre": np.array([x, y, 1.0]),
        "focal": np.array([1000.0, 1000.0]),
        "principal": np.array([500.0, 500.0]),
    }


def test_joints_are_triangulated_from_the_views_that_agree():
    random = np.random.default_rng(0)
    truth = random.uniform(-0.5, 0.5, (17, 3)) + (0, 0, 1)
    rig = [camera(*place) for place in ((4, 0), (0, 4), (-4, 1), (1, -4))]
    views = [people.pose2sim.project(truth, c) for c in rig]
    views[0][5] += 200  # one view is wrong about one joint
    views[2][7] = np.nan  # another does not see one
    found, off = detector_errors.triangulated(views, rig)
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert off < 1e-6
    somebody = random.uniform(-0.5, 0.5, (17, 3)) + (0.5, 0, 1)
    frames = [[views[n], people.pose2sim.project(somebody, c)] for n, c in enumerate(rig)]
    frames[1].reverse()
    matched = detector_errors.matched(frames, rig)
    assert len(matched) == 2
    assert sorted(np.linalg.norm(joints - truth).round(3) < 0.01 for _, joints in matched) == [False, True]
    for seen, joints in matched:
        assert all(v is frames[n][0] or v is frames[n][1] for n, v in enumerate(seen))
        assert np.isfinite(joints).all()


def test_a_detectors_errors_are_told_apart():
    """Bias, what lasts, what is new in each frame; of a view that is moved and scaled as a whole, no error."""
    random = np.random.default_rng(0)
    V, T = 4, 400
    shape = random.uniform(-1, 1, (V, 1, 17, 2))
    shape -= shape[:, :, :1]
    pixels = 100.0 * np.broadcast_to(shape, (V, T, 17, 2)) + 500
    bias = random.normal(0, 0.03, (V, 1, 17, 2))
    lasting = random.normal(0, 0.04, (V, T, 17, 2))
    for t in range(1, T):
        lasting[:, t] = 0.8 * lasting[:, t - 1] + 0.6 * lasting[:, t]
    error = bias + lasting + random.normal(0, 0.02, (V, T, 17, 2))
    unit = detector_errors.unit_of(pixels)[..., None, None]
    error += 0.05 + 0.04 * (pixels - 500) / unit  # somewhere else, and larger
    error[0, :20, 13] = 1.0
    error[1, :40, 16] = np.nan
    found = detector_errors.summary(error, pixels)
    rows, swallowed = found["joints"], (8 / 5) ** 0.5
    assert rows["knees"]["lasting"] == pytest.approx(0.04 * swallowed, rel=0.15)
    assert rows["knees"]["white"] == pytest.approx(0.02, rel=0.25)
    assert rows["wrists"]["far"] == pytest.approx(100 * 20 / (2 * V * T - 40), abs=0.3) and rows["knees"]["far"] < 1
    assert rows["wrists"]["unseen"] == pytest.approx(100 * 40 / (2 * V * T))
    assert 0.02 < np.mean([row["bias"] for row in rows.values()]) / swallowed < 0.04
    assert found["lasts_ms"] == pytest.approx(-1000 / np.log(0.8) / 60, rel=0.2)
    assert found["swapped"] == {"legs": 0, "arms": 0}


def test_training_bodies_have_the_bones_that_detectors_show():
    """Motion capture's are other: the starter set's legs are two trunks long, the model's and real people's 1.5."""
    measured = json.loads((Path(people.__file__).parent / "results/detector_errors.json").read_text())
    body = measured["OpenPose's joints on the model"]["body"]
    adult = {name: float(ADULT[[bone for _, bone in pairs]].mean()) for name, pairs in detector_errors.BONES.items()}
    adult |= {"trunk": float(ADULT[[7, 8]].sum()), "hips": 2 * adult["hips"], "shoulders": 2 * adult["shoulders"]}
    own = detector_errors.in_trunks(adult)
    assert own == {name: pytest.approx(length, rel=0.02) for name, length in body.items()}
    standing = measured["OpenPose, a picture of who stands"]["body"]
    assert standing["legs"] == pytest.approx(own["legs"], rel=0.1) and standing["knees"] > 170


def test_views_of_somebody_filmed_are_cases(case, monkeypatch):
    """The detections as they came, the joints in each camera's axes; views that hardly show the person are left out."""
    joints = (case.truth[:20] - case.truth[0, 0]) @ facing(case.up).T + (0, 0, 1.0)
    rig = [camera(*place) for place in ((4, 0), (0, 4), (-4, 1))]
    pixels = [people.pose2sim.project(joints, c) for c in rig]
    views = [[[found + 2] for found in view] for view in pixels]
    views[2][5:] = [[] for _ in views[2][5:]]
    filmed = detector_errors.Filmed("somebody", views, rig, joints, None)
    monkeypatch.setattr(detector_errors, "filmed", lambda wheel: filmed)
    cases = list(people.chosen_on("a wheel"))
    assert [c.name for c in cases] == ["somebody, view 1", "somebody, view 2"]
    for c, seen in zip(cases, pixels):
        np.testing.assert_allclose(c.track.points, seen + 2, atol=1e-2)
        np.testing.assert_allclose(c.truth[..., :2] / c.truth[..., 2:] * c.focal + 500, seen, atol=1e-6)
        np.testing.assert_allclose(c.up, (0, -1, 0), atol=1e-9)


def test_another_wheel_is_refused_by_the_names_of_all(tmp_path):
    (tmp_path / "some.whl").write_bytes(b"no wheel")
    with pytest.raises(ValueError, match=r"some\.whl: neither .*0\.10\.49.* nor .*0\.8\.4.*, nor .*0\.3\.9"):
        people.main(["--wheel", str(tmp_path / "some.whl")])


def test_a_models_bones_lie_between_its_markers(tmp_path):
    """Bodies hang on each other by offsets on either side of a joint; markers are given in their body's axes."""
    offsets = {
        "hip_r": ((0, -0.1, 0.1), (0, 0, 0)),
        "walker_knee_r": ((0, -0.4, 0), (0, 0.01, 0)),
        "back": ((0, 0.1, 0), (0, 0, 0)),
        "acromial_r": ((0, 0.4, 0.2), (0, 0, 0)),
        "elbow_r": ((0, -0.3, 0), (0, 0, 0)),
        "radioulnar_r": ((0, 0, 0.02), (0, 0, 0)),
    }
    frame = "<PhysicalOffsetFrame><translation>{} {} {}</translation></PhysicalOffsetFrame>"
    hung = "".join(
        f"<CustomJoint name='{name}'>{''.join(frame.format(*at) for at in both)}</CustomJoint>"
        for name, both in offsets.items()
    )
    model = f"<OpenSimDocument><Model><JointSet><objects>{hung}</objects></JointSet></Model></OpenSimDocument>"
    (tmp_path / "Model_Pose2Sim_simple.osim").write_text(model)
    markers = {
        "RHip": ("pelvis", (0, -0.1, 0.1)),
        "RKnee": ("femur_r", (0, -0.4, 0)),
        "RAnkle": ("tibia_r", (0, -0.4, 0)),
        "RShoulder": ("torso", (0, 0.4, 0.2)),
        "RElbow": ("humerus_r", (0, -0.3, 0)),
        "RWrist": ("radius_r", (0, -0.25, -0.02)),
    }
    place = (
        "<Marker name='{}'><socket_parent_frame>/bodyset/{}</socket_parent_frame><location>{} {} {}</location></Marker>"
    )
    rows = "".join(place.format(name, body, *at) for name, (body, at) in markers.items())
    (tmp_path / "Markers_Body25b.xml").write_text(f"<Markers>{rows}</Markers>")
    bones = {"trunk": 0.6, "hips": 0.2, "shoulders": 0.4, "thigh": 0.4, "shin": 0.41, "upper arm": 0.3, "forearm": 0.25}
    assert detector_errors.marked(tmp_path) == {name: pytest.approx(length) for name, length in bones.items()}
    assert detector_errors.in_trunks(bones)["legs"] == pytest.approx(0.81 / 0.6)


def test_left_for_right_is_counted():
    random = np.random.default_rng(1)
    pixels = np.broadcast_to(500 + 100 * random.uniform(-1, 1, (1, 1, 17, 2)), (1, 10, 17, 2))
    seen = pixels.copy()
    seen[0, :3, [1, 2, 3, 4, 5, 6]] = pixels[0, :3, [4, 5, 6, 1, 2, 3]]
    unit = detector_errors.unit_of(pixels)[..., None, None]
    assert detector_errors.swapped((seen - pixels) / unit, pixels) == {"legs": 30, "arms": 0}
