"""Long recordings: people who come, go and come back; memory that follows what was seen; numbers put right by hand."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from posekernels import models
from posekernels.archive import DataError, read_npz
from posekernels.people import detect, keypoint_files, lifter, pose_files, rows, world
from posekernels.people.commands import forecast
from posekernels.people.commands import lift as command
from posekernels.people.keypoint_rules import Keypoints
from posekernels.people.lifter import Kept, Person, Shelf
from posekernels.people.numbers import put_right
from posekernels.people.rows import Rows
from posekernels.people.tracking import Sighting, Track, Tracker
from posekernels.people.world import Lifted
from posekernels.pose.skeleton import skeleton

ROOT = Path(__file__).resolve().parents[2]
BODY = np.random.default_rng(0).uniform(-60, 60, (17, 2)).astype(np.float32)
RED, BLUE, GREY = ((0.7, 0.2, 0.2), (0.3, 0.3, 0.3)), ((0.2, 0.3, 0.7), (0.2, 0.2, 0.2)), ((0.5, 0.5, 0.5),) * 2


def sighting(x: float, clothes=None, body=BODY) -> Sighting:
    worn = None if clothes is None else np.array(clothes, np.float32)
    return Sighting(body + np.float32((x, 0)), np.ones(17, np.float32), worn)


def tracked(frames: list[list[Sighting]]):
    """Tracks of sightings frame by frame."""
    tracker, seen = Tracker(layout="coco-17"), []
    for people in frames:
        tracker.add(people)
        seen += people
    points, scores = np.stack([s.points for s in seen]), np.stack([s.scores for s in seen])
    return tracker.tracks(lambda rows: (points[rows], scores[rows]))


def test_people_who_come_back_are_the_same_by_their_clothes():
    visit = [[sighting(5 * t, RED), sighting(900 - 5 * t, BLUE)] for t in range(30)]
    away: list[list[Sighting]] = [[] for _ in range(200)]
    tracks = tracked((visit + away) * 5)
    assert [len(t.frames) for t in tracks] == [150, 150]
    x = tracks[0].points[:, 0, 0] - tracks[0].points[0, 0, 0]
    np.testing.assert_allclose(x, np.tile(x[:30], 5))  # the same one of the two, each time


@pytest.mark.parametrize(
    "others",
    [
        [sighting(0, BLUE)],  # other clothes
        [sighting(0, RED), sighting(900, RED)],  # two who could be the one
        [sighting(0, RED, 3 * BODY)],  # another size
        [sighting(300)],  # nobody looked, and elsewhere
    ],
    ids=("clothes", "twins", "size", "elsewhere"),
)
def test_in_doubt_whoever_comes_back_is_new(others):
    tracks = tracked([[sighting(0, RED)]] * 30 + [[]] * 200 + [others] * 30)
    assert [len(t.frames) for t in sorted(tracks, key=lambda t: t.frames[0])] == [30] * (1 + len(others))


def test_without_clothes_people_come_back_where_they_were_and_soon():
    for away, tracks in ((200, 1), (2000, 2)):
        assert len(tracked([[sighting(0)]] * 30 + [[]] * away + [[sighting(20)]] * 30)) == tracks


def test_clothes_are_the_colours_of_trunk_and_thighs():
    image, names = np.zeros((100, 100, 3), np.uint8), skeleton("coco-17").joints
    image[20:50, 30:60], image[52:80, 30:60] = (255, 0, 0), (0, 0, 255)
    points = np.full((17, 2), np.nan, np.float32)
    for name, at in (("shoulder", 20), ("hip", 50), ("knee", 80)):
        points[names.index(f"left_{name}")], points[names.index(f"right_{name}")] = (55, at), (35, at)
    seen = Sighting(points, np.ones(17, np.float32))
    np.testing.assert_allclose(detect.clothes(image, seen, "coco-17"), [[1, 0, 0], [0, 0, 1]])
    seen.points = points + 200
    assert np.isnan(detect.clothes(image, seen, "coco-17")).all(), "out of the image"


def test_memory_of_tracks_is_what_was_seen():
    """500 people one after the other: whole-length arrays of everybody would be 500 times the recording."""
    frames = [[sighting(1000 * (t // 20 % 50))] for t in range(10000)]
    tracks = tracked(frames)
    assert sum(len(f) for _, f, _ in tracks.people) == 10000 and len(tracks) == 500
    assert max(len(t.points) for t in tracks) < 1000


class Still:
    """Lifts everybody to one pose."""

    class net:
        sees, frames = "screen", 1

    def check_size(self, size): ...

    def pace(self, fps):
        return 1, 1

    def __call__(self, points, size, focal, fps):
        return np.broadcast_to(POSE, (len(points), 17, 3)).copy()


POSE = np.random.default_rng(1).normal(0, 0.3, (17, 3)).astype(np.float32)
POSE[0] = 0


def person(identity: int, frames) -> Person:
    frames = np.asarray(frames)
    points = np.tile(BODY, (len(frames), 1, 1)) + np.float32(frames[:, None, None])
    poses = np.tile(POSE, (len(frames), 1, 1))
    detected = np.full((len(frames), 26, 3), np.float32(identity)) + np.float32(frames[:, None, None])
    scores = np.ones((len(frames), 17), np.float32)
    return Person(identity, points, scores, poses, poses + 1, frames=frames, detected=detected)


def track(identity: int, frames: range) -> Track:
    points = np.tile(BODY, (len(frames), 1, 1))
    return Track(identity, points, np.ones((len(frames), 17), np.float32), np.array(frames))


def test_people_are_limited_at_one_moment_and_not_in_all():
    tracks = [track(1, range(100)), track(2, range(40)), track(3, range(60, 100)), track(4, range(30, 50))]
    found = Keypoints(tracks, "h36m-17", 100)
    kept = lifter.lift_all(Still(), found, 2, bridge=3)
    assert [(p.identity, p.frames[0], p.frames[-1]) for p in kept] == [(1, 0, 99), (2, 0, 39), (3, 60, 99), (4, 40, 49)]
    [note] = found.notes
    assert note == (
        "up to 3 people at one moment: where there are more than 2, those seen least are left out, 1 of 4; "
        "--people 3 keeps everybody"
    )
    assert len(lifter.lift_all(Still(), Keypoints(tracks, "h36m-17", 100), 3)) == 4


def test_how_many_are_there_how_often_is_one_line():
    lifted = Lifted([person(1, range(10, 90)), person(2, range(50, 90))], 30, None, length=100)
    first, *_ = command.describe(lifted)
    assert first == "people at one moment: nobody in 20.0 %, one in 40.0 %, two in 40.0 % of the frames"


def shelf(*people: Person, room=1 << 30) -> Shelf:
    found = Shelf(room=room)
    for one in people:
        found.append(one)
    return found


def test_numbers_are_put_right_by_hand():
    people = shelf(person(1, range(100)), person(3, range(40)), person(7, range(60, 100)))
    merged = put_right(people, [(3, 7)], [], 10.0)
    assert [(p.identity, len(p.frames)) for p in merged] == [(1, 100), (3, 80)]
    assert merged[1].frames.tolist() == [*range(40), *range(60, 100)]
    assert merged[1].detected[:, 5, 0].tolist() == [*range(3, 43), *range(67, 107)]
    split = put_right(merged, [], [(3, 5.0)], 10.0)
    assert [(p.identity, p.frames[0], p.frames[-1]) for p in split] == [(1, 0, 99), (3, 0, 39), (4, 60, 99)]
    np.testing.assert_array_equal(split[2].detected, people[2].detected)
    for couples, moments, message in (
        ([(1, 7)], [], "--merge 1=7: expected one person, but both are there at 6.0 s, and in 40 frames in all"),
        ([(1, 9)], [], "--merge 1=9: nobody has the number 9; there are 1, 3, 7"),
        ([], [(3, 8.0)], "--split 3@8: expected a time when this person is there, 0.0 to 3.9 s"),
    ):
        with pytest.raises(ValueError, match=message):
            put_right(people, couples, moments, 10.0)


def test_a_full_shelf_keeps_people_in_a_file():
    people = [person(i, range(10 * i, 10 * i + 50)) for i in range(5)]
    full = shelf(*people, room=2 * 50 * (Shelf.ROW + 26 * Shelf.DETECTED))
    assert [isinstance(one, Kept) for one in full] == [False, False, True, True, True]
    full[3].begin_world()
    full[3].world[:] = people[3].world + 5
    full[3].off, full[3].identity = 1.5, 30
    for one, other in zip(people, full):
        assert one.frames.tolist() == other.frames.tolist()
        for name in ("points", "scores", "poses", "detected"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(full[3].world, people[3].world + 5)
    assert (full[3].off, full[3].identity, full[4].world) == (1.5, 30, None)
    np.testing.assert_array_equal(full[3].until(45).since(33).over("world", 45, 31)[2:], full[3].world[3:15])


def test_a_full_disk_is_told_before_anybody_is_put_there():
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Kept(1, np.arange(9), Full())


def test_memory_of_a_long_lift_is_little_more_than_its_keypoints(tmp_path, monkeypatch):
    """204 bytes a frame, which are read; all else is done by pieces: six times as much before."""
    monkeypatch.setattr(rows, "CUT", 1024)
    monkeypatch.setattr(lifter, "LONGEST", 1024)
    monkeypatch.setattr(lifter, "ROOM", 1 << 20)
    count, generator = 40000, np.random.default_rng(0)
    came = np.dstack((np.tile(BODY + 300, (count, 1, 1)), np.full((count, 17), 0.9, np.float32)))
    np.save(tmp_path / "x.npy", came + generator.normal(0, 0.01, came.shape).astype(np.float32))
    del came
    arguments = [str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz"), "--size", "640x480", "--smooth", "0"]
    options = command.parser().parse_args(arguments)
    tracemalloc.start()
    lifted = command.run(options, [], tmp_path / "y.npz", lifter=Still())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(lifted.people[0], Kept) and len(lifted.people[0].frames) == count
    assert peak < 400 * count + 2e6, f"{peak / count:.0f} bytes a frame"


def test_the_level_of_many_people_takes_the_memory_of_their_steps():
    generator, turn = np.random.default_rng(0), np.eye(3)
    places = [generator.normal(0, 2, (100, 3)) for _ in range(300)]
    for level, some in enumerate(places):
        some[:, 2] = 0.05 * some[:, 0] - 0.02 * some[:, 1] + level + generator.normal(0, 0.01, 100)
    tracemalloc.start()
    found = world._slope([(some, 0.1) for some in places], turn)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, (-0.05, 0.02), atol=2e-3)
    assert peak < 20e6  # a column for each person took 72 MB, several times


@pytest.mark.parametrize("sparse", [False, True])
def test_a_long_recording_is_written_by_frames(tmp_path, monkeypatch, sparse):
    people = [person(3, [2, 3, 5]), *(person(10 + i, range(40 * i, 40 * i + 9)) for i in range(1, 9))]
    if sparse:
        monkeypatch.setattr(pose_files, "DENSE", 1000)
    pose_files.write(
        tmp_path / "x.npz", Lifted(people, 25.0, (640, 480), "x.mp4", length=400, detected_layout="halpe-26")
    )
    with np.load(tmp_path / "x.npz") as content:
        assert content["poses"].shape == ((75, 17, 3) if sparse else (9, 400, 17, 3))
    again = pose_files.read(tmp_path / "x.npz")
    assert (again.frames, again.fps, again.size) == (400, 25.0, (640, 480))
    for one, other in zip(people, again.people, strict=True):
        assert one.identity == other.identity
        for name in ("points", "scores", "poses", "world", "detected"):
            np.testing.assert_array_equal(one.over(name, 400), other.over(name, 400))
    found = keypoint_files.read(tmp_path / "x.npz")
    assert found.frames == 400 and found.numbered and found.people[0].frames.tolist() == [2, 3, 5]


def test_memory_and_time_of_a_recording_grow_with_what_is_in_it(tmp_path):
    """Four times the frames and people who come and go: about four times of both, where arrays of everybody over all
    frames were sixteen."""
    from bench.recordings import recorded

    costs = []
    for frames in (500, 2000):
        tracemalloc.start()
        row = recorded(frames, 3, tmp_path, stay=200)
        costs.append((row.identities, row.seconds, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
        assert not list(tmp_path.glob(".*")), "nothing is left beside"
    (few, quick, small), (many, slow, large) = costs
    assert 3.5 < many / few < 4.5 and slow < 8 * quick and large < 6 * small
    assert pose_files.read(tmp_path / "people.npz").frames == 2000


def test_a_forecast_keeps_a_minute_of_a_long_past():
    """And not an hour, to go on for a second from the last two."""
    long = Lifted([person(1, range(9000))], 50.0, (640, 480))
    done, end, notes = forecast.forecast(models.load("forecaster"), long, 1.0, 25.0)
    assert (end, done.frames) == (9000, 9050) and done.people[0].frames.tolist() == [*range(6000, 9050)]
    assert "only the last 60 s before the forecast are written with it, not all 180 s" in notes


@pytest.mark.parametrize("sparse", [False, True])
def test_a_forecast_reads_the_end_of_a_long_file(tmp_path, monkeypatch, capsys, sparse):
    """What it says and makes is that of the whole file; memory is that of the last minute."""
    people = [person(1, range(12000)), person(5, range(300, 900)), person(7, range(8000, 8200)), person(9, [11999])]
    if sparse:
        monkeypatch.setattr(pose_files, "DENSE", 1000)
        people[0] = person(1, range(7000, 12000))
    pose_files.write(tmp_path / "x.npz", Lifted(people, 50.0, (640, 480), "x.mp4", length=12000))
    told = []
    for many in (1 << 30, 100):
        monkeypatch.setattr(pose_files, "MANY", many)
        for at in ([], ["--at", "18"], ["--at", "163.2"]):
            (tmp_path / "y.npz").unlink(missing_ok=True)
            try:
                forecast.main([str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"), *at])
                world = pose_files.read(tmp_path / "y.npz").people[0].world
            except ValueError as error:
                world = str(error)
            told.append((capsys.readouterr().err, world))
    for one, other in zip(told[:3], told[3:], strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])
    tracemalloc.start()
    pose_files.read_before(tmp_path / "x.npz", 10.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (3e6 if sparse else 10e6)  # of 3.6 and 29 MB


@pytest.mark.parametrize("form", [".npz", ".json"])
def test_a_forecast_keeps_what_was_detected(tmp_path, monkeypatch, form):
    """Of the end of a long file too, of which it reads no more."""
    people = [person(1, range(1536)), person(7, range(400, 1400)), person(9, range(1000, 1536))]
    lifted = Lifted(people, 10.0, (640, 480), "x.mp4", length=1536, detected_layout="halpe-26")
    pose_files.write(tmp_path / f"x{form}", lifted)
    found = []
    for many in (1 << 30, 100):
        monkeypatch.setattr(pose_files, "MANY", many)
        for at in ([], ["--at", "120.5"]):
            forecast.main([str(tmp_path / f"x{form}"), "-o", str(tmp_path / "y.npz"), *at])
            found.append(pose_files.read(tmp_path / "y.npz"))
    for one, other in zip(found[:2], found[2:], strict=True):
        assert [p.identity for p in one.people] == [p.identity for p in other.people] and one.source == other.source
        assert (one.fps, one.size, one.detected_layout) == (other.fps, other.size, "halpe-26")
        for a, b in zip(one.people, other.people):
            for name in ("points", "scores", "poses", "world", "detected"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(found[2].people[0].detected[936:1536], people[0].detected[936:])
    assert np.isnan(found[2].people[0].detected[1536:]).all()
    tracemalloc.start()
    pose_files.read_before(tmp_path / f"x{form}", 10.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # a megabyte of text at a time; 58 MB as numbers of Python


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 7, None),  # as of a short file: no size
        ("size", {"w": 640}, "not as posekernels lift writes it"),
        ("scores", [[{}]], "frames are not lists of numbers"),
        ("frames", 70_000_000_000_000, None),  # as of a short file, which does not ask
        ("frames", float("inf"), None),
        ("frames", 100, "150 frames of 100"),
        ("after", " x", "'x' after its end"),
        ("detected_layout", ["halpe-26"], "not as posekernels lift writes it"),
        ("source", ["clip.mp4"], r"source: expected a name, got \['clip.mp4'\]"),
    ],
)
def test_a_long_json_that_is_not_ours_is_told_in_a_line(tmp_path, monkeypatch, field, value, message):
    monkeypatch.setattr(pose_files, "MANY", 100)
    path = tmp_path / "x.json"
    content = json.loads("".join(pose_files.as_json(Lifted([person(1, range(150))], 30.0, (640, 480)))))
    (content["people"][0] if field == "scores" else content)[field] = value
    people = content.pop("people")  # behind everything else, as it is written
    path.write_text(json.dumps({**content, "people": people}) + (value if field == "after" else ""))
    if field in ("detected_layout", "source"):
        with pytest.raises(DataError, match=message):
            pose_files.read(path)
    if message is None:
        told, outline = pose_files.read_before(path, 1.0)
        assert told is outline and told.frames == 150 and told.size == (None if field == "size" else (640, 480))
    else:
        with pytest.raises(DataError, match=message):
            pose_files.read_before(path, 1.0)


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ("null", "nobody in it"),
        ('{"1": {}}', "not as posekernels lift writes it"),
        ('"Ann"', "not as posekernels lift writes it"),
        ('["Ann"]', "not as posekernels lift writes it"),
        ("[null]", "not as posekernels lift writes it"),
        ('[{}], "source": 7', "source: expected a name, got 7"),
        ('[{}], "layout": ["coco-17"]', "layout: expected a name"),
    ],
)
def test_json_of_ours_with_other_people_is_json(tmp_path, people, message):
    (tmp_path / "x.json").write_text(f'{{"format":"posekernels","fps":30,"people":{people}}}')
    with pytest.raises(DataError, match=message):
        keypoint_files.read(tmp_path / "x.json")


def test_whole_numbers_may_come_as_decimal_ones(tmp_path, monkeypatch):
    """As MATLAB and pandas write them."""
    monkeypatch.setattr(pose_files, "DENSE", 1000)
    people = [person(1, range(60)), *(person(n, range(n, n + 9)) for n in range(2, 12))]
    pose_files.write(tmp_path / "x.npz", Lifted(people, 30.0, (640, 480)))
    content = read_npz(tmp_path / "x.npz", "frame", "identity")
    before = keypoint_files.read(tmp_path / "x.npz")
    decimal = {name: content[name].astype(np.float64) for name in ("frame", "identity")}
    np.savez(tmp_path / "y.npz", **(content | decimal))
    after = keypoint_files.read(tmp_path / "y.npz")
    assert [t.identity for t in after.people] == [t.identity for t in before.people]
    for one, other in zip(before.people, after.people, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
    for wrong in (0.5, np.nan):
        decimal["frame"][0] = wrong
        np.savez(tmp_path / "y.npz", **(content | decimal))
        with pytest.raises(DataError, match=f"frame: expected whole numbers, got {wrong}"):
            keypoint_files.read(tmp_path / "y.npz")


def test_json_is_written_piece_by_piece(tmp_path):
    lifted = Lifted([person(1, range(3000))], 30.0, (640, 480))
    tracemalloc.start()
    pose_files.write(tmp_path / "x.json", lifted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pose_files.read(tmp_path / "x.json").frames == 3000 and peak < 6e6  # 28 MB as numbers of Python


def test_keypoints_in_json_are_arrays_at_once(tmp_path):
    """Numbers of Python take ten times as much, which was held for all frames together, beside the text, twice."""
    count = 1500
    rows_of = [
        {"image_id": f"{t}.jpg", "keypoints": [round(3.7 * i + t / 9, 2) for i in range(51)]} for t in range(count)
    ]
    for row in rows_of:
        row["keypoints"][2::3] = [0.9] * 17
    (tmp_path / "x.json").write_text(json.dumps(rows_of))
    del rows_of
    tracemalloc.start()
    found = keypoint_files.read(tmp_path / "x.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.frames == count and found.people[0].points[5, 2, 0] == np.float32(round(3.7 * 6 + 5 / 9, 2))
    assert peak < 2500 * count


def test_what_nobody_could_use_is_refused_with_its_size(tmp_path):
    many = Lifted([person(i, range(3)) for i in range(300)], 30.0, None, length=216000)
    with pytest.raises(ValueError, match="x.trc: 300 people over 216000 frames would take about 29 GB; .npz holds"):
        pose_files.write(tmp_path / "x.trc", many)


def test_long_stretches_are_lifted_in_pieces_that_fit(monkeypatch):
    real, generator = lifter.load_lifter(), np.random.default_rng(2)
    steps = np.cumsum(generator.normal(0, 1.5, (300, 1, 2)), 0).astype(np.float32)
    from posekernels.pose.keypoints import guess_unseen

    body = guess_unseen(np.where(np.arange(17)[:, None] < 1, (300, 300), np.nan)[None], np.zeros((1, 17), bool))
    if not np.isfinite(body).all():
        body = BODY[None] + 300
    moving = Track(1, (body + steps).astype(np.float32), np.ones((300, 17), np.float32))
    whole = lifter.lift_person(real, moving, size=(640, 480), fps=30, smooth=7)
    monkeypatch.setattr(lifter, "LONGEST", 100)
    monkeypatch.setattr(lifter, "MARGIN", 64)
    pieces = lifter.lift_person(real, moving, size=(640, 480), fps=30, smooth=7)
    assert np.linalg.norm(whole.poses - pieces.poses, axis=-1).max() < 0.02
    assert np.array_equal(whole.frames, pieces.frames)


def test_records_are_whole_or_absent(tmp_path):
    dtype = np.dtype([("a", "<i4"), ("b", "<f4", (3,))])
    records = np.zeros(10, dtype)
    records["a"] = np.arange(10)
    with open(tmp_path / "x", "w+b", buffering=0) as file:
        rows = Rows(file, dtype)
        rows.append(records)
        assert rows[np.array([7, 2])]["a"].tolist() == [7, 2] and len(rows[slice(3, None)]) == 7

        class Full(io.FileIO):
            def write(self, data):
                super().write(bytes(data)[:5])
                raise OSError(28, "No space left on device")

        with Full(tmp_path / "x", "r+b") as full:
            other = Rows(full, dtype)
            with pytest.raises(OSError, match="No space"):
                other.append(records)
            assert len(other) == 10
        assert (tmp_path / "x").stat().st_size == 10 * dtype.itemsize


DRAWS = """
import multiprocessing, time
from posekernels.people import pictures
with pictures._workers(2, [], 1, None):
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def test_processes_that_draw_end_with_one_that_is_killed():
    def runs(number: str) -> bool:
        status = Path(f"/proc/{number}/status")
        return status.exists() and "State:\tZ" not in status.read_text()

    with subprocess.Popen([sys.executable, "-c", DRAWS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as drawing:
        workers = drawing.stdout.readline().split()
        assert len(workers) == 2 and all(map(runs, workers))
        drawing.kill()
    for _ in range(600):
        if not any(map(runs, workers)):
            break
        time.sleep(0.1)
    left = [number for number in workers if runs(number)]
    for number in left:
        os.kill(int(number), signal.SIGKILL)
    assert not left


def test_work_that_is_stopped_and_resumed_ends_as_undisturbed_work():
    """A round of each way to be stopped; ``python -m tests.stops --rounds 20`` does more."""
    command = [sys.executable, "-m", "tests.stops", "--rounds", "1"]
    for kind in ("SIGTERM", "SIGKILL", "memory", "disk"):
        command += ["--kind", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
