"""The C++ kernels under sanitizers: ``python -m tests.sanitizers [address | thread] [PROBLEMS]``.

``address`` (the default) is AddressSanitizer and UndefinedBehaviorSanitizer: reads and writes outside of tensors and
working memory, memory that is read before it is written (working memory starts as NaN), overflows, misaligned loads,
shifts too far. ``thread`` is ThreadSanitizer, with the kernels on their own pool of three threads: it does not see
inside an OpenMP runtime, and would report PyTorch's barriers as races.

Builds the module (``build/sanitize-...``, one to three minutes), then runs every op of ``tests/ops/table.py`` on its
C++ kernels, forward and backward: the usual problem, no poses, and PROBLEMS (default 20) drawn ones, each on the
instruction sets this CPU has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import native

SANITIZERS = {"address": "address;undefined", "thread": "thread"}
ISAS = ("generic", "avx2", "avx512")
OPTIONS = {
    # Python leaks what it never frees; new memory is 0xff, NaN; PyTorch loads its libraries before ours.
    "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:max_malloc_fill_size=1073741824:malloc_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "report_bugs=1:exitcode=66:ignore_noninstrumented_modules=1",
}


def runtime(sanitizer: str) -> str:
    """The compiler's libraries that must be loaded before Python: the sanitizer's, and C++'s own, which it wraps."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    names = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer], "libstdc++.so.6"
    command = [[compiler, f"-print-file-name={name}"] for name in names]
    return " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in command)


def parent(sanitizer: str, problems: str) -> int:
    module = native.build(f"sanitize-{sanitizer}", isas=";".join(ISAS), sanitize=SANITIZERS[sanitizer])
    for isa in ISAS:
        # Without address randomisation: the shadow memory of older runtimes does not fit beside it.
        command = [*(["setarch", "-R"] if shutil.which("setarch") else []), sys.executable, "-m", "tests.sanitizers"]
        done = subprocess.run(
            [*command, "--inside", sanitizer, problems, str(module)],
            env={**os.environ, **OPTIONS, "LD_PRELOAD": runtime(sanitizer), "POSEKERNELS_ISA": isa},
            cwd=native.ROOT,
        )
        if done.returncode:
            return done.returncode
    return 0


def inside(sanitizer: str, problems: str, module: str) -> None:
    try:
        core = native.load(module)
    except ImportError as error:
        if "one this CPU runs" not in str(error):
            raise
        print(f"{os.environ['POSEKERNELS_ISA']}: not on this CPU")
        return
    import torch

    if sanitizer == "thread":
        core.adopt_openmp = lambda _path: False  # our own pool, which ThreadSanitizer sees through
    from tests.ops.table import OPS, Choices, Random, run, with_floats

    torch.set_num_threads(1)
    if sanitizer == "thread":
        torch.get_num_threads = lambda: 3  # of the kernels; PyTorch keeps to one
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
        arguments = [*sys.argv[1:], *("address", "20")[len(sys.argv) - 1 :]]
        if len(arguments) != 2 or arguments[0] not in SANITIZERS or not arguments[1].isdigit():
            sys.exit("usage: python -m tests.sanitizers [address | thread] [PROBLEMS]")
        sys.exit(parent(*arguments))
