"""The house's floors: imports run down, never up. Read from the source, functions' own imports included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The executor of compiled kernels is a test's tool, and so are the problems of the ops: the benchmark counts what the
# one runs, and warms up and rehearses with the other.
ALLOWED = {"bench/counts.py": ("tests.ptx.",), "bench/gpu_jobs.py": ("tests.ptx.", "tests.ops.")}
FLOORS = ("posekernels", "models", "people", "train", "bench", "tests")  # csrc, below them, is C++


def floor_of(module: str) -> str | None:
    """The floor that a module's full name lies on; None for what is not ours."""
    first, _, rest = module.removeprefix("posekernels.").partition(".")
    return first if first in FLOORS else "posekernels" if module.partition(".")[0] == "posekernels" else None


def imported(source: str, package: str) -> set[str]:
    """Full names that a module of ``package`` imports; of ``from a import b`` that is a.b, which may be a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" for alias in node.names}
    return found


def upward(floor: str, path: Path, source: str) -> set[str]:
    parts = path.relative_to(ROOT).parent.parts
    package = ".".join(parts if floor in ("posekernels", "bench", "tests") else ("posekernels", *parts))
    above = FLOORS[FLOORS.index(floor) + 1 :]
    allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), ())
    return {n for n in imported(source, package) if floor_of(n) in above and not n.startswith(allowed)}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_down(floor):
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    found = {str(p.relative_to(ROOT)): names for p in files if (names := upward(floor, p, p.read_text()))}
    assert not found


@pytest.mark.parametrize(
    "source, found",
    [
        ("import posekernels.train.loop", {"posekernels.train.loop"}),
        ("from posekernels import models, train", {"posekernels.train"}),
        ("from ..train import recipes", {"posekernels.train.recipes"}),
        ("def late():\n    from bench import report", {"bench.report"}),
        ("from posekernels.ops import dropout\nfrom .layers import Mlp\nimport torch", set()),
    ],
)
def test_what_runs_up_is_found(source, found):
    assert upward("models", ROOT / "models/x.py", source) == found
