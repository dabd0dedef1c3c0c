"""``python -m tests.ptx [OP...]``: the contract of ops on their GPU kernels, compiled for sm_80 or sm_90, run here."""

import argparse
import sys
import time
import traceback

from tests.ptx.contract import DTYPES, cases, check


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ptx", description=__doc__)
    parser.add_argument("op", nargs="*")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--backend", choices=("triton", "cuda"), action="append")
    parser.add_argument("--architecture", type=int, choices=(80, 90), default=80)
    parser.add_argument("--trace", action="store_true")
    args = parser.parse_args()
    failed = 0
    for op, dtype, backend in [case for b in args.backend or ("triton", "cuda") for case in cases(b)]:
        if (args.op and op not in args.op) or (args.dtype and dtype not in args.dtype):
            continue
        start = time.process_time()
        try:
            done = check(op, dtype, backend, architecture=args.architecture)
        except Exception as error:
            failed += 1
            done = f"FAILS: {type(error).__name__}: {error}"
            if args.trace:
                traceback.print_exc()
        print(f"{op} {dtype} {backend}: {done} ({time.process_time() - start:.1f} s)", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
