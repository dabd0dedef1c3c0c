"""The suite can fail: every deliberately broken kernel of ``tests/mutants.py`` is rejected."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.native import ROOT


@pytest.mark.parametrize("kind", ["cpp", "triton"])
def test_every_broken_kernel_is_rejected(kind):
    if kind == "cpp" and shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    if kind == "triton":
        pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", kind],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    survivors = [line for line in done.stdout.splitlines() if line.endswith("SURVIVES")]
    assert done.returncode == 0, "\n".join(survivors) or done.stderr
