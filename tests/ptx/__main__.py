"""``python -m tests.ptx [OP...]``: the contract of ops on their Triton kernels, compiled for sm_80 and run here."""

import argparse
import sys
import time
import traceback

from tests.ptx.contract import DTYPES, cases, check, triton_ops


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ptx", description=__doc__)
    parser.add_argument("op", nargs="*", default=triton_ops())
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--trace", action="store_true")
    args = parser.parse_args()
    failed = 0
    for op, dtype in cases():
        if op not in args.op or (args.dtype and dtype not in args.dtype):
            continue
        start = time.process_time()
        try:
            done = check(op, dtype)
        except Exception as error:
            failed += 1
            done = f"FAILS: {type(error).__name__}: {error}"
            if args.trace:
                traceback.print_exc()
        print(f"{op} {dtype}: {done} ({time.process_time() - start:.1f} s)", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
