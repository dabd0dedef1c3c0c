"""``posekernels lift`` and its neighbours, from the command line on: what comes out, what is said when it cannot."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tqdm import tqdm

from posekernels import extras, models, people
from posekernels.__main__ import run
from posekernels.cli import Stopped
from posekernels.models.load import About, save_weights
from posekernels.people import detect, keypoint_files, pose_files
from posekernels.people.commands import lift as command
from posekernels.people.lifter import Person, between, filled, in_h36m, lift_person, load_lifter, stretches
from posekernels.people.live import Live, LivePerson
from posekernels.people.tracking import Sighting, Track, Tracker
from posekernels.people.video import Video
from posekernels.people.world import Lifted, stand, upright
from posekernels.pose.camera import camera_to_world, normalise_screen
from posekernels.pose.keypoints import coco_to_h36m
from posekernels.pose.layouts import from_h36m
from posekernels.pose.skeleton import H36M_17, skeleton
from posekernels.train.data.motion import load_starter
from tests.people.films import film_in


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """[40, 17, 2] pixels of 1000 x 1000, H36M-17."""
    return ((load_starter().test[0].keypoints[:40] + 1) * 500).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, walk):
    """Weights of a tiny lifter and forecaster, and keypoints of two people."""
    folder = tmp_path_factory.mktemp("lift")
    torch.manual_seed(0)
    config = {"strides": [3, 3], "layers": 1, "channels": 16, "hidden": 16, "heads": 2}
    save_weights(
        models.create("strided_transformer", **config).eval(),
        folder / "lifter.safetensors",
        About("strided_transformer", config, "person"),
    )
    config = {"joints": 17, "history": 10, "future": 5, "blocks": 2, "distill_blocks": 1}
    save_weights(models.create("pkd", **config), folder / "forecaster.safetensors", About("pkd", config, fps=25.0))
    coco = from_h36m(walk, "coco-17")
    np.save(folder / "two.npy", np.stack((coco, coco + (300, 0))).astype(np.float32))
    return folder


def go(*arguments) -> int:
    return run([str(a) for a in arguments])


def lift(folder, out, *options) -> int:
    weights = folder / "lifter.safetensors"
    return go("lift", folder / "two.npy", "--weights", weights, "--size", "1000x1000", "-o", out, *options)


def test_keypoints_to_every_form_in_one_go(folder, tmp_path, capsys):
    outs = [tmp_path / f"x{s}" for s in (".npz", ".json", ".trc", ".bvh", ".glb", ".gif", ".html")]
    more = [word for out in outs[1:] for word in ("-o", out)]
    assert lift(folder, outs[0], *more, "--panel", 48) == 0
    assert all(out.stat().st_size > 500 for out in outs) and (tmp_path / "x-2.bvh").is_file()
    said = capsys.readouterr().err
    for stage in ("reading", "lifting", "writing", "drawing"):
        assert f"{stage} " in said
    assert "person 1: frames 1 to 40 of 40 (0.0 to 1.3 s); projected back, " in said
    people = pose_files.read(outs[0]).people
    assert [p.identity for p in people] == [1, 2]
    assert np.isfinite(people[0].world).all() and abs(people[0].world[..., 2].min()) < 0.5
    assert len(json.loads(outs[1].read_text())["people"]) == 2


def test_two_people_in_one_run_are_lifted_as_each_alone(folder, tmp_path, walk):
    lift(folder, tmp_path / "two.npz")
    both = pose_files.read(tmp_path / "two.npz").people
    lifter = load_lifter(None, folder / "lifter.safetensors")
    coco = from_h36m(walk, "coco-17")
    track = in_h36m(Track(1, coco + (300, 0), np.ones((40, 17), np.float32)), "coco-17")
    alone = lift_person(lifter, track, size=(1000, 1000), fps=30, smooth=command.window(0.25, 30))
    legs = [2, 3, 5, 6]  # which reach for the floor that both share
    np.testing.assert_allclose(*(np.delete(p.poses, legs, 1) for p in (both[1], alone)), atol=1e-5)
    long = [np.linalg.norm(p.poses[:, legs] - p.poses[:, [1, 2, 4, 5]], axis=-1) for p in (both[1], alone)]
    np.testing.assert_allclose(*long, atol=1e-5)


def test_few_frames_a_second_are_lifted_as_well_as_many(tmp_path, capsys):
    """Every fifth frame of a dance: answered at these frames, about as near to the truth as with all of them."""
    clip = next(c for c in load_starter().test if c.action == "Dance 1")
    truth = clip.positions.copy()
    truth[:, 0] = 0
    pixels = from_h36m((clip.keypoints + 1) * 500, "coco-17")
    off = {}
    for fps in (50, 10):
        np.save(tmp_path / "x.npy", pixels[:: 50 // fps])
        how = ["lift", tmp_path / "x.npy", "--size", "1000x1000", "--focal", 1145, "--smooth", 0, "--fps", fps]
        assert go(*how, "-o", tmp_path / "x.npz") == 0
        poses = pose_files.read(tmp_path / "x.npz").people[0].poses
        off[fps] = np.linalg.norm(poses - truth[:: 50 // fps], axis=-1).mean()
        steps, _ = load_lifter().pace(fps)
        assert (f"{fps} frames/s are few: {steps} times as many are lifted" in capsys.readouterr().err) == (steps > 1)
    assert off[10] < 1.1 * off[50]
    assert go(*how, "-o", tmp_path / "x.npz", "--latency", 3) == 0
    assert "warning: --latency at 10 frames/s" in capsys.readouterr().err
    assert np.array_equal(between(truth[:2, :, :2], 2), [truth[0, :, :2], truth[:2, :, :2].mean(0), truth[1, :, :2]])


def test_a_short_gap_is_bridged_and_a_long_one_stays_empty(folder, walk, monkeypatch):
    monkeypatch.setattr(
        "posekernels.people.lifter.one_skeleton", lambda poses, lengths: poses
    )  # which all frames share
    lifter = load_lifter(None, folder / "lifter.safetensors")
    points, scores = walk.copy(), np.ones((40, 17), np.float32)
    for frames in (slice(5, 8), slice(15, 30)):
        points[frames], scores[frames] = np.nan, 0
    person = lift_person(lifter, Track(1, points, scores), size=None, bridge=4)
    assert np.flatnonzero(~person.present).tolist() == list(range(15, 30))
    first = lift_person(lifter, Track(1, points[:15], scores[:15]), size=None, bridge=4)
    np.testing.assert_array_equal(person.poses[:15], first.poses)  # nothing leaks across the gap
    np.testing.assert_allclose(person.points[6], (walk[4] + walk[8]) / 2, rtol=1e-5)


def test_gaps():
    present = np.array([0, 1, 1, 0, 0, 1, 0, 0, 0, 1], bool)
    assert stretches(present, 2) == [slice(1, 6), slice(9, 10)] and stretches(present, 3) == [slice(1, 10)]
    assert stretches(np.zeros(4, bool), 2) == []


def test_joints_never_seen_are_a_standing_persons(walk):
    gone = walk.copy()
    gone[:, 3] = np.nan  # an ankle
    below = filled(gone)[:, 3] - walk[:, 2]
    trunk = np.linalg.norm(walk[:, 8] - walk[:, 0], axis=-1)
    assert (below[:, 0] == 0).all() and (below[:, 1] > 0.8 * trunk).all()
    gone[:, :8] = np.nan  # everything below the shoulders' middle: behind a table
    found = filled(gone)
    np.testing.assert_array_equal(found[:, 11:], walk[:, 11:])
    assert np.linalg.norm(found - walk, axis=-1).mean() < 0.4 * trunk.mean()


def test_nose_and_head_tell_each_other(walk):
    gone = walk.copy()
    gone[:20, 9], gone[20:, 10] = np.nan, np.nan
    found = filled(gone)
    np.testing.assert_allclose(found[:20, 9], (walk[:20, 8] + walk[:20, 10]) / 2)
    np.testing.assert_allclose(found[20:, 10], 2 * walk[20:, 9] - walk[20:, 8])
    gone[:, 9:11] = np.nan
    assert (filled(gone)[:, 10, 1] < walk[:, 8, 1]).all(), "a head that is never seen is above the shoulders"


def test_a_joint_out_of_sight_goes_along(folder, walk):
    walking = walk + 20 * np.arange(40, dtype=np.float32)[:, None, None]  # 800 pixels across the image
    gone = walking.copy()
    gone[25:, [2, 3]] = np.nan  # a knee and an ankle, to the end
    gone[:3, 0], gone[10:13] = np.nan, np.nan
    found = filled(gone)
    np.testing.assert_array_equal(found[np.isfinite(gone)], gone[np.isfinite(gone)])
    np.testing.assert_allclose(
        found[25:, 3] - found[25:, 1], (gone[24, 3] - gone[24, 1])[None].repeat(15, 0), atol=1e-2
    )
    np.testing.assert_allclose(found[11], (2 * gone[9] + 2 * gone[13]) / 4, atol=1e-2)
    assert np.linalg.norm(found - walking, axis=-1).max() < 60
    lifter = load_lifter(None, folder / "lifter.safetensors")
    live = Live(lifter, 0, 15, size=None, focal=None, fps=30, smooth=True)
    for frame in gone:
        live.push([(1, frame, np.isfinite(frame).all(-1).astype(np.float32))])
    person = live.finish()[0]
    np.testing.assert_allclose(person.points[-1, 3] - person.points[-1, 1], gone[24, 3] - gone[24, 1], atol=1e-2)


@pytest.mark.parametrize(("sees", "fps", "apart"), [("person", 15, 1), ("person", 60, 3), ("screen", 60, 1)])
@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("length", [40, 18, 2])
def test_live_with_full_latency_is_the_offline_result(folder, walk, sees, fps, apart, more, length):
    lifter = load_lifter(None, folder / "lifter.safetensors")
    lifter.net.sees, latency = sees, 4 * apart + more
    assert lifter.pace(fps) == ((1, apart) if sees == "person" else (1, 1))
    frames = walk[:length] - walk[:length, :1]  # of one size, so that a running mean of the size is the mean around
    frames = walk[:length, :1] + 200 * frames / np.linalg.norm(frames, axis=-1).mean(-1)[:, None, None]
    live = LivePerson(lifter, latency, size=(1000, 1000), focal=1000.0, fps=fps, smooth=False)
    lift = models.lift
    with pytest.MonkeyPatch.context() as patch:  # live, the mirrored copy is left out; of the network's pose alone
        patch.setattr("posekernels.people.live.agreeing", lambda poses, *_, **__: poses)
        patch.setattr(models, "lift", lambda net, keypoints, apart: lift(net, keypoints, mirrored=False, apart=apart))
        poses = [pose for frame in frames if (pose := live.push(frame)) is not None]
        assert len(poses) == max(0, length - latency)
        poses = np.array(poses + live.finish())
        wanted = lifter(frames, (1000, 1000), 1000.0, fps)
    np.testing.assert_allclose(poses, wanted, atol=1e-5)
    if length > 2:  # else nobody moves
        assert np.abs(poses[1:] - poses[:-1]).max() > 1e-3


def test_live_people_are_bodies_too(folder, walk):
    """Limbs as long on both sides, and no leap where left and right are exchanged."""
    lifter, found = load_lifter(None, folder / "lifter.safetensors"), {}
    for exchanged in (False, True):
        frames = walk.copy()
        if exchanged:
            frames[20:23, [1, 2, 3, 4, 5, 6]] = walk[20:23, [4, 5, 6, 1, 2, 3]]
        live = LivePerson(lifter, 0, size=(1000, 1000), focal=1000.0, fps=30, smooth=False)
        found[exchanged] = np.array([live.push(frame) for frame in frames])
    np.testing.assert_allclose(found[True], found[False], atol=1e-5)
    limbs = [np.linalg.norm(found[True][:, a] - found[True][:, b], axis=-1) for a, b in ((1, 2), (4, 5))]
    np.testing.assert_allclose(*limbs, rtol=1e-3)


def test_live_keeps_people_apart_and_frames_in_place(folder, tmp_path):
    weights = folder / "lifter.safetensors"
    arguments = ["lift", folder / "two.npy", "--weights", weights, "-o", tmp_path / "live.npz", "--smooth", 0]
    assert go(*arguments, "--latency", 2) == 0
    one, two = pose_files.read(tmp_path / "live.npz").people
    assert one.present.all() and np.abs(np.diff(one.poses, axis=0)).max() > 0.01
    np.testing.assert_allclose(one.poses, two.poses, atol=1e-4)  # the same motion beside: nothing is mixed up


def test_the_search_covers_wide_and_tall_images():
    from posekernels.people.detect import Region, anchors, squares

    assert anchors().shape == (2254, 2) and len(squares(640, 600)) == 1
    for width, height in ((1768, 994), (994, 1768)):
        whole, *parts = squares(width, height)
        assert whole.side == 1768 and len(parts) == 3 and {p.side for p in parts} == {994}
        first, last = parts[0].to_image(np.zeros((1, 2))), parts[-1].to_image(np.ones((1, 2)))
        np.testing.assert_allclose((first, last), (((0, 0),), ((width, height),)), atol=1e-9)
    turned = Region.around(np.array([50.0, 50]), np.array([70.0, 50]))  # lying, head to the right
    np.testing.assert_allclose(turned.to_image(np.array([[0.5, 0.0]])), [[75, 50]], atol=1e-9)
    from PIL import Image

    image = np.zeros((100, 100, 3), np.uint8)
    image[45:55, 70:80] = 255
    assert turned.cut(Image.fromarray(image), 50)[:10, 20:30].mean() > 60, "what lies to the right comes out on top"


def test_tracks_survive_crossing_and_coming_back():
    tracker, shape = Tracker(), np.random.default_rng(0).uniform(0, 100, (17, 2)).astype(np.float32)
    for t in range(60):
        people = [Sighting(shape + (10 * t, 0), np.ones(17)), Sighting(shape + (600 - 10 * t, 90), np.ones(17))]
        tracker.add(people[:1] if 40 <= t < 50 else people[:: -1 if t % 3 else 1])
    a, b = sorted(tracker.people, key=lambda p: p.first[0][0])
    assert len(tracker.people) == 2
    assert len(a.frames) == 60 and len(b.frames) == 50 and a.last.points[0, 0] == shape[0, 0] + 590


def test_people_stand_on_the_floor(walk):
    poses = load_starter().test[0].positions[:40].copy()
    poses[:, 0] = 0

    class Somebody:
        present = np.ones(40, bool)

    someone = Somebody()
    someone.poses = poses
    turned = poses @ upright([someone]).T
    body = turned[:, 8] - (turned[:, 3] + turned[:, 6]) / 2
    tilt = np.degrees(np.arccos(body[:, 2] / np.linalg.norm(body, axis=-1)))
    assert np.median(tilt) < 8, "from a camera that looks down on them, people come out upright"


def test_the_error_of_back_projection_is_that_of_the_keypoints():
    poses = load_starter().test[0].positions[:40].copy()
    poses[:, 0] = 0
    placed = poses + (0.3, -0.2, 4.0)
    points = (placed[..., :2] / placed[..., 2:] * 1200 + (500, 400)).astype(np.float32)
    for error, low, high in ((0.0, 0.0, 0.1), (10.0, 8.0, 12.0)):
        moved = points + error * np.where(np.arange(17) % 2, 1, -1)[:, None] * np.array([1.0, 0.0])
        someone = Person(1, moved, np.ones((40, 17), np.float32), poses)
        stand([someone], (1000, 800), 1200.0)
        assert low <= someone.off <= high
    stand([someone], None)
    assert someone.off is None


@pytest.mark.parametrize("times", [1, 10])
def test_back_projection_that_is_far_off_asks_for_what_was_given(times):
    poses = load_starter().test[0].positions[:40].copy()
    poses -= poses[:, :1]
    placed = times * poses + (0.3, -0.2, 4.0 * times)  # however large in the image
    points = (placed[..., :2] / placed[..., 2:] * 1200 * times + (500, 400)).astype(np.float32)
    size = np.median(np.linalg.norm(points[:, 1:] - points[:, :1], axis=-1))
    for off, high in ((0.1, False), (0.2, True)):
        someone = Person(1, points, np.ones((40, 17), np.float32), poses, off=float(off * size))
        someone.points[:5], someone.scores[:5] = 0, 0  # not seen: their numbers say nothing
        told = next(line for line in command.describe(Lifted([someone], 30.0, (1000, 800))) if "projected" in line)
        assert ("px off in the median (high: is --fps, --size or --focal right?)" in told) == high


def test_people_who_are_kept_are_numbered_from_one(folder, tmp_path, capsys):
    two = np.load(folder / "two.npy")
    np.save(tmp_path / "three.npy", np.stack((two[0], np.full_like(two[0], np.nan), two[1])))
    weights, out = folder / "lifter.safetensors", tmp_path / "x.npz"
    assert go("lift", tmp_path / "three.npy", "--weights", weights, "--size", "1000x1000", "-o", out) == 0
    assert [person.identity for person in pose_files.read(out).people] == [1, 2]
    said = capsys.readouterr().err
    assert "person 2: frames" in said and "person 3" not in said


def test_forecast_walks_on_from_the_last_frame(folder, tmp_path, capsys):
    lift(folder, tmp_path / "past.npz")
    out = tmp_path / "future.npz"
    weights = folder / "forecaster.safetensors"
    assert go("forecast", tmp_path / "past.npz", "-o", out, "--weights", weights, "--seconds", 0.5) == 0
    past, future = pose_files.read(tmp_path / "past.npz"), pose_files.read(out)
    assert future.frames == 40 + 15
    np.testing.assert_array_equal(future.people[0].world[:40], past.people[0].world)
    step = np.linalg.norm(np.diff(future.people[0].world, axis=0), axis=-1)
    assert np.isfinite(step).all() and step[39:].max() < 0.2, "an untrained forecaster stands still: no jump"
    two = "-o", tmp_path / "f.html", "-o", tmp_path / "f.json"
    assert go("forecast", tmp_path / "past.npz", *two, "--weights", weights, "--at", 0.8) == 0
    assert (tmp_path / "f.html").is_file() and (tmp_path / "f.json").is_file()
    film = film_in(tmp_path / "f.html")
    assert [b["name"] for b in film["bodies"]] == ["Person 1", "Person 2"] and (film["now"], film["frames"]) == (24, 54)
    assert [f["name"] for f in film["files"]] == ["f.json"], "what lies beside it"
    assert pose_files.read(out).source == pose_files.read(tmp_path / "f.json").source != past.source, (
        "no video shows it"
    )


def test_render_draws_a_forecast_as_forecast_does(folder, tmp_path, monkeypatch, capsys):
    lift(folder, tmp_path / "past.npz")
    drawn, page = [], tmp_path / "x.html"
    monkeypatch.setattr(command.pictures, "save", lambda out, panels, *_how, **_more: drawn.append(panels) or out)
    how = ["--weights", folder / "forecaster.safetensors", "--seconds", 0.5, "--at", 0.8]
    outs = [f for name in ("f.npz", "f.json", "f.html", "f.gif") for f in ("-o", tmp_path / name)]
    assert go("forecast", tmp_path / "past.npz", *outs, *how) == 0
    wanted, (panel, _) = film_in(tmp_path / "f.html"), drawn.pop()
    assert wanted["now"] == 24
    monkeypatch.setattr(pose_files, "by_frames", lambda lifted: True)
    assert go("render", tmp_path / "f.npz", "-o", tmp_path / "sparse.npz") == 0
    for name in ("f.npz", "sparse.npz", "f.json"):
        capsys.readouterr()
        assert go("render", tmp_path / name, "-o", page, "-o", tmp_path / "x.gif") == 0
        assert f"{name} is a forecast: drawn as posekernels forecast draws it" in capsys.readouterr().err
        film, (again, _) = film_in(page), drawn.pop()
        assert (film["now"], film["frames"]) == (24, wanted["frames"])
        assert (film["bodies"] == wanted["bodies"]) or name == "f.json", "which holds four digits"
        assert again.captions == panel.captions and again.faded == panel.faded
        np.testing.assert_allclose(again.points, panel.points, atol=1e-4)
    assert go("render", tmp_path / "f.npz", "-o", tmp_path / "x.gif", "--picture-fps", 10) == 0
    assert "now" in (captions := drawn.pop()[0].captions) and len(captions) == wanted["frames"] // 3
    with pytest.raises(ValueError, match="--video .*past.npz: .*f.npz is a forecast, which no video shows"):
        go("render", tmp_path / "f.npz", "-o", page, "--video", tmp_path / "past.npz")
    content = dict(np.load(tmp_path / "f.npz"))
    np.savez(tmp_path / "bad.npz", **content | {"now": 39})
    with pytest.raises(ValueError, match="bad.npz: now: expected how many of the 39 frames were seen, got 39"):
        go("render", tmp_path / "bad.npz", "-o", page)
    del content["now"]  # as files were written before
    np.savez(tmp_path / "old.npz", **content)
    assert go("render", tmp_path / "old.npz", "-o", page) == 0
    assert "old.npz is a forecast, but does not say where it begins" in capsys.readouterr().err


def test_a_forecast_of_a_forecast_goes_on_from_what_was_seen(folder, tmp_path, capsys, monkeypatch):
    lift(folder, tmp_path / "past.npz")
    how = ["--weights", folder / "forecaster.safetensors", "--seconds", 0.5]
    assert go("forecast", tmp_path / "past.npz", "-o", tmp_path / "f.npz", "-o", tmp_path / "f.json", *how) == 0
    once = pose_files.read(tmp_path / "f.npz")
    for many in (1 << 16, 1):  # and as of a long file, of which only the end is read
        monkeypatch.setattr(pose_files, "MANY", many)
        for name in ("f.npz", "f.json"):
            capsys.readouterr()
            assert go("forecast", tmp_path / name, "-o", tmp_path / "g.npz", *how) == 0
            assert f"{name} is a forecast: only its 1.33 s that were seen are taken" in capsys.readouterr().err
            again = pose_files.read(tmp_path / "g.npz")
            assert (again.now, again.frames, again.source) == (once.now, once.frames, once.source)
            np.testing.assert_allclose(again.people[0].world, once.people[0].world, atol=1e-3)
    with pytest.raises(
        ValueError, match="--at 1.5: .* the motion, which lasts 1.3 s; what comes after it is a forecast"
    ):
        go("forecast", tmp_path / "f.npz", "-o", tmp_path / "g.npz", *how, "--at", 1.5)
    ahead = people.forecast(people.forecast(pose_files.read(tmp_path / "past.npz"), 0.5), 0.5)
    assert (ahead.now, ahead.frames) == (once.now, once.frames)
    content = dict(np.load(tmp_path / "f.npz"))
    del content["now"]  # as files were written before
    np.savez(tmp_path / "old.npz", **content)
    with pytest.raises(ValueError, match="old.npz: a forecast that does not say where it begins; give the file"):
        go("forecast", tmp_path / "old.npz", "-o", tmp_path / "g.npz", *how)
    for name in ("f.npz", "f.json"):
        with pytest.raises(ValueError, match=f"{name}: a forecast, lifted already; posekernels render"):
            go("lift", tmp_path / name, "-o", tmp_path / "g.npz")


def test_forecast_tells_whom_and_from_when_and_draws_nothing_else(folder, tmp_path, capsys):
    """Nobody is there in the last frames; one has long left, and the film is long."""
    lift(folder, tmp_path / "past.npz")
    capsys.readouterr()
    content = dict(np.load(tmp_path / "past.npz"))
    for name in ("world", "poses", "keypoints", "scores"):
        content[name] = np.concatenate([content[name]] * 4, 1)  # 160 frames at 30/s
        content[name][0, 100:], content[name][1, 157:], content[name][1, :90] = np.nan, np.nan, np.nan
    np.savez(tmp_path / "long.npz", **content)
    weights = ["--weights", folder / "forecaster.safetensors"]
    two = "-o", tmp_path / "f.html", "-o", tmp_path / "f.npz"
    assert go("forecast", tmp_path / "long.npz", *two, *weights) == 0
    said = capsys.readouterr().err.splitlines()
    assert "person 1 is not there at the end (last seen at 3.3 s): nothing to forecast" in said[0]
    told = "forecast: person 2, 1 s from second 5.23 on; pictures begin 2.00 s before; --at 3.3 would forecast "
    assert said[1] == told + "people 1, 2"
    done = pose_files.read(tmp_path / "f.npz")
    assert done.frames == 157 + 30 and np.isfinite(done.people[0].world[90:]).all(), "the forecast ends with the film"
    film = film_in(tmp_path / "f.html")
    assert (film["now"], film["frames"]) == (60, 90), "2 s before, 1 s of forecast"
    assert [(b["name"], b["present"]) for b in film["bodies"]] == [("Person 2", [[0, 90]])]
    assert go("forecast", tmp_path / "long.npz", "-o", tmp_path / "f.html", *weights, "--at", 3.3) == 0
    said = capsys.readouterr().err
    assert "forecast: people 1, 2, 1 s from second 3.30 on; pictures begin 2.00 s before\n" in said
    assert go("forecast", tmp_path / "long.npz", "-o", tmp_path / "f.html", *weights, "--at", 5) == 0
    assert "person 1 is not there at second 5.00 (last seen at 3.3 s): nothing" in capsys.readouterr().err
    with pytest.raises(ValueError, match="nobody to forecast; person 1.*; --at 3.3 would forecast people 1, 2"):
        go("forecast", tmp_path / "long.npz", "-o", tmp_path / "f.html", *weights, "--at", 0.05)


def test_forecast_of_joints_of_ones_own(folder, tmp_path, capsys):
    """The same motion in two layouts, z or y up, goes on alike."""
    clip = load_starter().test[0]
    poses = clip.positions[:40].copy()
    poses[:, 1:] += poses[:, :1]
    world = camera_to_world(poses, clip.orientation, clip.translation)
    z, y, out = tmp_path / "z.npy", tmp_path / "y.npz", tmp_path / "next.npz"
    np.save(z, world)
    np.savez(y, joints=np.stack((world[..., 0], world[..., 2], -world[..., 1]), -1))
    weights = ["--weights", folder / "forecaster.safetensors", "-o", out]
    futures = []
    for how in ([z], [y, "--up", "y"]):
        assert go("forecast", *how, "--joints", "h36m-17", "--fps", 50, *weights) == 0
        futures.append(pose_files.read(out).people[0].world)
    np.testing.assert_allclose(futures[1], futures[0], atol=1e-5)
    np.testing.assert_array_equal(futures[0][:40], world)
    assert len(futures[0]) == 40 + 50 and "metres" not in capsys.readouterr().err
    world[:, 5], world[3] = np.nan, 1e4  # outliers change nothing
    for scale, told in ((1, 0), (100, 1), (1000, 1)):
        np.save(tmp_path / "scaled.npy", world * scale)
        read = pose_files.read_joints(tmp_path / "scaled.npy", "h36m-17", 50)
        np.testing.assert_allclose(read.people[0].world, world, rtol=1e-5)
        assert len(read.notes) == told
    np.save(tmp_path / "scaled.npy", 1000 * poses)
    assert go("forecast", tmp_path / "scaled.npy", "--joints", "h36m-17", "--fps", 50, *weights) == 0
    assert capsys.readouterr().err.count("taken for millimetres, made metres") == 1
    np.save(tmp_path / "scaled.npy", 18 * poses)
    with pytest.raises(ValueError, match="bones of .* in the median; joints must be in metres"):
        go("forecast", tmp_path / "scaled.npy", "--joints", "h36m-17", "--fps", 50, *weights)
    with pytest.raises(ValueError, match="--fps must be positive and finite, got inf"):
        go("forecast", z, "--joints", "h36m-17", "--fps", "inf", *weights)
    with pytest.raises(ValueError, match="coco-17"):
        go("forecast", z, "--joints", "coco17", "--fps", 50, *weights)
    with pytest.raises(ValueError, match=r"one array \[T, J, 3\] of 3D joints, got \[2, 40, 17, 2\]"):
        go("forecast", folder / "two.npy", "--joints", "coco-17", "--fps", 50, *weights)
    for options, message in (
        (["--joints", "h36m-17"], "--joints needs --fps F"),
        (["--fps", 50], "--fps 50.0 is for 3D joints, and needs --joints LAYOUT"),
        (["--up", "y"], "--up y is for 3D joints, and needs --joints LAYOUT"),
        (["--seconds", 0], "--seconds must be more than 0 and at most 10, got 0"),
        ([], "no score .*forecast --joints"),
    ):
        with pytest.raises(ValueError, match=message):
            go("forecast", z, *weights, *options)


def test_lifted_people_have_a_forecaster_of_their_own(folder, tmp_path, monkeypatch):
    lift(folder, tmp_path / "past.npz")
    past, asked = pose_files.read(tmp_path / "past.npz"), []
    clip = load_starter().test[0]
    poses = clip.positions[:40].copy()
    poses[:, 1:] += poses[:, :1]
    np.save(tmp_path / "joints.npy", camera_to_world(poses, clip.orientation, clip.translation))
    tiny = models.load(folder / "forecaster.safetensors")
    monkeypatch.setattr(models, "load", lambda what: asked.append(what) or tiny)
    how = ["-o", tmp_path / "f.npz", "--seconds", 0.2]
    assert go("forecast", tmp_path / "past.npz", *how) == 0
    assert go("forecast", tmp_path / "joints.npy", *how, "--joints", "h36m-17", "--fps", 30) == 0
    people.forecast(past, 0.2)
    assert asked == ["forecaster_lifted", "forecaster", "forecaster_lifted"]


def test_joints_of_another_layout_or_axis_are_told(tmp_path):
    clip = load_starter().test[0]
    poses = clip.positions[:40].copy()
    poses[:, 1:] += poses[:, :1]
    z = camera_to_world(poses, clip.orientation, clip.translation)
    y = np.stack((z[..., 0], z[..., 2], -z[..., 1]), -1)
    level = np.stack((z[..., 0], -z[..., 2], z[..., 1]), -1)  # a camera's axes: y down, z away
    z[3, 10] = np.nan  # spoils its own frame only

    def told(joints, layout="h36m-17", up="z"):
        np.save(tmp_path / "x.npy", joints)
        return " ".join(pose_files.read_joints(tmp_path / "x.npy", layout, 50, up).notes)

    for joints, up in ((z, "z"), (y, "y"), (np.full_like(z, np.nan), "z")):
        assert told(joints, up=up) == ""
    assert re.search("y seems to point up, not z: .*, --up y$", told(y))
    assert re.search("z seems to point up, not y: .*, --up z$", told(z, up="y"))
    for up in "yz":
        assert re.search(f"-y seems to point up, not {up}: .* turn the joints", told(level, up=up))
    for layout in ("coco-17", "body-25"):
        assert told(from_h36m(z, layout), layout) == ""
    assert "look like those of h36m-17" in told(z, "coco-17")
    assert "look like those of coco-17" in (said := told(from_h36m(z, "coco-17"))) and "point up" not in said
    assert "look like those of body-25b" in told(from_h36m(z, "body-25b"), "body-25")
    shuffled = np.random.default_rng(0).permutation(17)
    assert "is this the order of the joints?" in told(z[:, shuffled])


def test_forecast_lifts_first_and_speaks_of_no_file_but_its_own(folder, tmp_path, capsys):
    weights = ["--weights", folder / "forecaster.safetensors"]
    how = ["--lift", f"weights={folder / 'lifter.safetensors'}", "size=1000x1000"]
    out = tmp_path / "f.npz"
    assert go("forecast", folder / "two.npy", "-o", out, *weights, *how) == 0
    said = capsys.readouterr().err
    assert said.count("wrote") == 1 and f"wrote {out}" in said and "people.npz" not in said
    lift(folder, tmp_path / "past.npz")
    assert go("forecast", tmp_path / "past.npz", "-o", tmp_path / "g.npz", *weights) == 0
    a, b = pose_files.read(out), pose_files.read(tmp_path / "g.npz")
    np.testing.assert_array_equal(a.people[1].world, b.people[1].world)


def test_what_lift_wrote_is_rendered_and_forecast_from_json_too(folder, tmp_path, capsys):
    lift(folder, tmp_path / "past.npz", "-o", tmp_path / "past.json")
    for kind in ("npz", "json"):
        assert go("render", tmp_path / f"past.{kind}", "-o", tmp_path / f"{kind}.bvh", "--panel", 48) == 0
        how = ["--weights", folder / "forecaster.safetensors", "--seconds", 0.2]
        assert go("forecast", tmp_path / f"past.{kind}", "-o", tmp_path / f"{kind}-next.npz", *how) == 0
    a, b = (pose_files.read(tmp_path / f"{kind}-next.npz").people[1].world for kind in ("npz", "json"))
    np.testing.assert_allclose(a, b, atol=2e-3)
    assert "in place of" not in capsys.readouterr().err
    assert go("render", tmp_path / "past.json", "-o", tmp_path / "npz.bvh") == 0
    said = capsys.readouterr().err
    for name in ("npz.bvh", "npz-2.bvh"):
        assert f"wrote {tmp_path / name}, in place of the one that was there" in said


def test_forecast_takes_published_checkpoints_of_any_size(folder, tmp_path):
    lift(folder, tmp_path / "past.npz")
    arguments = ["forecast", tmp_path / "past.npz", "-o", tmp_path / "f.npz", "--seconds", 0.5, "--weights"]
    config = {"history": 10, "future": 5, "blocks": 2}
    models.save_published(models.create("simlpe", joints=17, **config), tmp_path / "17.pth")
    assert go(*arguments, tmp_path / "17.pth") == 0 and pose_files.read(tmp_path / "f.npz").frames == 40 + 15
    models.save_published(models.create("pkd", joints=22, **config), tmp_path / "22.pth")
    with pytest.raises(ValueError, match="22.pth: pkd of 22 joints is not a forecaster of 17"):
        go(*arguments, tmp_path / "22.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: weights of no network that is known"):
        go(*arguments, tmp_path / "other.pth")
    for options, message in (
        (["--at", "nan"], "--at must be a time"),
        (["--panel", "3"], "--panel must be at least 32"),
        (["--lift", "people=2"], "past.npz is lifted already"),
    ):
        with pytest.raises(ValueError, match=message):
            go(*arguments[:4], *options)
    with pytest.raises(ValueError, match="x.json: no such file|x.json: not a readable JSON"):
        go("render", tmp_path / "x.json", "-o", tmp_path / "x.html")


def test_keypoints_of_another_unit_are_refused_or_become_pixels(folder, tmp_path, walk, capsys):
    coco = from_h36m(walk, "coco-17")
    np.save(tmp_path / "unit.npy", coco / 1000)
    arguments = ["lift", tmp_path / "unit.npy", "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    with pytest.raises(ValueError, match="parts of the image; --size WIDTHxHEIGHT makes them pixels"):
        go(*arguments)
    assert go(*arguments, "--size", "1000x1000") == 0 and "made pixels of 1000x1000" in capsys.readouterr().err
    np.testing.assert_allclose(
        keypoint_files.read(tmp_path / "x.npz").people[0].points[:, 1:7], walk[:, 1:7], atol=0.01
    )


def test_forecast_names_options_of_lift_as_they_are_given(folder, tmp_path):
    arguments = [
        "forecast",
        folder / "two.npy",
        "-o",
        tmp_path / "x.npz",
        "--weights",
        folder / "forecaster.safetensors",
    ]
    for option, message in (
        ("siz=9x9", "^--lift: unrecognized arguments: siz 9x9; did you mean 'size'. .posekernels lift --help lists"),
        ("people=0", "^--lift: people must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            go(*arguments, "--lift", option)


def test_forecast_of_a_video_goes_on_after_ctrl_c(folder, pictures, tmp_path, monkeypatch, capsys):
    arguments = ["forecast", pictures, "-o", tmp_path / "f.npz", "--weights", folder / "forecaster.safetensors"]
    arguments += ["--lift", f"weights={folder / 'lifter.safetensors'}"]
    monkeypatch.setattr(FakeDetector, "until", 12)
    assert go(*arguments) == 130
    assert "--lift resume goes on" in capsys.readouterr().err and not (tmp_path / "f.npz").exists()
    monkeypatch.setattr(FakeDetector, "until", 8)  # exactly what is left
    assert go(*arguments, "resume") == 0 and pose_files.read(tmp_path / "f.npz").frames == 20 + 30
    assert not list(tmp_path.glob(".f*"))


def test_forecast_after_the_end_of_a_video_is_refused_before_it_is_lifted(folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeDetector, "until", 0)
    monkeypatch.setattr(FakeDetector, "ending", MemoryError("searched"))
    arguments = ["forecast", pictures, "-o", tmp_path / "f.npz", "--weights", folder / "forecaster.safetensors"]
    for at, lift, seconds in (("99", [], "0.7"), ("1.2", ["fps=20"], "1.0")):
        with pytest.raises(ValueError, match=f"--at {at}: .*the motion, which lasts {seconds} s"):
            go(*arguments, "--at", at, "--lift", f"weights={folder / 'lifter.safetensors'}", *lift)
    with pytest.raises(MemoryError, match="searched"):
        go(*arguments, "--at", "0.6", "--lift", f"weights={folder / 'lifter.safetensors'}")


def test_keypoints_that_are_filled_in_are_counted(folder, tmp_path, capsys):
    two = np.load(folder / "two.npy")
    two[0, 3:6, 9], two[0, 7, 10, 1], two[1, :, 10] = np.nan, np.inf, np.nan  # wrists: left, right, right
    np.save(tmp_path / "gaps.npy", two)
    arguments = ["lift", tmp_path / "gaps.npy", "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    assert go(*arguments) == 0
    said = capsys.readouterr().err
    assert (
        "person 1: 4 of 680 keypoints missing, not finite" in said and "filled in, moving with their neighbours" in said
    )
    assert "person 2: 40 of 680" in said
    assert said.count("; never seen, put where a standing person has them: right_wrist") == 1
    assert go(*arguments, "--latency", 2) == 0
    assert "person 1: 4 of 680" in (said := capsys.readouterr().err) and "neighbours, as last seen" in said
    assert lift(folder, tmp_path / "x.npz") == 0
    assert "filled in" not in capsys.readouterr().err


def test_a_layout_that_is_guessed_is_told(folder, tmp_path, walk, capsys):
    np.save(tmp_path / "h36m.npy", walk)
    arguments = ["--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    assert go("lift", tmp_path / "h36m.npy", *arguments) == 0
    said = capsys.readouterr().err
    assert "17 joints, taken for coco-17; --layout NAME" in said and "look like Human3.6M's" in said
    assert go("lift", folder / "two.npy", *arguments) == 0
    said = capsys.readouterr().err
    assert "17 joints, taken for coco-17; --layout NAME" in said and "look like" not in said
    assert go("lift", tmp_path / "h36m.npy", *arguments, "--layout", "h36m-17") == 0
    assert go("lift", tmp_path / "x.npz", *arguments[:2], "-o", tmp_path / "y.npz") == 0  # says so itself
    assert "taken for coco" not in capsys.readouterr().err


def test_one_frame_is_told_as_a_picture(folder, tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.load(folder / "two.npy")[:, :1])
    weights = folder / "lifter.safetensors"
    assert go("lift", tmp_path / "one.npy", "--weights", weights, "--size", "1000x1000", "-o", tmp_path / "x.npz") == 0
    said = capsys.readouterr().err
    assert "people in the picture: 2\n" in said and "person 1: in the picture; projected back" in said
    assert re.search(r"^reading \d+\.\d+ s; lifting \d+\.\d+ s; writing \d+\.\d+ s$", said, re.MULTILINE)
    assert not re.search(r"in 100 %|frames? 1|frames/s \(", said)


def test_networks_load_without_their_libraries_chatter(monkeypatch, capfd):
    class Chatty:
        said = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: no memory\n"

        def __init__(self, **_):
            os.write(2, self.said)

        def allocate_tensors(self):
            if self.said.startswith(b"WARNING"):
                raise RuntimeError

    monkeypatch.setattr(detect, "needs", lambda *_: SimpleNamespace(Interpreter=Chatty))
    monkeypatch.setattr(type(detect.NETWORKS), "get", lambda _: ["detector", "landmarks"])
    detect.BlazePose()
    assert capfd.readouterr().err == 2 * "ERROR: no memory\n"
    monkeypatch.setattr(Chatty, "said", b"WARNING: broken\n")
    with pytest.raises(RuntimeError):
        detect.BlazePose()
    os.write(2, b"and on\n")
    assert capfd.readouterr().err == 2 * "WARNING: broken\n" + "and on\n"


def test_what_a_file_does_not_say_is_told(folder, tmp_path, capsys):
    arguments = ["lift", folder / "two.npy", "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    assert go(*arguments) == 0
    said = capsys.readouterr().err
    assert "taken to be 30 frames/s; --fps F" in said and "people stay in one place; with --size" in said
    assert go(*arguments, "--fps", 25, "--size", "1000x1000") == 0
    assert go("lift", tmp_path / "x.npz", *arguments[2:4], "-o", tmp_path / "y.npz") == 0  # says both itself
    said = capsys.readouterr().err
    assert "frame rate" not in said and "size of the image" not in said


def test_everybody_is_drawn_and_who_is_left_out_is_told(folder, tmp_path, capsys):
    two = np.load(folder / "two.npy")
    np.save(tmp_path / "three.npy", np.concatenate((two, two[:1] + 700)))
    arguments = ["lift", tmp_path / "three.npy", "--weights", folder / "lifter.safetensors"]
    assert go(*arguments, "-o", tmp_path / "x.html") == 0
    assert "left out" not in capsys.readouterr().err
    assert [b["name"] for b in film_in(tmp_path / "x.html")["bodies"]] == ["Person 1", "Person 2", "Person 3"]
    assert go(*arguments, "-o", tmp_path / "x.npz", "--people", 2) == 0
    assert (
        "up to 3 people at one moment: where there are more than 2, those seen least are left out, 1 of 3; --people 3"
        in capsys.readouterr().err
    )


def test_render_draws_what_lift_wrote(folder, tmp_path):
    lift(folder, tmp_path / "x.npz")
    assert go("render", tmp_path / "x.npz", "-o", tmp_path / "x.html", "-o", tmp_path / "x.trc") == 0
    film = film_in(tmp_path / "x.html")
    assert film["video"] is None and [f["href"] for f in film["files"]] == ["x.trc"]


def test_a_page_shows_the_video_or_says_why_not(folder, tmp_path, capsys):
    lift(folder, tmp_path / "x.npz")
    page, video = tmp_path / "x.html", tmp_path / "walk.mp4"
    arguments = ["render", tmp_path / "x.npz", "-o", page, "--video"]
    video.write_bytes(b"a film")
    assert go(*arguments, video) == 0 and film_in(page)["video"] == {"name": "walk.mp4", "src": "walk.mp4"}
    assert go(*arguments, video, "--embed") == 0 and film_in(page)["video"]["src"] is None
    assert "browsers" not in capsys.readouterr().err
    for name, said in (("walk.gif", "browsers play video files"), ("walk.avi", "few browsers play .avi")):
        assert go(*arguments, video.rename(tmp_path / name)) == 0
        assert said in capsys.readouterr().err and (film_in(page)["video"] is None) == (name == "walk.gif")
        video = tmp_path / name
    with pytest.raises(ValueError, match="--video .*gone.mp4: no such video"):
        go(*arguments, tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="--embed .* --video FILE is missing"):
        go(*arguments[:-1], "--embed")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_page_of_lifted_people_finds_their_video(folder, tmp_path, monkeypatch, capsys, suffix):
    """Where it was, or beside the file; also where the people were lifted again in between."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    lift(folder, tmp_path / "x.npz")
    people = pose_files.read(tmp_path / "x.npz")
    people.source = "clips/walk.mp4"
    pose_files.write(tmp_path / "a" / f"x{suffix}", people)
    again = ["lift", f"a/x{suffix}", "--weights", folder / "lifter.safetensors", "-o", "b.npz", "-o", "x.html"]
    for arguments in (["render", f"a/x{suffix}", "-o", "x.html"], again, ["render", "b.npz", "-o", "x.html"]):
        assert go(*arguments) == 0
        said = f"clips/walk.mp4, which {arguments[1]} was lifted from, is not here: posekernels render"
        assert said in capsys.readouterr().err and film_in(tmp_path / "x.html")["video"] is None
    for place in ("a/walk.mp4", "a/clips/walk.mp4", "clips/walk.mp4"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"a film")
        for arguments in (["render", f"a/x{suffix}", "-o", "x.html", "-o", "x.trc"], again):
            assert go(*arguments) == 0
            assert f"behind the skeletons: {place}, which a/x{suffix} was lifted from" in capsys.readouterr().err
            assert film_in(tmp_path / "x.html")["video"] == {"name": "walk.mp4", "src": place}
    for arguments in (["render", f"a/x{suffix}", "-o", "x.gif"], [*again[:4], "-o", "x.gif"]):
        assert go(*arguments, "--panel", 48) == 0, "a file that is no video stops no picture"
        assert ": drawn without it" in capsys.readouterr().err
    backgrounds = []
    monkeypatch.setattr(command, "Video", lambda video: None)
    monkeypatch.setattr(command, "Backgrounds", lambda video, *_: backgrounds.append(video))
    monkeypatch.setattr(command.pictures, "save", lambda out, *_how, **_more: out)
    for arguments in (["render", f"a/x{suffix}", "-o", "x.gif"], [*again[:4], "-o", "x.mp4"]):
        assert go(*arguments) == 0 and backgrounds.pop() == "clips/walk.mp4"
        assert f"behind the skeletons: clips/walk.mp4, which a/x{suffix} was lifted from" in capsys.readouterr().err
    assert go("render", f"a/x{suffix}", "-o", "x.html", "--embed") == 0
    assert film_in(tmp_path / "x.html")["video"]["src"] is None
    people.source = "x" * 300 + ".mp4"  # longer than a file's name may be
    pose_files.write(tmp_path / f"long{suffix}", people)
    assert go("render", f"long{suffix}", "-o", "x.html") == 0
    assert "x.mp4, which long" in capsys.readouterr().err


