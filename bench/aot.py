"""``python -m bench.aot``: registers, spills and matrix instructions of every GPU kernel, compiled without a GPU.

Writes ``bench/results/aot.md`` and ``aot.json``. With names of ops, compiles those and keeps the rows of the others.
``--check`` says which ops have other sources now than their rows were made from, ``--stale`` compiles those.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path

from posekernels import aot
from posekernels.files import write_aside

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def _used(file: Path) -> list[Path]:
    """What a source takes in: headers, or other modules of Triton kernels."""
    text = file.read_text()
    if file.suffix != ".py":
        names = re.findall(r'#include "(posekernels/[^"]+)"', text)
        return [ROOT / "csrc" / "include" / name for name in names if "emulation" not in name]  # on a CPU only
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1] / (node.module or "").replace(".", "/")
            found += [folder.with_suffix(".py"), *(folder / f"{alias.name}.py" for alias in node.names)]
    return [f for f in found if f.is_file() and "@triton.jit" in f.read_text()]


def _kernels(file: Path) -> str:
    """The constants and Triton functions of a module that other ops take them from; what it launches is not theirs."""
    text = file.read_text()
    taken = []
    for node in ast.parse(text).body:
        jit = isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
        if jit or isinstance(node, ast.Assign):
            taken.append(ast.unparse(node))
    return "\n".join(taken)


def sources(op: str) -> dict[str, str]:
    """{path: hash of its text} of all that the GPU kernels of an op are made from."""
    found: dict[Path, str] = {}
    own = [ROOT / "posekernels" / "ops" / op / "triton.py", ROOT / "csrc" / op / f"{op}_cuda.cu"]
    todo = list(own)
    while todo:
        file = todo.pop()
        if file.is_file() and file not in found:
            text = _kernels(file) if file.suffix == ".py" and file not in own else file.read_text()
            found[file] = hashlib.sha256(text.encode()).hexdigest()[:12]
            todo += _used(file)
    return {str(file.relative_to(ROOT)): found[file] for file in sorted(found)}


def ops_with_kernels() -> list[str]:
    files = [*ROOT.glob("posekernels/ops/*/triton.py"), *ROOT.glob("csrc/*/*_cuda.cu")]
    return sorted({file.parent.name for file in files})


def stale(folder: Path = RESULTS) -> list[str]:
    """The ops whose committed rows were made from other sources than those here."""
    path = folder / "aot.json"
    made = json.loads(path.read_text()).get("sources", {}) if path.exists() else {}
    return [op for op in ops_with_kernels() if made.get(op) != sources(op)]


def _kept(folder: Path, ops: list[str]) -> tuple[list[aot.Report], dict]:
    """The committed rows of all ops but these, and the sources they were made from."""
    found, made = [], {}
    if (folder / "aot.json").exists():
        document = json.loads((folder / "aot.json").read_text())
        made = {op: files for op, files in document.get("sources", {}).items() if op not in ops}
        for row in document["kernels"]:
            row.pop("problem")
            if row["name"].partition("/")[0] not in ops:
                found.append(aot.Report(**row))
    return found, made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=__doc__.splitlines()[0])
    parser.add_argument("op", nargs="*", help="ops to compile (default: all)")
    parser.add_argument("--no-cuda", action="store_true", help="leave the CUDA C++ kernels out")
    parser.add_argument("--check", action="store_true", help="name the ops whose sources have changed; exit code 1")
    parser.add_argument("--stale", action="store_true", help="compile the ops whose sources have changed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: bench/results)")
    args = parser.parse_args(argv)
    if args.check or args.stale:
        args.op = stale(args.out)
        print(f"other sources than their rows: {', '.join(args.op) or 'none'}")
        if args.check or not args.op:
            return int(bool(args.op))
    made_from = {op: sources(op) for op in args.op or ops_with_kernels()}  # before: they may change meanwhile
    try:
        reports, made = _kept(args.out, args.op) if args.op else ([], {})
        reports += aot.compile_all(args.op or None)
        if not args.no_cuda:
            reports += aot.compile_cuda(args.op or None)
    except ValueError as error:
        print(f"bench.aot: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {"triton": importlib.metadata.version("triton"), "targets": list(aot.TARGETS)}
    facts["sources"] = dict(sorted((made if args.no_cuda else made | made_from).items()))
    document = facts | {"kernels": [dataclasses.asdict(r) | {"problem": r.problem()} for r in reports]}
    title = f"# GPU kernels, compiled ahead of time\n\nTriton {facts['triton']}; `python -m bench.aot` writes this.\n\n"
    for name, text in (("aot.json", json.dumps(document, indent=1)), ("aot.md", title + aot.table(reports))):
        with write_aside(args.out / name) as aside:
            aside.write_text(text + "\n")
        print(f"wrote {args.out / name}")
    return int(any(r.problem() for r in reports))


if __name__ == "__main__":
    sys.exit(main())
