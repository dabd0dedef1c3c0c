"""``posekernels info``: versions, what was built, and which backends each op has on this machine."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess

import torch

from . import __version__, _dispatch, _native
from .cli import Parser, run_cli


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _nvcc() -> str:
    """The CUDA toolkit on this machine, or that there is none."""
    path = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if path is None:
        return "no toolkit"
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    release = [word for line in said.splitlines() if "release" in line for word in line.split(",") if "release" in word]
    return f"toolkit {release[0].split()[-1]}" if release else f"toolkit at {path}"


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no device"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (sm_{major}{minor}), PyTorch built for CUDA {torch.version.cuda}"


def machine() -> dict[str, str]:
    """Versions and what the native modules run on, in words."""
    if _native.core is None:
        cpu = f"no C++ kernels: {_native.no_cpu()}"
    else:
        cpu = f"{_native.core.isa}, {torch.get_num_threads()} threads"
    return {
        "posekernels": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "triton": _version("triton"),
        "cuda": f"{_nvcc()}; {_gpu()}",
        "cpu kernels": cpu,
        "built": _native.build_age(),
    }


def backends() -> dict[str, dict[str, str]]:
    """op -> backend -> "yes", "compiled, not run", or why it is missing here."""
    from . import ops  # noqa: F401  (fills the table)

    found: dict[str, dict[str, str]] = {}
    for op, kernels in sorted(_dispatch.OPS.items()):
        row = found[op] = {}
        for name in _dispatch.BACKENDS:
            kernel = kernels.get(name)
            if kernel is None:
                row[name] = "the op has none"
            else:
                row[name] = kernel.missing() or "yes"
    return found


def report() -> str:
    """Everything, as text: a table of short marks, and below it each reason once."""
    lines = [f"{key:<12} {value}" for key, value in machine().items()]
    table, reasons = backends(), {}
    width = max(map(len, table))
    lines += ["", f"{'op':<{width}}  " + "  ".join(f"{b:<10}" for b in _dispatch.BACKENDS)]
    for op, row in table.items():
        marks = []
        for said in row.values():
            if said in ("yes", "the op has none"):
                marks.append("yes" if said == "yes" else "-")
            else:
                number = reasons.setdefault(said, len(reasons) + 1)
                marks.append(f"{'compiled' if said.startswith('compiled') else 'no'} [{number}]")
        lines.append((f"{op:<{width}}  " + "  ".join(f"{m:<10}" for m in marks)).rstrip())
    lines += [f"[{number}] {reason}" for reason, number in reasons.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    Parser(prog="posekernels info", description=__doc__).parse_args(argv)
    print(report())
    return 0


if __name__ == "__main__":
    run_cli(main)
