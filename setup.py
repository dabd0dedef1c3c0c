"""Builds the native modules while installing, and never fails an install because of them unless asked to.

POSEKERNELS_BUILD=auto (default)  build what can be built; what cannot is recorded with its reason, and the install
                                  goes on: the reference and Triton need no compiler
                 =require         the CPU part must build, else the install fails (the CUDA part too where it is wanted)
                 =off             compile nothing
POSEKERNELS_CUDA_ARCHITECTURES    for the CUDA part, CMake's form; default "80;90"
POSEKERNELS_CUDA=auto (default)   build the CUDA part where there are nvcc and a GPU (minutes)
                 =on              where there is nvcc, for a machine with a GPU
                 =off             leave it out

What happened is written to posekernels/_build.json, which ``posekernels info`` prints. Developers rebuild
what has changed with ``python3 setup.py build_ext --inplace``.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
MODULES = {"cpu": "_native_core", "cuda": "_native_cuda"}
SUFFIX = ".abi3.so"  # Python's limited interface: one file for every Python from 3.11 on


class CannotBuild(Exception):
    """Why a part was not built, in one line."""


class NothingToBuild(CannotBuild):
    """There is no CUDA toolkit, or the part is not wanted: no failure, even where a build is required."""


def find_nvcc() -> str:
    """Path of nvcc. Raises CannotBuild when there is none, or it is not wanted."""
    wanted = os.environ.get("POSEKERNELS_CUDA", "auto")
    if wanted not in ("auto", "on", "off"):
        raise CompileError(f"POSEKERNELS_CUDA must be auto, on or off, got {wanted!r}")
    if wanted == "off":
        raise NothingToBuild("left out (POSEKERNELS_CUDA=off)")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [os.environ.get("CUDACXX"), shutil.which("nvcc"), *(f"{h}/bin/nvcc" for h in homes if h)]
    for candidate in candidates:
        if candidate and shutil.which(candidate):
            if wanted == "auto" and not has_gpu():
                raise NothingToBuild("left out: nvcc is here, but no GPU (POSEKERNELS_CUDA=on builds it all the same)")
            return candidate
    raise NothingToBuild("no CUDA toolkit: nvcc is neither on PATH nor in CUDA_HOME")


def has_gpu() -> bool:
    """Whether NVIDIA's driver lists a GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def tool(name: str) -> str:
    """cmake or ninja: beside this Python (pip's build environment), else on PATH."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        raise CannotBuild(f"{name} is not installed")
    return path


def run(command: list[str], log: Path) -> None:
    """Run a command, its output appended to ``log`` and shown. Raises CannotBuild with the first error line."""
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode:
        print(done.stdout, flush=True)
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no output"]
        raise CannotBuild(f"{Path(command[0]).name} failed: {telling[0][:200]} (log: {log})")


def build_part(part: str, build_dir: Path) -> Path:
    """Compile one module with CMake and Ninja; returns the file. Incremental where ``build_dir`` is kept."""
    nvcc = find_nvcc() if part == "cuda" else None
    if part == "cuda" and not list((ROOT / "csrc").glob("*/*_cuda.cu")):
        raise NothingToBuild("there are no CUDA sources")
    cmake, ninja = tool("cmake"), tool("ninja")
    if not os.environ.get("CXX") and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise CannotBuild("no C++ compiler: none of c++, g++, clang++ is on PATH, and CXX is not set")
    configure = [
        cmake,
        *("-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"),
        f"-DPOSEKERNELS_PART={part}",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    if nvcc:
        architectures = os.environ.get("POSEKERNELS_CUDA_ARCHITECTURES", "80;90")
        configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]
    build_dir.mkdir(parents=True, exist_ok=True)
    log = build_dir / "build.log"
    log.write_text("")
    try:
        run(configure, log)
    except CannotBuild:
        if not (build_dir / "CMakeCache.txt").exists():
            raise
        (build_dir / "CMakeCache.txt").unlink()  # the cache may name a compiler or a Python that is gone
        shutil.rmtree(build_dir / "CMakeFiles", ignore_errors=True)
        run(configure, log)
    run([cmake, "--build", str(build_dir)], log)
    return build_dir / f"{MODULES[part]}{SUFFIX}"


class BuildNative(build_ext):
    """``build_ext`` that hands over to CMake and writes the build record."""

    def package_dir(self) -> Path:
        in_place = self.inplace or getattr(self, "editable_mode", False)
        return ROOT / "posekernels" if in_place else Path(self.build_lib) / "posekernels"

    def run(self) -> None:
        mode = os.environ.get("POSEKERNELS_BUILD", "auto")
        if mode not in ("auto", "require", "off"):
            raise CompileError(f"POSEKERNELS_BUILD must be auto, require or off, got {mode!r}")
        target = self.package_dir()
        target.mkdir(parents=True, exist_ok=True)
        record = {
            "mode": mode,
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
        }
        for part, module in MODULES.items():
            built = target / f"{module}{SUFFIX}"
            for old in target.glob(f"{module}.*"):  # before building: a failed build must not leave one behind, and one
                old.unlink()  # of another suffix would come first
            try:
                if mode == "off":
                    raise CannotBuild("not built (POSEKERNELS_BUILD=off)")
                made = build_part(
                    part, ROOT / "build" / f"{part}-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
                )
                staged = built.with_name(built.name + ".new")
                shutil.copy2(made, staged)
                os.replace(staged, built)
                record[part] = None
            except (CannotBuild, OSError, ImportError) as error:
                record[part] = str(error)
                print(f"posekernels: {part} part not built: {error}", flush=True)
                if mode == "require" and not isinstance(error, NothingToBuild):
                    self.write(target, record)
                    raise CompileError(f"POSEKERNELS_BUILD=require: {part} part: {error}") from error
        self.write(target, record)

    def write(self, target: Path, record: dict) -> None:
        staged = target / "_build.json.new"
        staged.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(staged, target / "_build.json")

    def get_outputs(self) -> list[str]:
        names = [f"{module}{SUFFIX}" for module in MODULES.values()] + ["_build.json"]
        return [str(path) for name in names if (path := self.package_dir() / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


FINDER = '''"""Finds posekernels in its checkout, where no package of that name comes first on sys.path."""
import sys
from importlib.machinery import PathFinder

CHECKOUT = {checkout!r}


class Checkout:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [*sys.path, CHECKOUT]) if name == "posekernels" else None


sys.meta_path.insert(0, Checkout)
'''


class EditableWheel(editable_wheel):
    """An editable install that finds this checkout, and nothing but the name ``posekernels`` in it.

    setuptools' own finder comes after Python's, for which any folder named ``posekernels`` is a namespace package: one
    that merely holds a clone would hide the package.
    """

    def _select_strategy(self, name: str, tag: str, build_lib):
        return FinderStrategy()


class FinderStrategy(contextlib.nullcontext):
    """What setuptools asks to fill the wheel: the finder, and the line that imports it when Python starts."""

    def __call__(self, wheel, files, mapping) -> None:
        wheel.writestr("_posekernels_checkout.py", FINDER.format(checkout=str(ROOT)))
        wheel.writestr("_posekernels_checkout.pth", "import _posekernels_checkout\n")


# Folders of the checkout that are packages of posekernels (posekernels/door.py). bench and tests are not installed.
PACKAGE_DIR = {f"posekernels.{room}": room for room in ("models", "people", "train")}


def packages() -> list[str]:
    inside = [f"{name}.{p}" for name, room in PACKAGE_DIR.items() for p in find_packages(room)]
    return [*find_packages(include=["posekernels", "posekernels.*"]), *PACKAGE_DIR, *inside]


setup(
    packages=packages(),
    package_dir=PACKAGE_DIR,
    ext_modules=[
        Extension(f"posekernels.{module}", [], optional=True, py_limited_api=True) for module in MODULES.values()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    cmdclass={"build_ext": BuildNative, "editable_wheel": EditableWheel},
)
