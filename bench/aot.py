"""``python -m bench.aot``: registers, spills and matrix instructions of every GPU kernel, compiled without a GPU.

Writes ``bench/results/aot.md`` and ``aot.json``. With names of ops, compiles those and keeps the rows of the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
from pathlib import Path

from posekernels import aot

RESULTS = Path(__file__).parent / "results"


def _kept(folder: Path, ops: list[str]) -> list[aot.Report]:
    """The committed rows of all ops but these."""
    found = []
    if (folder / "aot.json").exists():
        for row in json.loads((folder / "aot.json").read_text())["kernels"]:
            row.pop("problem")
            if row["name"].partition("/")[0] not in ops:
                found.append(aot.Report(**row))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=__doc__.splitlines()[0])
    parser.add_argument("op", nargs="*", help="ops to compile (default: all)")
    parser.add_argument("--no-cuda", action="store_true", help="leave the CUDA C++ kernels out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: bench/results)")
    args = parser.parse_args(argv)
    try:
        reports = _kept(args.out, args.op) if args.op else []
        reports += aot.compile_all(args.op or None)
        if not args.no_cuda:
            reports += aot.compile_cuda(args.op or None)
    except ValueError as error:
        print(f"bench.aot: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {"triton": importlib.metadata.version("triton"), "targets": list(aot.TARGETS)}
    document = facts | {"kernels": [dataclasses.asdict(r) | {"problem": r.problem()} for r in reports]}
    title = f"# GPU kernels, compiled ahead of time\n\nTriton {facts['triton']}; `python -m bench.aot` writes this.\n\n"
    for name, text in (("aot.json", json.dumps(document, indent=1)), ("aot.md", title + aot.table(reports))):
        fresh = args.out / f".{name}"
        fresh.write_text(text + "\n")
        os.replace(fresh, args.out / name)
        print(f"wrote {args.out / name}")
    return int(any(r.problem() for r in reports))


if __name__ == "__main__":
    sys.exit(main())
