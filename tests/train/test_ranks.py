"""Two processes under torchrun train what one trains, where a recipe draws nothing of its own and norms no batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posekernels.archive import read_checkpoint

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