def test_what_is_assumed_is_one_line(folder, tmp_path, capsys):
    common = ["lift", folder / "two.npy", "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    for options, wanted in (
        (
            ["--size", "1000x800"],
            "assumed: focal length 1200 px, 1.2 times the longer side .--focal.; camera .* (up|down),",
        ),
        (
            ["--size", "1000x800", "--tilt", "20"],
            "assumed: focal length 1200 px[^;]*; each person's lowest feet on one",
        ),
        (["--size", "999x999", "--focal", "9", "--tilt", "5", "--ground", "none"], "assumed: people about 1.7 m tall"),
    ):
        assert go(*common, *options) == 0
        assert re.search(wanted, capsys.readouterr().err)


def test_convert_weights_keeps_the_function(folder, tmp_path, capsys):
    source, out = folder / "lifter.safetensors", tmp_path / "half.safetensors"
    assert go("convert-weights", source, "-o", out, "--half") == 0
    assert "parity" in capsys.readouterr().out and out.stat().st_size < 0.7 * source.stat().st_size
    net = models.load(out)
    assert net.about.sees == "person" and next(net.parameters()).dtype == torch.float32
    published = tmp_path / "published.pth"
    models.save_published(models.create("mgcn_lw").eval(), published)
    assert go("convert-weights", published, "--model", "mgcn_lw", "-o", tmp_path / "m.safetensors") == 0
    assert models.load(tmp_path / "m.safetensors").about.network == "mgcn_lw"


