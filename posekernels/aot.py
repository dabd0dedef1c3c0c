"""Compiles GPU kernels without a GPU, and reads registers, spills and matrix instructions off the result.

``python -m posekernels.aot [OP...]`` prints the table. Every ``ops/<op>/triton.py`` lists its kernels as ``AOT``; with
``--cuda`` every ``csrc/<op>/<op>_cuda.cu`` is compiled too, which takes nvcc and a checkout.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .limits import processors

TARGETS = (80, 90)  # A100 and its kin; H100, H200
_MATRIX = re.compile(r"\b(HMMA|HGMMA|QGMMA|IGMMA|IMMA|DMMA)\b")
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclasses.dataclass(frozen=True)
class Report:
    """What one kernel became for one target. ``spills`` are bytes of local memory per thread; 0 is what we want."""

    name: str
    target: int
    registers: int
    spills: int
    shared_bytes: int
    matrix_instructions: int
    wants_matrix: bool
    spills_accepted: int = 0

    def problem(self) -> str | None:
        """Why the result is not good enough, or None."""
        if self.spills > self.spills_accepted:
            return f"spills {self.spills} bytes per thread"
        if self.wants_matrix and not self.matrix_instructions:
            return "no matrix instruction"
        return None


def _tool(name: str) -> str:
    """``cuobjdump``, as Triton's package carries it."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: triton {triton.__version__} came without {name}")
    return str(path)


def inspect_cubin(cubin: bytes) -> dict[str, dict[str, int]]:
    """{kernel: {"registers", "spills", "shared", "matrix"}} of a cubin, by its symbol."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)

        def dump(option: str) -> str:
            return subprocess.run(
                [_tool("cuobjdump"), option, str(path)], check=True, capture_output=True, text=True
            ).stdout

        usage, sass = dump("-res-usage"), dump("-sass")
    matrix = {
        part.split("\n", 1)[0].strip(): len(_MATRIX.findall(part)) for part in re.split(r"\n\s*Function : ", sass)[1:]
    }
    found = {}
    for part in re.split(r"\n\s*Function ", usage)[1:]:
        name, numbers = part.split(":", 1)[0].strip(), _RESOURCES.search(part)
        if numbers is None:
            continue
        registers, stack, shared, local = map(int, numbers.groups())
        found[name] = {
            "registers": registers,
            "spills": stack + local,
            "shared": shared,
            "matrix": matrix.get(name, 0),
        }
    return found


def compilations(ops: list[str] | None = None) -> list:
    """Every ``Compilation`` the ops declare, of all ops or of those named."""
    from . import ops as package

    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg]
    unknown = set(ops or ()) - set(names)
    if unknown:
        raise ValueError(f"no op named {', '.join(sorted(unknown))} (ops: {', '.join(names)})")
    found = []
    for name in ops or names:
        if importlib.util.find_spec(f"posekernels.ops.{name}.triton"):
            found += importlib.import_module(f"posekernels.ops.{name}.triton").AOT
    return found


def compile_one(declared, target: int) -> Report:
    """Compile one ``Compilation`` for compute capability ``target`` (90 is sm_90)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = declared.kernel
    missing = [a for a in kernel.arg_names if a not in declared.types]
    if missing:
        raise ValueError(f"{declared.name}: no type declared for {', '.join(missing)}")
    signature, aligned = {}, {}
    for i, name in enumerate(kernel.arg_names):
        given = declared.types[name]
        parts = [t.partition(":") for t in (given if isinstance(given, tuple) else (given,))]
        signature[name] = tuple(t for t, _, _ in parts) if isinstance(given, tuple) else parts[0][0]
        for j, (_, _, multiple) in enumerate(parts):
            if multiple:
                aligned[(i, j) if isinstance(given, tuple) else (i,)] = [["tt.divisibility", int(multiple)]]
    source = ASTSource(kernel, signature, constexprs=declared.constants, attrs=aligned)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", target, 32),
        options={"num_warps": declared.num_warps, "num_stages": declared.num_stages},
    )
    (numbers,) = inspect_cubin(compiled.asm["cubin"]).values()
    return Report(
        declared.name,
        target,
        numbers["registers"],
        numbers["spills"],
        compiled.metadata.shared,
        numbers["matrix"],
        declared.matrix_units,
        declared.spills_accepted,
    )


