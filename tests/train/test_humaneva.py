"""``python -m train.humaneva`` on small files of the published form."""

import numpy as np
import pytest

from posekernels import models
from posekernels.archive import write_npz
from posekernels.models import rie
from posekernels.people.commands import convert_weights
from posekernels.train import humaneva


def write(tmp_path):
    rng = np.random.default_rng(0)
    positions, keypoints = {}, {}
    for split in ("Train", "Validate"):
        for subject in ("S1", "S2", "S3"):
            actions = {"Walking 1 chunk0": 6, "Jog 1 chunk1": 4, "Box 1 chunk2": 5}
            key = f"{split}/{subject}"
            positions[key] = {a: rng.normal(size=(n, 15, 3)).astype(np.float32) for a, n in actions.items()}
            keypoints[key] = {
                a: [rng.uniform(0, 480, (n, 15, 2)).astype(np.float32) for _ in range(3)] for a, n in actions.items()
            }
    metadata = {"num_joints": 15, "keypoints_symmetry": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]]}
    write_npz(tmp_path / "data_3d_humaneva15.npz", positions_3d=positions)
    write_npz(tmp_path / "data_2d_humaneva15_gt.npz", positions_2d=keypoints, metadata=metadata)


def test_trains_and_reports_fifteen_joints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    write(tmp_path)
    options = ["--data-root", tmp_path, "--out", tmp_path / "run", "-arc", "3", "-ch", "4", "-lfd", "4", "-e", "1"]
    assert humaneva.main([*map(str, options), "--stage", "1", "-b", "64"]) == 0
    printed = capsys.readouterr().out
    assert "Walking" in printed and "Box" in printed and "HumanEva" in printed


def test_the_usual_protocol_is_the_default():
    options, _ = humaneva.JOB.parse(["--data-root", "x", "-b", "64"])
    assert (options.architecture, options.batch_size, options.epochs) == ((3, 3, 3), 64, 1000)
    assert options.lr_decay == 0.996 and options.channels == 256


def test_a_run_says_its_skeleton_and_refine_asks_for_cameras(tmp_path, monkeypatch):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    write(tmp_path)
    options = ["--data-root", str(tmp_path), "-e", "1", "-b", "64"]
    strided = ["--frames", "3", "--strides", "3", "--layers", "1", "--channel", "8", "--d_hid", "8"]
    for name, sizes in (("rie", ["-arc", "3", "-ch", "4", "-lfd", "4"]), ("strided_transformer", strided)):
        assert humaneva.main([*options, "--model", name, *sizes, "--out", str(tmp_path / name)]) == 0
        weights = str(tmp_path / f"{name}.safetensors")
        assert convert_weights.main([str(tmp_path / name / "best.pt"), "-o", weights]) == 0
        assert models.load(weights).skeleton.num_joints == 15
    with pytest.raises(ValueError, match="--refine: Train/S1 Walking .* has no camera"):
        humaneva.main([*options, "--model", "strided_transformer", *strided, "--refine", "--out", str(tmp_path / "x")])