def test_no_command_overwrites_its_input(folder, tmp_path):
    lift(folder, tmp_path / "x.npz")
    save_weights(models.create("strided_refine"), tmp_path / "w.safetensors", About("strided_refine", {}))
    before = (tmp_path / "x.npz").read_bytes()
    for word, name in (
        ("lift", "x.npz"),
        ("forecast", "x.npz"),
        ("render", "x.npz"),
        ("convert-weights", "w.safetensors"),
    ):
        with pytest.raises(ValueError, match="would overwrite the input"):
            go(word, tmp_path / name, "-o", tmp_path / "." / name)
    assert (tmp_path / "x.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.png"], "the suffix says what to write"),
        (["-o", "nowhere/x.npz"], "there is no folder nowhere"),
        (["-o", "x.npz", "--people", "0"], "--people must be at least 1"),
        (["-o", "x.npz", "--focal", "-3"], "--focal must be positive"),
        (["-o", "x.npz", "--fps", "0.001"], "--fps must be at least 0.1: a frame every 10 seconds; got 0.001"),
        (["-o", "x.npz", "--latency", "99"], "--latency must be 0 to 15 at 30 frames/s with these weights, got 99"),
        (["-o", "x.npz", "--latency", "-1"], "--latency must be at least 0, got -1"),
        (["-o", "x.npz", "--layout", "coco"], "invalid choice"),
        (["-o", "x.npz", "--lattency", "1"], "did you mean '--latency'"),
        (["--output", "x.npz"], "are required: -o/--out; unrecognized arguments: --output; did you mean '--out'"),
        (["--out=x.npz", "--qqqq=9"], "unrecognized arguments: --qqqq=9 "),
        (["--tilt", "-5", "--clip=--x"], "^the following arguments are required: -o/--out .--help"),
        (["-o", "x.npz", "--device", "tpu"], "expected cpu or cuda"),
        (["-o", "x.npz", "--tilt", "nan"], "expected auto or degrees between -90 and 90"),
        (["-o", "x.npz", "--rtmpose", "a.onnx", "b.onnx"], "--rtmpose finds people in images"),
        (["-o", "x.npz", "--yolo-pose", "a.onnx"], "--yolo-pose finds people in images"),
    ],
)
def test_mistakes_are_one_clear_line(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        go("lift", folder / "two.npy", "--weights", folder / "lifter.safetensors", *options)
    assert len(str(error.value)) < 300 and not list(tmp_path.iterdir())


def test_bad_inputs_are_one_clear_line(folder, tmp_path):
    (tmp_path / "empty.mp4").touch()
    weak = np.load(folder / "two.npy")
    np.save(tmp_path / "weak.npy", np.concatenate((weak, np.full((*weak.shape[:-1], 1), 0.01, np.float32)), -1))
    for name in ("empty.json", "empty.npz"):
        (tmp_path / name).touch()
        for word, wanted in (("render", ""), ("forecast", ", or 2D keypoints")):
            said = f"^[^ ]*{name}: an empty file, expected people as posekernels lift writes them{wanted}$"
            with pytest.raises(ValueError, match=said):
                go(word, tmp_path / name, "-o", tmp_path / "x.gif")
    np.savez(
        tmp_path / "nobody.npz", **dict.fromkeys(("keypoints", "scores", "poses", "world", "identities"), []), fps=9
    )
    with pytest.raises(ValueError, match="nobody.npz: nobody in it; expected people as posekernels lift writes them"):
        go("render", tmp_path / "nobody.npz", "-o", tmp_path / "x.gif")
    for source, message in (
        ("nothing.mp4", "no such video"),
        ("empty.mp4", "an empty file"),
        ("weak.npy", "nobody to lift"),
        ("7", "no camera 7 here"),
        ("walk.bvh", "walk.bvh: .bvh is written, not read; give the .npz"),
    ):
        source = source if source == "7" else tmp_path / source
        with pytest.raises(ValueError, match=message):
            go("lift", source, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz")
    with pytest.raises(ValueError, match="^[^ ]*walk.bvh: .bvh is written, not read"):
        go("forecast", tmp_path / "walk.bvh", "-o", tmp_path / "x.npz")
    with pytest.raises(ValueError, match="--layout and --size are for keypoint files"):
        go("lift", tmp_path / "a.mp4", "--size", "9x9", "-o", tmp_path / "x.npz")
    np.savez(tmp_path / "named.npz", keypoints=weak, layout="coco")
    with pytest.raises(ValueError, match="names its layout 'coco'; did you mean 'coco-17'"):
        go("lift", tmp_path / "named.npz", "-o", tmp_path / "x.npz")
    with pytest.raises(ValueError, match="did you mean 'lift'"):
        run(["lfit"])


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "code.py",
            "code.py: .py is not read; keypoints come as .npy, .npz or .json, videos as .*folder.*camera",
        ),
        ("table.csv", "table.csv: .csv is not read; keypoints come as"),
        ("text.mp4", "text.mp4: not a video that ffmpeg can read$"),
    ],
)
def test_a_text_is_no_video(tmp_path, name, message):
    pytest.importorskip("av", reason="PyAV is not installed (extra video)")
    (tmp_path / name).write_text("import numpy\n")
    with pytest.raises(ValueError, match=message):
        go("lift", tmp_path / name, "-o", tmp_path / "x.npz")


