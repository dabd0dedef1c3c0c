"""Two processes under torchrun train what one trains, where a recipe draws nothing of its own and norms no batch."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed import run

from posekernels.archive import read_checkpoint
from posekernels.train import any_motion, h36m, recipes
from posekernels.train.options import ProgramParser

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "simlpe": "--iter 4 --every 4 -b 16 --blocks 2",
    "pkd": "--iter 3 --every 3 -b 14 --blocks 2",
    "mixste": "-e 1 -b 6561 --frames 27 --channels 16 --depth 1 --heads 2",
}


@pytest.mark.parametrize("model", SMALL)
def test_two_processes_train_as_one(model, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, launch in (
        ("one", []),
        ("two", ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]),
    ):
        command = [
            sys.executable,
            "-m",
            *launch,
            "train.h36m",
            "--model",
            model,
            *SMALL[model].split(),
            "--no-progress",
        ]
        command += ["--out", str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = (read_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    assert one["step"] == two["step"] > 1
    # Losses and errors, not weights: Adam turns the rounding of a gradient that is nothing into steps of its rate.
    (a,), (b,) = one["history"], two["history"]
    for name, value in a.items():
        if "seconds" not in name:
            assert b[name] == pytest.approx(value, rel=2e-4), name


PROGRAMS = {
    model: h36m.MOTION if model in recipes.names("motion") else h36m.JOB for model in recipes.names("lifting", "motion")
}


@pytest.mark.parametrize("model", [*PROGRAMS, "any_motion"])
def test_no_option_is_torchruns(model, monkeypatch):
    """Each option has a name that torchrun passes on: it refuses what several of its own options begin with."""
    parsers = []
    monkeypatch.setattr(ProgramParser, "parse_args", lambda self, argv: parsers.append(self) or sys.exit())
    with pytest.raises(SystemExit):
        PROGRAMS[model].parse(["--model", model]) if model in PROGRAMS else any_motion.JOB.parse([])
    launcher = run.get_args_parser()
    for action in parsers[0]._actions:
        passed = []
        for name in action.option_strings:
            with contextlib.suppress(SystemExit):
                passed.append(launcher.parse_args(["-m", "train.h36m", name]).training_script_args == [name])
        assert any(passed), action.option_strings
