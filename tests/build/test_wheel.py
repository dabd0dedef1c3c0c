"""The wheel as a user has it: native module inside, one for every Python, in an environment without a compiler."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from posekernels import _native
from tests.native import ROOT

pytest.importorskip("cmake")
pytest.importorskip("ninja")
pytestmark = pytest.mark.skipif(_native.core is None, reason=str(_native.no_cpu()))
MODULE = "posekernels/_native_core.abi3.so"
# Without PyTorch: the module alone, called once.
CALL = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("posekernels._native_core", sys.argv[1])
m = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(m)
assert m.gemm_packed_size(1, 3, 5) >= 15
try:
    m.gemm_packed_size(1, 2.0, 3)
except TypeError as error:
    assert "argument 1 must be an integer, got float" in str(error), error
print(m.isa, len(m.kernels))
"""


def run(command: list, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made of this checkout, whose objects of the build in place are used again."""
    place = tmp_path_factory.mktemp("wheel")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"POSEKERNELS_BUILD": "require", "POSEKERNELS_CUDA": "off"}
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", place, "build", "--build-base", place]
    done = run([*command, "bdist_wheel", "--dist-dir", place, "--bdist-dir", place / "bdist"], cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = place.glob("*.whl")
    return made


def test_one_wheel_for_every_python(wheel):
    assert "-cp311-abi3-" in wheel.name and wheel.name.endswith(f"{platform.machine()}.whl")
    assert [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".so")] == [MODULE]


def test_every_python_here_loads_it(wheel, tmp_path):
    path = zipfile.ZipFile(wheel).extract(MODULE, tmp_path)
    said = set()
    for minor in range(11, 16):
        python = shutil.which(f"python3.{minor}")
        # a launcher of versions that are not chosen answers too, with an error
        if python is None or run([python, "-c", ""]).returncode:
            continue
        done = run([python, "-c", CALL, path])
        assert done.returncode == 0, f"python3.{minor}: {done.stderr}"
        said.add(done.stdout)
    assert said in (set(), {f"{_native.core.isa} {len(_native.core.kernels)}\n"})


def test_installed_without_a_compiler_it_lifts(wheel, tmp_path):
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # PyTorch and the rest
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "POSEKERNELS_BACKEND", "CXX")}
    done = run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel], env=env)
    assert done.returncode == 0, done.stderr
    env["PATH"] = str(empty)
    np.save(tmp_path / "walk.npy", np.random.default_rng(0).uniform(200, 800, (9, 17, 2)).astype(np.float32))
    command = [environment / "bin" / "posekernels", "lift", "walk.npy", "--size", "1000x1000", "-o", "walk.npz"]
    done = run(command, cwd=tmp_path, env=env)
    assert done.returncode == 0 and (tmp_path / "walk.npz").is_file(), done.stderr
    told = "import posekernels, posekernels.info as i; print(posekernels.__file__); print(i.machine()['cpu kernels'])"
    where, kernels = run([python, "-c", told], cwd=tmp_path, env=env).stdout.splitlines()
    assert Path(where).is_relative_to(environment) and kernels.startswith(_native.core.isa)

    (site / MODULE).write_bytes(b"of another machine")  # where it cannot load: the reference, and the reason
    done = run(command, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    kernels = run([python, "-c", told], cwd=tmp_path, env=env).stdout
    assert "no C++ kernels: the native module is there but does not load" in kernels