def test_published_weights_need_the_size_of_the_image(folder, tmp_path):
    config = {"strides": [3, 3], "layers": 1, "channels": 16, "hidden": 16, "heads": 2}
    screen = tmp_path / "screen.safetensors"
    save_weights(models.create("strided_transformer", **config), screen, About("strided_transformer", config))
    arguments = ["lift", folder / "two.npy", "--weights", screen, "-o", tmp_path / "x.npz"]
    with pytest.raises(ValueError, match="--size WIDTHxHEIGHT"):
        go(*arguments)
    assert go(*arguments, "--size", "1000x1000") == 0


def test_networks_of_human36m_get_coco_as_the_published_demos_convert_it(folder, tmp_path, walk):
    coco = from_h36m(walk, "coco-17").astype(np.float32)
    coco[:, :5] += np.random.default_rng(0).normal(0, 5, (40, 5, 2)).astype(np.float32)
    coco[7, 0] = np.nan  # no nose: as for any other layout
    track = Track(1, coco, np.isfinite(coco).all(-1).astype(np.float32))
    screen, person = in_h36m(track, "coco-17", "screen"), in_h36m(track, "coco-17", "person")
    others = np.arange(40) != 7
    np.testing.assert_array_equal(screen.points[others], coco_to_h36m(coco)[others])
    assert np.abs(screen.points - person.points)[others][:, [7, 8, 10]].max() > 1
    assert np.array_equal(np.isfinite(screen.points), np.isfinite(person.points))
    net = models.create("strided_transformer", strides=[3, 3], layers=1, channels=16, hidden=16, heads=2).eval()
    save_weights(net, tmp_path / "w.safetensors", About("strided_transformer", net.created[1]))
    np.save(tmp_path / "x.npy", coco[8:])
    arguments = [
        "lift",
        tmp_path / "x.npy",
        "--weights",
        tmp_path / "w.safetensors",
        "--size",
        "1000x800",
        "--smooth",
        0,
    ]
    assert go(*arguments, "-o", tmp_path / "x.npz") == 0
    want = models.lift(net, normalise_screen(torch.from_numpy(coco_to_h36m(coco[8:])), 1000, 800))
    np.testing.assert_allclose(pose_files.read(tmp_path / "x.npz").people[0].poses, want.detach(), atol=1e-5)


