"""``python -m tests.build.floors FOLDER``: the lowest versions that pyproject.toml allows, installed and tried.

Makes a virtual environment in FOLDER (one that is there is used again) with exactly the floors of the core and of the
extra ``video``, with which this checkout lifts keypoints and runs a few ops' contracts. Needs the package registry,
and several gigabytes: PyTorch's oldest release with what it brings. For maintainers; no test calls it.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPS = "annotated_norm or graph_conv"


def floors(*extras: str) -> list[str]:
    """``name==version`` of everything that the core and these extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [r for extra in extras for r in project["optional-dependencies"][extra]]
    return [re.sub(r">=([\d.]+).*", r"==\1", requirement) for requirement in asked]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.build.floors", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the environment")
    python = parser.parse_args().folder.absolute() / "bin/python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    tools = ["pytest==8.2", "hypothesis==6.100", "pytest-benchmark==4"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *floors("video"), *tools], check=True)
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        runpy.run_path(str(ROOT / "docs/samples.py"))["write"](Path(folder))
        lift = ["lift", "coco.json", "--fps", "25", "-o", "x.npz", "-o", "x.html", "-o", "x.gif"]
        subprocess.run([python, "-m", "posekernels", *lift], cwd=folder, env=here, check=True)
    tests = ["tests/ops/test_contract.py", "-k", f"cpu and ({OPS})"]
    subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *tests], cwd=ROOT, env=here, check=True)
    print(f"Python {sys.version_info.major}.{sys.version_info.minor}: {', '.join(floors('video'))}")


if __name__ == "__main__":
    main()
