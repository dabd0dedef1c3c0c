"""The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer: ``python -m tests.sanitizers [PROBLEMS]``.

Builds the module (``build/sanitize-address``, some minutes), then runs every op of ``tests/ops/table.py`` on its C++
kernels, forward and backward: the usual problem, no poses, and PROBLEMS (default 20) drawn ones, each on the
instruction sets this CPU has. Reads and writes outside of tensors, overflows and shifts too far end it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import native

ISAS = ("generic", "avx2", "avx512")
OPTIONS = {
    # Python leaks what it never frees; new memory is 0xff, NaN; PyTorch loads its libraries before ours.
    "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:max_malloc_fill_size=1073741824:malloc_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def runtime() -> str:
    """The compiler's libraries that must be loaded before Python: the sanitizer's, and C++'s own, which it wraps."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    names = "libasan.so", "libstdc++.so.6"
    command = [[compiler, f"-print-file-name={name}"] for name in names]
    return " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in command)


def parent(problems: str) -> int:
    module = native.build("sanitize-address", isas=";".join(ISAS), sanitize="address;undefined")
    for isa in ISAS:
        # Without address randomisation: the shadow memory of older runtimes does not fit beside it.
        command = [*(["setarch", "-R"] if shutil.which("setarch") else []), sys.executable, "-m", "tests.sanitizers"]
        done = subprocess.run(
            [*command, "--inside", problems, str(module)],
            env={**os.environ, **OPTIONS, "LD_PRELOAD": runtime(), "POSEKERNELS_ISA": isa},
            cwd=native.ROOT,
        )
        if done.returncode:
            return done.returncode
    return 0


def inside(problems: str, module: str) -> None:
    try:
        core = native.load(module)
    except ImportError as error:
        if "one this CPU runs" not in str(error):
            raise
        print(f"{os.environ['POSEKERNELS_ISA']}: not on this CPU")
        return
    import torch

    from tests.ops.table import OPS, Choices, Random, run, with_floats

    torch.set_num_threads(3)
    count = 0
    for op in OPS.values():
        for choices in (Choices(), Choices(batch=0), *(Random(seed) for seed in range(int(problems)))):
            problem = op.make(choices)
            for dtype in op.cpu_dtypes:
                tensors = with_floats(problem.tensors, lambda t, dtype=dtype: t.to(dtype))
                for training in (False, True)[: 1 + (dtype is torch.float32)]:
                    run(problem, tensors, "cpu", training)
                    count += 1
    print(f"{core.isa}: {count} runs of {len(OPS)} ops, nothing found", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:])
    else:
        arguments = sys.argv[1:] or ["20"]
        if len(arguments) != 1 or not arguments[0].isdigit():
            print("usage: python -m tests.sanitizers [PROBLEMS]", file=sys.stderr)
            sys.exit(2)
        sys.exit(parent(arguments[0]))