# -- video, with a detector that needs no package --------------------------------------------------------------------
class FakeDetector:
    """Finds the person of ``walk`` in every image; stops like Ctrl-C after ``until`` of them."""

    until, ending = 1 << 30, KeyboardInterrupt()
    layout = "blazepose-33"
    walk: np.ndarray

    def __init__(self, people):
        self.calls, self.regions = 0, []

    def __call__(self, image):
        if self.calls == type(self).until:
            raise type(self).ending
        self.calls += 1
        number = int(image[0, 0, 0])
        points = from_h36m(type(self).walk[number], "blazepose-33").astype(np.float32)
        return [Sighting(points, np.ones(33, np.float32))]


@pytest.fixture
def pictures(tmp_path, walk, monkeypatch):
    """A folder of 20 pictures whose first pixel is their number."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for t in range(20):
        Image.new("RGB", (100, 160), (t, 0, 0)).save(folder / f"{t}.png")
    monkeypatch.setattr(detect, "BlazePose", FakeDetector)
    monkeypatch.setattr(FakeDetector, "walk", walk, raising=False)
    return folder


def test_times_of_one_picture_are_told_without_a_rate(folder, pictures, tmp_path, capsys):
    arguments = ["--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    assert go("lift", pictures / "0.png", *arguments) == 0
    said = capsys.readouterr().err
    assert re.search(r"^reading \d+\.\d+ s; detection \d+\.\d+ s; lifting", said, re.MULTILINE)
    assert "frame" not in said
    assert go("lift", pictures, *arguments) == 0 and "detection" in (said := capsys.readouterr().err)
    assert re.search(r"^reading \d+\.\d+ frames/s \(", said, re.MULTILINE)


def test_interrupted_keeps_what_was_computed_and_resume_goes_on(folder, pictures, tmp_path, monkeypatch, capsys):
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o"]
    assert go(*arguments, tmp_path / "whole.npz") == 0
    monkeypatch.setattr(FakeDetector, "until", 12)
    assert go(*arguments, tmp_path / "x.npz") == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert pose_files.read(tmp_path / "x.partial.npz").frames == 12 and not (tmp_path / "x.npz").exists()
    monkeypatch.setattr(FakeDetector, "until", 8)  # exactly what is left
    assert go(*arguments, tmp_path / "x.npz", "--resume") == 0
    assert (tmp_path / "x.npz").read_bytes() and not [*tmp_path.glob(".x.npz*"), *tmp_path.glob("x.partial*")]
    a, b = (pose_files.read(tmp_path / name) for name in ("whole.npz", "x.npz"))
    np.testing.assert_array_equal(a.people[0].world, b.people[0].world)
    assert a.size == (100, 160)
    assert "beginning anew" not in capsys.readouterr().err


def test_what_is_left_out_says_whether_resume_would_have_gone_on(folder, pictures, tmp_path, monkeypatch, capsys):
    arguments = ["--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    other = shutil.copy(pictures / "2.png", tmp_path)
    for source, layout, why in (
        (pictures, "blazepose-33", "--resume would have gone on from it"),
        (other, "blazepose-33", "it is of another input or detector"),
        (pictures, "halpe-26", "it is of another input or detector"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(FakeDetector, "until", 2)
            assert go("lift", pictures, *arguments) == 130
        head, *rest = (tmp_path / ".x.npz.partial").read_bytes().split(b"\n", 1)
        found = head.replace(b"blazepose-33", layout.encode())
        (tmp_path / ".x.npz.partial").write_bytes(b"\n".join((found, *rest)))
        capsys.readouterr()
        assert go("lift", source, *arguments) == 0
        assert f".x.npz.partial: what an earlier run found is not used; {why}\n" in capsys.readouterr().err
    (tmp_path / ".x.npz.partial").touch()
    assert go("lift", pictures, *arguments) == 0 and "left out" not in capsys.readouterr().err


@pytest.mark.parametrize("left", ["nothing", "an empty search", "all of it"])
def test_resume_without_anything_to_go_on_from_begins_anew(folder, pictures, tmp_path, left, capsys):
    """So that a loop of tries can always carry it."""
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    if left == "an empty search":
        (tmp_path / ".x.npz.partial").touch()
    if left == "all of it":
        assert go(*arguments) == 0
    assert go(*arguments, "--resume") == 0
    assert "--resume: no earlier run left anything here, so this one begins at the start\n" in capsys.readouterr().err
    assert pose_files.read(tmp_path / "x.npz").frames == 20 and not [*tmp_path.glob(".x.npz*")]
    assert go("lift", folder / "two.npy", *arguments[2:], "--resume") == 0, "of keypoints there is nothing to keep"
    assert "--resume: no earlier run left anything here, so this one begins at the start\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ending", [MemoryError(), OSError(28, "No space left on device"), Stopped("SIGTERM"), Stopped("SIGHUP")], ids=repr
)
def test_whatever_ends_a_search_it_can_be_gone_on_with(folder, pictures, tmp_path, monkeypatch, ending, capsys):
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o"]
    assert go(*arguments, tmp_path / "whole.npz") == 0
    monkeypatch.setattr(FakeDetector, "until", 7)
    monkeypatch.setattr(FakeDetector, "ending", ending)
    if isinstance(ending, KeyboardInterrupt):
        assert go(*arguments, tmp_path / "x.npz") == 130
        assert "7 frames are kept, and the same command with --resume goes on" in capsys.readouterr().err
    else:
        with pytest.raises(type(ending)):
            go(*arguments, tmp_path / "x.npz")
        assert "found in 7 frames is kept, and the same command with --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(FakeDetector, "until", 13)
    assert go(*arguments, tmp_path / "x.npz", "--resume") == 0
    a, b = (pose_files.read(tmp_path / name) for name in ("whole.npz", "x.npz"))
    np.testing.assert_array_equal(a.people[0].world, b.people[0].world)


def test_a_file_that_fails_keeps_no_other_from_being_written(folder, pictures, tmp_path, monkeypatch, capsys):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command.pictures, "save", full)
    outs = ["-o", tmp_path / "x.gif", "-o", tmp_path / "x.npz", "-o", tmp_path / "x.html"]
    with pytest.raises(OSError, match="No space"):
        go("lift", pictures, "--weights", folder / "lifter.safetensors", *outs)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] == "x") == ["x.html", "x.npz"]
    assert "x.gif: not written" in capsys.readouterr().err and (tmp_path / ".x.gif.partial").is_file()


def test_two_runs_do_not_write_one_search(pictures, tmp_path):
    searches = [
        command.Search(Video(pictures), tmp_path / "x.partial", FakeDetector(1), command.Clock(), tqdm(disable=True))
        for _ in range(2)
    ]
    searches[0].open()
    with pytest.raises(ValueError, match=r"x.partial: another run is writing there"):
        searches[1].open()
    searches[0].close(keep=False)
    searches[1].open()


@pytest.mark.parametrize("cut", ["find", "follow"])
def test_a_resumed_search_is_the_uninterrupted_one(folder, pictures, tmp_path, monkeypatch, walk, cut):
    class Finder(detect.Finder):
        """Two people who walk; each is lost at times, until the next search. Ctrl-C comes within an image."""

        layout, number = "blazepose-33", -1

        def __init__(self, people=2, stop=None):
            super().__init__(people, every=5)
            self.stop = stop

        def _interrupt(self, what):
            if (self.number, what) == (self.stop, cut):
                raise KeyboardInterrupt

        def find(self, image):
            self.number = image.getpixel((0, 0))[0]
            self._interrupt("find")
            return [detect.Region(x, 0.0, 10.0, 0.0) for x in (0.0, 1000.0)]

        def follow(self, image, region):
            self.number, at = image.getpixel((0, 0))[0], region.x
            if at >= 1000:
                self._interrupt("follow")
            if (self.number % 3 if at < 1000 else self.number % 7) == 2:
                return None
            points = from_h36m(walk[self.number], "blazepose-33").astype(np.float32) + np.float32((at, 0))
            return Sighting(points, np.ones(33, np.float32)), detect.Region(at + 0.1, 0.0, 10.0, 0.0)

    def search(stop=None):
        finder = Finder(stop=stop)
        left = tmp_path / f"{stop}.partial"
        return command.Search(Video(pictures), left, finder, command.Clock(), tqdm(disable=True))

    def points(search):
        return [[s.points.tolist() for s in people] for people in search.frames()]

    whole, cuts = search(), 0
    whole.open()
    assert len(list(whole)) == 20 and {len(people) for people in whole.frames()} == {0, 1, 2}
    for stop in range(1, 20):
        first, second = search(stop), search(stop)
        first.open()
        with contextlib.suppress(KeyboardInterrupt):
            list(first)
        cuts += first.count == stop
        first.close(keep=True)
        with open(first.partial, "ab") as torn:  # as a process that is killed may leave it
            torn.write(b"torn")
        second.detector.stop = None
        second.open(resume=True)
        list(second)
        assert points(second) == points(whole)
    assert cuts > 3


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device"), EOFError()], ids=repr)
def test_a_failure_while_drawing_keeps_the_search(folder, pictures, tmp_path, monkeypatch, failure):
    def stop(*_arguments, **_options):
        raise failure

    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.html"]
    with monkeypatch.context() as patch:
        patch.setattr(command.player, "write", stop)
        if isinstance(failure, KeyboardInterrupt):
            assert go(*arguments) == 130
        else:
            with pytest.raises(type(failure)):
                go(*arguments)
    monkeypatch.setattr(FakeDetector, "until", 0)  # nothing is left to look for
    assert go(*arguments, "--resume") == 0 and (tmp_path / "x.html").is_file()


def test_live_from_pictures(folder, pictures, tmp_path):
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    assert go(*arguments, "--latency", 1) == 0
    assert pose_files.read(tmp_path / "x.npz").people[0].present.all()


@pytest.mark.parametrize("how", ["whole", "resumed", "live"])
def test_hands_feet_and_face_that_a_detector_gives_are_kept(folder, pictures, tmp_path, monkeypatch, walk, how):
    """17 joints are lifted; the files hold all 133 as they were found, and NaN where nobody was seen."""
    noise = np.random.default_rng(0)
    found = np.stack([from_h36m(pose, "coco-133") for pose in walk[:20]]).astype(np.float32)
    found[:, 17:] += noise.uniform(0, 5, found[:, 17:].shape).astype(np.float32)
    scores = noise.uniform(0.3, 1, found.shape[:2]).astype(np.float32)
    found[4, 120], scores[4, 120] = np.nan, 0

    def find(self, image):
        if self.calls == type(self).until:
            raise KeyboardInterrupt
        self.calls, number = self.calls + 1, int(image[0, 0, 0])
        return [] if number in (9, 10) else [Sighting(found[number], scores[number])]

    monkeypatch.setattr(FakeDetector, "layout", "coco-133")
    monkeypatch.setattr(FakeDetector, "__call__", find)
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors"]
    arguments += ["-o", tmp_path / "x.npz", "-o", tmp_path / "x.json"]
    if how == "resumed":
        with monkeypatch.context() as patch:
            patch.setattr(FakeDetector, "until", 12)
            assert go(*arguments) == 130
    assert go(*arguments, *{"resumed": ["--resume"], "live": ["--latency", "1"]}.get(how, [])) == 0
    want = np.dstack((found, scores))
    want[9:11] = np.nan
    for name in ("x.npz", "x.json"):
        back = pose_files.read(tmp_path / name)
        (person,) = back.people
        assert back.detected_layout == "coco-133" and person.poses.shape[1:] == (17, 3)
        np.testing.assert_allclose(person.over("detected", 20), want, atol=6e-4)
    with np.load(tmp_path / "x.npz") as archive:
        names = archive["detected_joints"].tolist()
    assert (
        names == list(skeleton("coco-133").joints) == json.loads((tmp_path / "x.json").read_text())["detected_joints"]
    )
    assert go("render", tmp_path / "x.npz", "-o", tmp_path / "y.json") == 0
    np.testing.assert_allclose(pose_files.read(tmp_path / "y.json").over("detected")[0], want, atol=6e-4)


@pytest.mark.parametrize("again", ["npz", "by frames", "json", "live"])
def test_hands_feet_and_face_of_a_file_are_kept_however_often_it_is_lifted(folder, tmp_path, monkeypatch, walk, again):
    """133 joints of a keypoint file are COCO-WholeBody's; our own files, lifted again and put right, keep them."""
    noise = np.random.default_rng(0)
    found = np.stack([from_h36m(pose, "coco-133") for pose in walk]).astype(np.float32)
    found[:, 17:] += noise.uniform(0, 5, found[:, 17:].shape).astype(np.float32)
    want = np.stack([np.dstack((found + 300 * i, noise.uniform(0.3, 1, found.shape[:2]))) for i in range(2)])
    want = want.astype(np.float32)
    want[0, 18:], want[1, :22] = np.nan, np.nan  # one goes, another comes
    np.save(tmp_path / "in.npy", want)
    if again == "by frames":
        monkeypatch.setattr(pose_files, "DENSE", 1000)
        want = np.concatenate((want, np.full((2, 400, 133, 3), np.nan, np.float32)), 1)
        want[:, -20:] = want[::-1, :20]
        np.save(tmp_path / "in.npy", want)
    weights, first = ["--weights", folder / "lifter.safetensors"], tmp_path / ("x.json" if again == "json" else "x.npz")
    assert go("lift", tmp_path / "in.npy", *weights, "--size", "2000x2000", "--fps", 50, "-o", first) == 0
    if again == "by frames":
        with np.load(first) as archive:
            assert "frame" in archive
    frames = want.shape[1]
    for i, person in enumerate(pose_files.read(first).people):
        np.testing.assert_allclose(person.over("detected", frames), want[i], atol=6e-4)
    more = {"live": ["--latency", 1], "by frames": []}.get(again, ["--merge", "1=2"])
    assert go("lift", first, *weights, *more, "-o", tmp_path / "y.npz") == 0
    back = pose_files.read(tmp_path / "y.npz")
    assert back.detected_layout == "coco-133"
    people = [back.over("detected")[i] for i in range(len(back.people))]
    want = [np.fmax(*want)] if len(people) == 1 else want
    assert len(people) == (1 if "--merge" in more else 2)
    for person, seen in zip(people, want, strict=True):
        np.testing.assert_allclose(person, seen, atol=6e-4)


