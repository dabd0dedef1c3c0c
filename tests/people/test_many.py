"""Many files in one run: one load, one bar, one table; failures, resuming, and the same on Ray."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.__main__ import run
from posekernels.archive import DataError
from posekernels.models.load import About, save_weights
from posekernels.people import keypoint_files, pose_files
from posekernels.people.commands import many
from posekernels.people.commands.lift import parser
from posekernels.people.lifter import Person
from posekernels.people.world import Lifted
from posekernels.pose.layouts import from_h36m
from posekernels.train.data.motion import load_starter


@pytest.fixture(scope="module")
def lifter(tmp_path_factory):
    """Weights of a tiny lifter."""
    torch.manual_seed(0)
    config = {"strides": [3, 3], "layers": 1, "channels": 16, "hidden": 16, "heads": 2}
    path = tmp_path_factory.mktemp("weights") / "lifter.safetensors"
    net = models.create("strided_transformer", **config).eval()
    save_weights(net, path, About("strided_transformer", config, "person"))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three keypoint files, one of them broken, one with two people."""
    walk = from_h36m((load_starter().test[0].keypoints[:40] + 1) * 500, "coco-17").astype(np.float32)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", walk)
    np.save(folder / "b.npy", np.stack((walk, walk + (300, 0)))[:, :30])
    np.save(folder / "broken.npy", walk[:, :5])
    return folder


def go(*arguments) -> int:
    return run([str(a) for a in arguments])


def test_a_folder_is_one_run_with_one_table(folder, lifter, tmp_path, capsys, monkeypatch):
    loads = []
    monkeypatch.setattr(many, "load_lifter", lambda *a, real=many.load_lifter: loads.append(a) or real(*a))
    how = ["--weights", lifter, "--size", "1000x1000", "-o", f"{tmp_path / 'out'}/"]
    assert go("lift", folder, *how, "--form", "npz", ".bvh") == 1 and len(loads) == 1
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[:4] for row in rows[1:3]] == [["a.npy", "lifted", "1", "40"], ["b.npy", "lifted", "2", "30"]]
    assert rows[3][:2] == ["broken.npy", "failed"] and "5 joints fit no known layout" in said.out
    assert "b.npy: 17 joints, taken for coco-17" in said.err and "2 lifted, 1 failed" in said.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.bvh", "a.npz", "b-2.bvh", "b.bvh", "b.npz"]
    go("lift", folder / "a.npy", *how[:-2], "-o", tmp_path / "alone.npz")
    alone, among = (pose_files.read(path).people[0].world for path in (tmp_path / "alone.npz", tmp_path / "out/a.npz"))
    np.testing.assert_array_equal(alone, among)


def test_resume_skips_what_is_done(folder, lifter, tmp_path, capsys):
    how = ["--weights", lifter, "--size", "1000x1000", "-o", tmp_path / "out"]
    assert go("lift", folder / "a.npy", folder / "b.npy", *how) == 0
    before = (tmp_path / "out/a.npz").stat().st_mtime_ns
    (tmp_path / "out/b.npz").unlink()
    capsys.readouterr()
    assert go("lift", folder / "a.npy", folder / "b.npy", *how, "--resume") == 0
    said = capsys.readouterr()
    assert [line.split()[:2] for line in said.out.splitlines()[1:]] != [] and "1 was done, 1 lifted" in said.err
    assert (tmp_path / "out/a.npz").stat().st_mtime_ns == before and (tmp_path / "out/b.npz").exists()


def test_ctrl_c_leaves_a_table_and_goes_on_with_resume(folder, lifter, tmp_path, capsys, monkeypatch):
    real = many.Work.__call__

    def stopped(self, task, bar=None):
        if task["source"].endswith("b.npy"):
            raise KeyboardInterrupt
        return real(self, task, bar)

    monkeypatch.setattr(many.Work, "__call__", stopped)
    how = ["--weights", lifter, "--size", "1000x1000", "-o", tmp_path / "out"]
    assert go("lift", folder, *how) == 130
    said = capsys.readouterr()
    assert "a.npy" in said.out and "2 left; the same command with --resume goes on" in said.err


