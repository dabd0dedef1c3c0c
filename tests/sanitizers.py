"""The C++ kernels under sanitizers: ``python -m tests.sanitizers [--threads] [PROBLEMS]``.

Builds the module (``build/sanitize-...``, some minutes), then runs every op of ``tests/ops/table.py`` on its C++
kernels, forward and backward: the usual problem, no poses, and PROBLEMS (default 20) drawn ones.

Without an option under AddressSanitizer and UndefinedBehaviorSanitizer, on the instruction sets this CPU has: reads
and writes outside of tensors, overflows and shifts too far end it.

With ``--threads`` under ThreadSanitizer, on the generic instruction set: two tasks that touch one number without an
order between them end it. It sees no order in how an OpenMP pool that it did not compile wakes its threads, and would
call all of PyTorch's a race; so what PyTorch itself does is ignored. That
it does see races of the kernels is shown each time: with one planted where tasks are handed out, every op must be
reported, so none of them ran in one thread alone; and with the one in ``annotated_norm`` of ``tests/mutants.py``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import mutants, native

ISAS = ("generic", "avx2", "avx512")
OPTIONS = {
    # Python leaks what it never frees; new memory is 0xff, NaN; PyTorch loads its libraries before ours.
    "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:max_malloc_fill_size=1073741824:malloc_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # What is planted has the same stack in every op. `inside_threads` reads the log and decides.
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:suppress_equal_stacks=0:exitcode=0",
}
PLANTED = "every op", "core/parallel.cpp", "< tasks;) «body(data, task)»;", "body(data, task), void(++*raced)"
KNOWN = "*sum_gain = partial + «task» * 2 * C"  # of CPP["annotated_norm"]: all tasks write one partial result


def runtime(sanitizer: str) -> str:
    """The compiler's libraries that must be loaded before Python: the sanitizer's, and C++'s own, which it wraps."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    names = f"lib{sanitizer}.so", "libstdc++.so.6"
    command = [[compiler, f"-print-file-name={name}"] for name in names]
    return " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in command)


def started(command: list[str], sanitizer: str, **environment: str) -> int:
    """This module once more, in a process of its own with the sanitizer's library loaded first; its exit status."""
    # Without address randomisation: the shadow memory of older runtimes does not fit beside it.
    found = [*(["setarch", "-R"] if shutil.which("setarch") else []), sys.executable, "-m", "tests.sanitizers"]
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": runtime(sanitizer), **environment}
    return subprocess.run([*found, *command], env=environment, cwd=native.ROOT).returncode


def addresses(problems: str) -> int:
    module = native.build("sanitize-address", isas=";".join(ISAS), sanitize="address;undefined")
    codes = (started(["--inside", problems, str(module)], "asan", POSEKERNELS_ISA=isa) for isa in ISAS)
    return next((code for code in codes if code), 0)


def threads(problems: str) -> int:
    module = mutants.build_cpp("sanitize-thread", [PLANTED], sanitize="thread")
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        options = f"{OPTIONS['TSAN_OPTIONS']}:log_path={log}"
        return started(["--inside-threads", problems, str(module), log], "tsan", TSAN_OPTIONS=options)


def inside(problems: str, module: str) -> None:
    try:
        core = native.load(module)
    except ImportError as error:
        if "one this CPU runs" not in str(error):
            raise
        print(f"{os.environ['POSEKERNELS_ISA']}: not on this CPU")
        return
    from tests.ops.table import OPS, Choices, Random

    drawn = [Choices(), Choices(batch=0), *(Random(seed) for seed in range(int(problems)))]
    count = sum(runs(name, drawn) for name in OPS)
    print(f"{core.isa}: {count} runs of {len(OPS)} ops, nothing found", flush=True)


def runs(name: str, drawn: list) -> int:
    """The op at these choices, on three threads, in all its types; how many runs that was."""
    import torch

    from tests.ops.table import OPS, run, with_floats

    torch.set_num_threads(3)
    count, op = 0, OPS[name]
    for choices in drawn:
        problem = op.make(choices)
        for dtype in op.cpu_dtypes:
            tensors = with_floats(problem.tensors, lambda t, dtype=dtype: t.to(dtype))
            for training in (False, True)[: 1 + (dtype is torch.float32)]:
                run(problem, tensors, "cpu", training)
                count += 1
    return count


def inside_threads(problems: str, module: str, log: str) -> None:
    core = native.load(module)
    core.adopt_openmp = lambda path: False
    from tests.ops.table import OPS, Choices, Random

    class Many(Random):
        """More poses: enough tasks for all threads."""

        def batch(self, usual, most=9):
            return min(600, super().batch(usual, most) * self.of(1, 8, 64))

    log = Path(f"{log}.{os.getpid()}")
    changes = [*mutants.each(mutants.CPP, mutants.CPP_FILE), PLANTED]
    known = next(n for n, (_, _, context, _) in enumerate(changes, 1) if KNOWN in context)

    def report(name: str, choices, mutant: int = 0) -> str:
        """What is reported about an op."""
        before = log.stat().st_size if log.exists() else 0
        core.choose_mutant(1, mutant)
        runs(name, [choices])
        return log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""

    for name in OPS:
        for choices in (Choices(), Choices(batch=0), *(Many(seed) for seed in range(int(problems)))):
            if found := report(name, choices):
                sys.exit(f"{name}\n{found}")
    planted = [*((name, len(changes)) for name in OPS), ("annotated_norm", known)]
    for name, mutant in planted:  # who is quick may take every task before the others wake: not at each problem
        if not any(report(name, Many(seed), mutant) for seed in range(100)):
            sys.exit(f"{name}: a planted race is not reported")
    print(f"{len(OPS)} ops: no race; all {len(planted)} planted ones reported", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--inside"]:
        inside(*arguments[1:])
    elif arguments[:1] == ["--inside-threads"]:
        inside_threads(*arguments[1:])
    else:
        kind = threads if arguments[:1] == ["--threads"] else addresses
        arguments = arguments[kind is threads :] or ["20"]
        if len(arguments) != 1 or not arguments[0].isdigit():
            print("usage: python -m tests.sanitizers [--threads] [PROBLEMS]", file=sys.stderr)
            sys.exit(2)
        sys.exit(kind(arguments[0]))