def test_nobody_in_the_video(folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeDetector, "__call__", lambda self, image: [])
    with pytest.raises(ValueError, match="nobody was found in 20 pictures"):
        go("lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz")


@pytest.mark.parametrize("often, until", [(0, 20), (2, 20), (0, 12), (2, 12)])
def test_a_search_is_kept_where_more_of_it_could_find_somebody(
    folder, pictures, tmp_path, monkeypatch, capsys, often, until
):
    """Not one that found nobody in a whole video, or saw nobody at all."""
    find = FakeDetector.__call__
    monkeypatch.setattr(FakeDetector, "__call__", lambda self, image: find(self, image)[: self.calls <= often])
    monkeypatch.setattr(FakeDetector, "until", until)
    with pytest.raises(ValueError, match=f"nobody was found in {until} pictures"):
        go("lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz")
    kept = often > 0 and until < 20
    assert ("--resume goes on" in capsys.readouterr().err) == kept == bool([*tmp_path.glob(".x.npz*")])


def test_live_too_whoever_is_seen_for_a_moment_is_left_out(folder, pictures, tmp_path, monkeypatch, capsys):
    find = FakeDetector.__call__

    def with_a_ghost(self, image):
        (person,) = find(self, image)
        return [person, Sighting(person.points + (500, 0), person.scores)] if self.calls in (6, 7) else [person]

    monkeypatch.setattr(FakeDetector, "__call__", with_a_ghost)
    arguments = ["lift", pictures, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    for how in ([], ["--latency", 1]):
        assert go(*arguments, *how) == 0
        said = capsys.readouterr().err
        assert said.count("1 sighting shorter than 0.3 s left out") == 1 and "frames 6 to" not in said
        assert len(pose_files.read(tmp_path / "x.npz").people) == 1


def test_one_picture_is_read_as_a_folder_of_one(folder, pictures, tmp_path, capsys):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    image[:64, :64] = 0  # the number in the first pixel
    Image.fromarray(image).save(tmp_path / "one.jpg")  # of so much detail FFmpeg does not know it
    out = ["-o", tmp_path / "x.npz", "-o", tmp_path / "x.html"]
    assert go("lift", tmp_path / "one.jpg", "--weights", folder / "lifter.safetensors", *out) == 0
    found = pose_files.read(tmp_path / "x.npz")
    assert found.frames == len(found.people) == 1 and found.size == (1920, 1080)
    assert "so the page shows the skeletons without it" not in capsys.readouterr().err
    within = film_in(tmp_path / "x.html")["picture"].removeprefix("data:image/jpeg;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(within))), int)
    assert shown.shape == image.shape and shown[:64, :64].mean() < 20 < 100 < shown.mean()
    assert go("render", tmp_path / "x.npz", "-o", tmp_path / "y.html") == 0
    assert "behind the skeletons: " in capsys.readouterr().err
    assert film_in(tmp_path / "y.html")["picture"].endswith(within)
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    with pytest.raises(ValueError, match="torn.jpg: not a picture that can be read"):
        go("lift", tmp_path / "torn.jpg", "-o", tmp_path / "x.npz")


def test_pictures_taken_for_a_video_are_among_what_is_assumed(folder, pictures, tmp_path, capsys):
    far = tmp_path / "far"
    far.mkdir()
    for t, number in enumerate((1234, 1250, 1300)):
        (pictures / f"{t}.png").rename(far / f"IMG_{number}.png")
    arguments = ["lift", far, "--weights", folder / "lifter.safetensors", "-o", tmp_path / "x.npz"]
    said = "assumed: 3 pictures are the frames of one video, 30 a second (--fps); if they are not, posekernels lift "
    said += f"{far}/*.png -o OUT/ lifts each by itself\nassumed: focal length"
    assert go(*arguments) == 0 and said in capsys.readouterr().err
    assert go(*arguments, "--fps", "10") == 0 and "frames of one video" not in capsys.readouterr().err
    from PIL import ExifTags, Image

    lying, exif = Image.new("RGB", (160, 100)), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(far / "IMG_1260.png", exif=exif)
    assert go(*arguments) == 0, "held upright, it is of the same size"
    lying.save(far / "IMG_1260.png")
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"far: .* of one size, .*\(3 pictures\), .*\(1 picture\); posekernels lift"):
        go(*arguments)
    for name in ("IMG_1250.png", "IMG_1260.png", "IMG_1300.png"):
        (far / name).unlink()
    assert go(*arguments) == 0 and "frames of one video" not in capsys.readouterr().err


@pytest.mark.parametrize("option, files", [("--yolo-pose", 1), ("--rtmpose", 2)])
def test_networks_that_cannot_be_used_are_told_by_their_option(pictures, tmp_path, monkeypatch, option, files):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # not installed
    arguments = ["lift", pictures, "-o", tmp_path / "x.npz", option, *[tmp_path / "mine.onnx"] * files]
    with pytest.raises(ValueError, match=f"^{option} [^ ]*mine.onnx: no such file$"):
        go(*arguments)
    (tmp_path / "mine.onnx").touch()
    with pytest.raises(ValueError, match=f"^{option} needs onnxruntime: pip install"):
        go(*arguments)


def test_missing_extra_is_explained_in_one_line(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(extras.importlib, "import_module", refuse)
    with pytest.raises(ValueError, match=r"needs ai_edge_litert: pip install .posekernels\[video\]"):
        extras.needs("ai_edge_litert.interpreter", "video", "finding people in images")


def test_pictures_come_in_the_order_of_their_numbers(pictures):
    from posekernels.people.video import Video

    video = Video(pictures)
    assert [int(image[0, 0, 0]) for image in video] == list(range(20)) and video.size == (100, 160)
    assert Video(pictures, width=50).size == (50, 80)


def test_keypoints_of_a_run_can_be_lifted_again(folder, tmp_path):
    lift(folder, tmp_path / "x.npz")
    again = keypoint_files.read(tmp_path / "x.npz")
    assert again.layout == H36M_17.name and len(again.people) == 2


# -- export ----------------------------------------------------------------------------------------------------------
SMALL = {
    "gcndiff": {"channels": 16, "layers": 1, "heads": 2},
    "gcnpose": {"channels": 16, "layers": 1, "heads": 2, "in_channels": 3},
    "htnet": {"depth": 1, "channels": 24, "hidden": 16},
    "mixste": {"frames": 5, "depth": 1, "channels": 16, "heads": 2, "in_channels": 3},
    "mgcn_lw": {},
    "pkd": {"blocks": 2, "distill_blocks": 1},
    "rie": {"filter_widths": (3, 3), "channels": 8, "latent": 8},
    "simlpe": {"blocks": 2},
    "strided_refine": {},
    "strided_transformer": {"strides": (3, 3), "layers": 1, "channels": 16, "hidden": 16, "heads": 2},
    "variance_gcn": {},
    "variance_linear": {},
}


@pytest.mark.slow  # 4 to 20 seconds each
@pytest.mark.parametrize("name", models.names())
def test_every_network_runs_in_onnxruntime(name, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from posekernels.people.commands.export import export

    torch.manual_seed(0)
    net = models.create(name, **SMALL[name]).eval()
    for parameter in net.parameters():  # some networks begin with nothing to compare: their last layer is all but 0
        if parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.1)
    assert 0 < export(net, name, tmp_path / "x.onnx") < 1e-5
    assert (tmp_path / "x.onnx").is_file() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_export_of_results_that_are_no_numbers_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from posekernels.people.commands.export import export

    net = models.create("strided_refine").eval()
    torch.nn.init.constant_(next(net.parameters()), float("nan"))
    with pytest.raises(ValueError, match="differs from PyTorch by nan"):
        export(net, "strided_refine", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_export_refuses_before_it_works(tmp_path):
    with pytest.raises(ValueError, match="^-o .*x.pt: expected a name that ends in .onnx"):
        go("export", "-o", tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no network named 'htnett'; did you mean 'htnet'"):
        go("export", "--model", "htnett", "--onnx", tmp_path / "x.onnx")
    for model, config, message in (
        ("htnet", "chanels=24", "--config: htnet has no 'chanels'; did you mean 'channels'"),
        ("rie", "frames=27", "--config: rie has no 'frames'; it follows from filter_widths"),
        ("mixste", "frames=abc", "--config: mixste: frames must be int, got 'abc'"),
        ("strided_transformer", "strides=3", "strides must be tuple.int, .... | None, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            go("export", "--model", model, "--config", config, "--onnx", tmp_path / "x.onnx")