def test_videos_pictures_and_folders_of_frames_are_told_apart(tmp_path):
    for name in ("x.mp4", "y.npy", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    for name in ("frames/1.json", "pictures/1.png", "empty/x.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert [p.name for p in many.inside(tmp_path)] == ["frames", "pictures", "x.mp4", "y.npy"]
    assert many.inside(tmp_path / "frames") == many.inside(tmp_path / "pictures") == []


def test_pictures_beside_videos_are_told_to_be_left_out(folder, lifter, tmp_path, capsys):
    for name in ("sofa.jpg", ".thumbnail.jpg", "table.csv", "notes.txt"):
        (folder / name).touch()
    how = ["--weights", lifter, "--size", "1000x1000", "-o", f"{tmp_path / 'out'}/"]
    go("lift", folder, *how)
    other = f"{folder}: files that are neither videos nor keypoints are left out: notes.txt, table.csv\n"
    line = f"{folder}: 1 picture beside videos or keypoints left out (sofa.jpg); name a picture to lift it"
    said = capsys.readouterr().err
    assert said.startswith(line) and other in said
    go("lift", folder / "a.npy", folder / "b.npy", *how)
    assert "left out" not in capsys.readouterr().err


def test_json_of_whole_videos_in_a_folder_are_one_work_each(tmp_path):
    """As detectors write them, and not frames of one clip."""
    person = {"keypoints": [1.0, 2.0, 0.9] * 17}
    video = [{"image_id": f"{t}.jpg"} | person for t in range(30)]
    (tmp_path / "videos").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "videos" / name).write_text(json.dumps(video))
    assert [p.name for p in many.inside(tmp_path / "videos")] == ["a.json", "b.json"]
    assert [p.name for p in many.inside(tmp_path)] == []
    one = Person(1, *(np.ones((9, 17, *width), np.float32) for width in ((2,), (), (3,), (3,))))
    (tmp_path / "found").mkdir()
    pose_files.write(tmp_path / "found" / "ours.json", Lifted([one], 30.0, (640, 480)))
    assert many.inside(tmp_path) == [], "what lift wrote is no folder of frames"
    assert [p.name for p in many.inside(tmp_path / "found")] == ["ours.json"]
    (tmp_path / "found" / "1.json").write_text('{"people": []}')
    with pytest.raises(
        DataError, match="ours.json: posekernels lift wrote it; expected one frame in each file of a folder"
    ):
        keypoint_files.read(tmp_path / "found")
    shutil.rmtree(tmp_path / "found")
    (tmp_path / "frames").mkdir()
    for name in ("1.json", "2.json"):
        (tmp_path / "frames" / name).write_text(json.dumps({"people": [{"pose_keypoints_2d": person["keypoints"]}]}))
    assert many.inside(tmp_path / "frames") == [] and [p.name for p in many.inside(tmp_path)] == ["frames"]


def test_options_of_keypoint_files_hold_for_these_alone():
    options = parser().parse_args(["a.npy", "b.mp4", "-o", "x", "--size", "9x9", "--rtmpose", "d.onnx", "p.onnx"])
    a, b = (many.for_one(options, {"source": source, "outs": []}) for source in (options.input, *options.more))
    assert (a.input, a.size, a.rtmpose) == ("a.npy", (9, 9), None)
    assert (b.input, b.size, b.rtmpose) == ("b.mp4", None, ["d.onnx", "p.onnx"])


def test_what_cannot_be_done_is_told_before_the_work(folder, lifter, tmp_path):
    for words, message in (
        (["-o", tmp_path / "x.npz"], "for 3 files, expected one folder, such as OUT/"),
        (["-o", tmp_path / "out", "--form", "fbx"], "--form: expected .npz.* got .fbx"),
        (["-o", tmp_path / "out", "--latency", 1], "--latency is for live frames"),
        (["-o", folder / "a.npy" / "x"], "cannot be made"),
    ):
        with pytest.raises(ValueError, match=message):
            go("lift", folder, *words)
    with pytest.raises(ValueError, match="a.npy: given twice"):
        go("lift", folder, folder / "a.npy", "-o", tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.npy").write_bytes((folder / "a.npy").read_bytes())
    with pytest.raises(ValueError, match="a.npy: several inputs have this name"):
        go("lift", folder / "a.npy", other / "a.npy", "-o", tmp_path / "out")


def test_ray_does_the_same_work_with_two_workers(folder, lifter, tmp_path, capsys, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'posekernels[ray]')")
    pytest.importorskip("ray.data", reason="Ray is not installed with its data part (pip install 'posekernels[ray]')")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    example = Path(__file__).parents[2] / "examples/lift_with_ray.py"
    try:
        how = ["--weights", lifter, "--size", "1000x1000"]
        monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path / "own"), str(folder / "a.npy")])
        runpy.run_path(str(example))
        assert capsys.readouterr().out.endswith("a.npy: 1 people in 40 frames\n") and (tmp_path / "own/a.npz").exists()
        assert go("lift", folder, *how, "-o", tmp_path / "ray", "--engine", "ray") == 1
        said = capsys.readouterr()
    finally:
        ray.shutdown()
    assert "2 lifted" in said.err and "1 failed" in said.err and "b.npy: 17 joints, taken for coco-17" in said.err
    assert go("lift", folder, *how, "-o", tmp_path / "here") == 1
    for name in ("a.npz", "b.npz"):
        a, b = pose_files.read(tmp_path / "ray" / name), pose_files.read(tmp_path / "here" / name)
        for one, other in zip(a.people, b.people, strict=True):
            np.testing.assert_array_equal(one.world, other.world)
