"""Installing where the compiler is missing, broken or not wanted: what setup.py does, and what it writes down.

Each test runs setup.py on a copy of the tree whose csrc holds the module and one small kernel, so that a build takes
seconds.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cmake")
pytest.importorskip("ninja")

ROOT = Path(__file__).parents[2]
MODULE = "_native_core.abi3.so"

KERNEL = """
#include "posekernels/registry.h"
POSEKERNELS_BEGIN
int64_t answer(int64_t a, float b) { return a * 2 + static_cast<int64_t>(b); }
POSEKERNELS_KERNEL(answer)
POSEKERNELS_END
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of what the build reads."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("a copy\n")
    shutil.copytree(ROOT / "csrc/include", tmp_path / "csrc/include")
    shutil.copytree(ROOT / "csrc/core", tmp_path / "csrc/core", ignore=shutil.ignore_patterns("*_cpu.cpp"))
    (tmp_path / "csrc/answer").mkdir()
    (tmp_path / "csrc/answer/answer_cpu.cpp").write_text(KERNEL)
    (tmp_path / "posekernels").mkdir()
    (tmp_path / "posekernels/__init__.py").write_text("")
    return tmp_path


def build(tree: Path, path: str | None = None, **variables) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("CXX", "CUDACXX") and not k.startswith("POSEKERNELS_")}
    env |= {"POSEKERNELS_CUDA": "off"} | variables
    if path is not None:
        env["PATH"] = path
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=300)


def record(tree: Path) -> dict:
    return json.loads((tree / "posekernels/_build.json").read_text())


def answer(tree: Path) -> str:
    code = "from posekernels import _native_core as m; print(m.answer(1, 20, 2.5), m.kernels)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def without_compilers(tmp_path: Path) -> str:
    """A PATH on which cmake and ninja are, and no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cmake", "ninja"):
        (folder / tool).symlink_to(shutil.which(tool))
    return str(folder)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine")
def test_normal_then_broken_then_repaired(tree):
    done = build(tree, POSEKERNELS_BUILD="require")
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(tree)["cpu"] is None and "left out" in record(tree)["cuda"]
    assert answer(tree) == "42 ['answer']"

    source = tree / "csrc/answer/answer_cpu.cpp"
    source.write_text(KERNEL.replace("a * 2", "a * nonsense"))
    assert build(tree).returncode == 0  # auto: the install goes on
    assert "nonsense" in record(tree)["cpu"]
    assert not (tree / "posekernels" / MODULE).exists(), "an old module was left behind"

    done = build(tree, POSEKERNELS_BUILD="require")
    assert done.returncode != 0 and "POSEKERNELS_BUILD=require" in done.stderr and "nonsense" in done.stderr
    assert "nonsense" in record(tree)["cpu"]

    source.write_text(KERNEL.replace("a * 2", "a * 3"))
    assert build(tree).returncode == 0
    assert answer(tree) == "62 ['answer']"

    assert build(tree, POSEKERNELS_BUILD="off").returncode == 0  # compiles nothing, and says so
    assert record(tree)["cpu"] == "not built (POSEKERNELS_BUILD=off)"
    assert not (tree / "posekernels" / MODULE).exists()


def test_no_compiler(tree):
    done = build(tree, path=without_compilers(tree))
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(tree)["cpu"].startswith("no C++ compiler")
    assert build(tree, path=str(tree / "bin"), POSEKERNELS_BUILD="require").returncode != 0


@pytest.mark.parametrize("kind", ["fails", "missing"])
def test_broken_compiler(tree, kind):
    compiler = tree / "broken-c++"
    if kind == "fails":
        compiler.write_text("#!/bin/sh\necho 'error: internal compiler trouble' >&2\nexit 1\n")
        compiler.chmod(0o755)
    done = build(tree, CXX=str(compiler))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cmake failed" in record(tree)["cpu"]
    assert build(tree, CXX=str(compiler), POSEKERNELS_BUILD="require").returncode != 0


def test_misspelt_mode(tree):
    done = build(tree, POSEKERNELS_BUILD="of")
    assert done.returncode != 0 and "must be auto, require or off, got 'of'" in done.stderr


def test_objects_share_no_code_between_instruction_sets():
    """A function that several instruction sets would share is kept once by the linker, maybe the AVX-512 one."""
    folders = sorted((ROOT / "build").glob("cpu-*/CMakeFiles/kernels_*.dir"))
    if not folders or shutil.which("nm") is None:
        pytest.skip("no objects of a build in place here")
    shared = set()
    for folder in folders:
        isa = folder.name.removeprefix("kernels_").removesuffix(".dir")
        for file in folder.rglob("*.o"):
            symbols = subprocess.run(["nm", "-C", "--defined-only", file], capture_output=True, text=True, check=True)
            for line in symbols.stdout.splitlines():
                kind, _, name = line[17:].partition(" ")
                constant = name.startswith("DW.ref.")  # a pointer to a run-time function, the same everywhere
                if kind in "WVu" and not constant and f"posekernels::{isa}::" not in name:
                    shared.add(f"{file.name}: {name}")
    assert not shared, "\n".join(sorted(shared)[:20])
