"""Installed as strangers install it, and used from the folders they sit in: only the name ``posekernels`` is taken."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODES = ("wheel", "editable")
FOLDERS = ("the checkout", "its parent", "a folder of rooms", "a path with spaces")
# One process a folder: what is imported, the two doors of a program, and a pickle through the one read by the other.
PROBE = """
import json, pickle, sys
import posekernels, posekernels.models.htnet
from posekernels import models, people, train
here = {"version": posekernels.__version__, "file": posekernels.__file__, "pose": posekernels.pose.__name__}
if sys.argv[1] == "doors":
    import train.data.clips as door
    from posekernels.train.data import clips
    old = pickle.dumps(clips.Clip, 0).replace(b"cposekernels.", b"c")  # as the name "train" would have written it
    assert door is clips and b"ctrain." in old and pickle.loads(old) is clips.Clip
print(json.dumps(here))
"""


def run(python: Path, folder: Path, *arguments: str) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "POSEKERNELS_BACKEND")}
    done = subprocess.run([python, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{folder}: {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=MODES)
def installed(request, tmp_path_factory):
    """(mode, the new environment's Python, the folder that holds the clone)."""
    parent = tmp_path_factory.mktemp("where clones live")
    clone = parent / "posekernels"
    ignore = shutil.ignore_patterns(
        "build", ".git", "*.so", "_build.json", "__pycache__", "results", "*.egg-info", "*.gif"
    )
    shutil.copytree(ROOT, clone, ignore=ignore)
    environment = parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    # PyTorch and the rest come from this environment. Its own .pth files do not count there, so posekernels does not.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    env = os.environ | {"POSEKERNELS_BUILD": "off"}
    env.pop("PYTHONPATH", None)
    source = [clone] if request.param == "wheel" else ["--editable", clone]
    done = subprocess.run([*install, *source], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return request.param, python, parent, site


@pytest.mark.parametrize("where", FOLDERS)
def test_works_from(installed, where, tmp_path):
    mode, python, parent, _ = installed
    rooms = tmp_path / "rooms"
    (rooms / "models").mkdir(parents=True)
    (rooms / "models" / "__init__.py").write_text("raise SystemExit('the models of somebody else')\n")
    (rooms / "train").mkdir()
    for file in ("train.py", "bench.py", "people.py"):
        (rooms / file).write_text("raise SystemExit('a program of somebody else')\n")
    spaced = tmp_path / "a path"
    spaced.mkdir()
    folder = dict(zip(FOLDERS, (parent / "posekernels", parent, rooms, spaced)))[where]
    doors = "doors" if where == "the checkout" else "one"
    here = json.loads(run(python, folder, "-c", PROBE, doors))
    own = parent / "posekernels" / "posekernels"
    assert (Path(here["file"]).parent == own) == (mode == "editable" or where == "the checkout")

    keypoints = np.random.default_rng(0).uniform(200, 800, (9, 17, 2)).astype(np.float32)
    np.save(tmp_path / "keypoints.npy", keypoints)
    out = tmp_path / f"{mode}.npz"
    run(
        python,
        folder,
        "-m",
        "posekernels",
        "lift",
        str(tmp_path / "keypoints.npy"),
        "--size",
        "1000x1000",
        "-o",
        str(out),
    )
    assert out.exists()
    module = "train.h36m" if where == "the checkout" else "posekernels.train.h36m"
    assert "--data-root" in run(python, folder, "-m", module, "--help")


def test_only_one_name_is_installed(installed):
    mode, _, _, site = installed
    (record,) = site.glob("posekernels-*.dist-info/RECORD")
    top = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    names = {name for name in top if not name.endswith((".dist-info", ".pth")) and name not in ("..", "__pycache__")}
    assert names == ({"posekernels"} if mode == "wheel" else {"_posekernels_checkout.py"})
    if mode == "wheel":
        assert (record.parent / "top_level.txt").read_text().split() == ["posekernels"]
        assert (site / "posekernels" / "models" / "weights" / "lifter.safetensors").is_file()
        for name in ("page.html", "page.css", "start.js", "ogl.min.js"):
            assert (site / "posekernels" / "people" / "player" / name).is_file()


def test_a_type_checker_finds_nothing_in_a_users_program(installed):
    mode, python, _, site = installed
    if mode != "wheel":
        pytest.skip("type checkers do not run the finder of an editable install")
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--python-executable", str(python)]
    use = Path(__file__).with_name("use.py")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([*command, str(use)], cwd=site, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