def compile_all(ops: list[str] | None = None, targets: tuple[int, ...] = TARGETS) -> Iterator[Report]:
    """A report for every kernel the ops declare and every target, in that order."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError(
            "ahead-of-time compilation needs TRITON_INTERPRET unset: kernels are defined for one or the other"
        )
    jobs = [(declared, target) for declared in compilations(ops) for target in targets]
    with ThreadPoolExecutor(processors()) as pool:
        yield from pool.map(lambda job: compile_one(*job), jobs)


def _kernel_name(symbol: str) -> tuple[str, bool]:
    """("graph_conv_fwd_kernel<Half>", whether its math is of the matrix units), off a mangled name."""
    name = re.search(r"(?<=\d)([a-z_]+_kernel)", symbol)
    math = re.search(r"\d(Exact|Tf32|Half|Bf16)E", symbol)
    label = name.group(1) if name else symbol
    if math:
        return f"{label}<{math.group(1)}>", math.group(1) != "Exact"
    given = re.search(r"_kernelI(f|6__half|13__nv_bfloat16)((?:L[a-z]\d+E)*)", symbol)  # a number type, constants
    if given:
        constants = re.findall(r"L[a-z](\d+)E", given.group(2))
        label += f"<{', '.join([{'f': 'float', '6': 'half', '1': 'bf16'}[given.group(1)[0]], *constants])}>"
    return label, False


def compile_cuda(ops: list[str] | None = None, targets: tuple[int, ...] = TARGETS) -> Iterator[Report]:
    """A report for every kernel of every ``csrc/<op>/<op>_cuda.cu``.

    Raises:
        ValueError: no nvcc, or no sources here (an installed package has none).
        subprocess.CalledProcessError: what does not compile.
    """
    csrc = Path(__file__).resolve().parents[1] / "csrc"
    sources = [f for f in sorted(csrc.glob("*/*_cuda.cu")) if not ops or f.parent.name in ops]
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None or not csrc.is_dir():
        raise ValueError("--cuda needs nvcc and a checkout with csrc/: " + ("no nvcc" if nvcc is None else "no csrc"))

    def compiled(job: tuple[Path, int]) -> list[Report]:
        source, target = job
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "kernels.cubin"
            flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-DPOSEKERNELS_ISA=cuda", f"-I{csrc / 'include'}"]
            subprocess.run([nvcc, "-cubin", f"-arch=sm_{target}", *flags, str(source), "-o", str(cubin)], check=True)
            found = inspect_cubin(cubin.read_bytes())
        reports = []
        for symbol, numbers in found.items():
            name, wants_matrix = _kernel_name(symbol)
            fields = (numbers["registers"], numbers["spills"], numbers["shared"], numbers["matrix"])
            reports.append(Report(f"{source.parent.name}/cuda/{name}", target, *fields, wants_matrix))
        return sorted(reports, key=lambda r: r.name)

    with ThreadPoolExecutor(processors()) as pool:
        for reports in pool.map(compiled, [(s, t) for s in sources for t in targets]):
            yield from reports


def table(reports: list[Report]) -> str:
    """The reports as a Markdown table."""
    lines = [
        "| kernel | target | registers | spilled bytes | shared KiB | matrix instructions | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for r in reports:
        lines.append(
            f"| {r.name} | sm_{r.target} | {r.registers} | {r.spills} | {r.shared_bytes / 1024:.1f} "
            f"| {r.matrix_instructions} | {r.problem() or 'ok'} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m posekernels.aot", description=__doc__.splitlines()[0])
    parser.add_argument("op", nargs="*", help="ops to compile (default: all that have Triton kernels)")
    parser.add_argument("--cuda", action="store_true", help="the CUDA C++ kernels too (needs nvcc)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)
    try:
        reports = list(compile_all(args.op or None))
        if args.cuda:
            reports += compile_cuda(args.op or None)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([dataclasses.asdict(r) | {"problem": r.problem()} for r in reports], indent=1))
    else:
        print(table(reports))
    return int(any(r.problem() for r in reports))


if __name__ == "__main__":
    sys.exit(main())
