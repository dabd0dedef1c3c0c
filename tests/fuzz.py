"""Calls of every public op with drawn sizes, options, values, strides, types and faults.

``python -m tests.fuzz --calls N --seed S`` makes N calls in a process of their own, each from a seed of its own, on the
backends that run on this CPU. A call must give what float64 gives, within the error budget of the contract
(``tests/ops/table.py``), or be refused in one line that begins with the op and names an argument; a call with a fault
must be refused, naming it. What ends the process (a crash, or three minutes without an end) fails that call alone: the
rest goes on in a new process. Each failure comes with the command that repeats it; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import re
import subprocess
import sys
import threading
import time
import warnings

from tests.native import ROOT

TIMEOUT = 180  # seconds without an end of a call
# Where something passes over what another multiplies by 0: zeros of an adjacency, keys no query of a tile sees, frames
# around a clip (in PyTorch's convolution of float64).
_NAN_STOPS = "graph_conv", "graph_network", "temporal_attention", "encoder_layer", "strided_feed_forward"
_EACH = 10**6  # seeds of calls are seed * _EACH + number


def _fault(draw: random.Random, tensor):
    """(what is wrong, the tensor made so); the kinds that any op must refuse."""
    import torch

    kinds = {
        "None": lambda t: None,
        "text": lambda t: "text",
        "a number": lambda t: 0.5,
        "a list": lambda t: t.tolist(),
        "integers": lambda t: t.long(),
        "complex": lambda t: t.to(torch.complex64),
        "sparse": lambda t: t.to_sparse(),
        "on another device": lambda t: t.to("meta"),
        "of another float type": lambda t: t.double() if t.dtype != torch.float64 else t.float(),
        "with an axis more": lambda t: t[..., None],
        "with an axis less": lambda t: t.flatten()[:1].reshape(()),
        "one longer": lambda t: torch.cat((t, t[..., :1]), -1) if t.numel() else t[..., None],
        "empty along its last axis": lambda t: t[..., :0],
    }
    kind = draw.choice(list(kinds))
    return kind, kinds[kind](tensor)


def one_call(seed: int) -> str:
    """What came of the call with this seed: "right" or "refused".

    Raises:
        AssertionError: it is wrong, and how.
    """
    import torch

    from posekernels import BackendError
    from tests.ops.table import LAYOUTS, OPS, Random, assert_right, odd_options, poisoned, run, threads

    draw = random.Random(seed)
    name = draw.choice(list(OPS))
    op, problem = OPS[name], OPS[name].make(Random(seed))
    backend = draw.choice(("auto", "auto", "cpu", "cpu", "reference"))
    dtype = draw.choice((torch.float32, torch.float32, torch.float64))
    if backend != "reference":  # which rounds at every step
        dtype = draw.choice((dtype, *op.cpu_dtypes))
    training = dtype.itemsize >= 4 and draw.random() < 0.4
    factor = draw.choice((1, 1, 1, 1e-5, 1e2, 1e3, 1e4, 1e5)) if dtype.itemsize >= 4 else 1
    wide = set(draw.sample(list(problem.tensors), draw.randint(1, 2 if len(problem.tensors) > 1 else 1)))
    given = {}
    for where, tensor in problem.tensors.items():
        if tensor is not None and tensor.is_floating_point():
            if draw.random() < 0.02 and tensor.numel() and name not in _NAN_STOPS:
                tensor = tensor.clone()
                tensor.view(-1)[draw.randrange(tensor.numel())] = torch.nan
            layout = draw.choice(list(LAYOUTS))
            # A huge matrix whose rows are all alike passes on what a norm takes away: only its rounding would be left.
            tensor = tensor * factor if where in wide and layout != "expanded" else tensor
            tensor = LAYOUTS[layout](tensor.to(dtype))
        given[where] = tensor
    what, there = "nothing", [n for n, t in given.items() if t is not None]
    if draw.random() < 0.35:
        where = draw.choice(there)
        what, given[where] = _fault(draw, given[where])
        if what == "None" and where in problem.optional:
            what = "nothing"
    option, refused = "", False
    if what == "nothing" and problem.options and draw.random() < 0.3:
        option = draw.choice(list(problem.options))
        value, refused = draw.choice(odd_options(option))
        problem, what = problem.with_options(**{option: value}), repr(value)
    story = f"{name} on {backend}, {dtype}" + ("" if what == "nothing" else f", {option or where} {what}")
    try:
        meta = what == "on another device"  # which is allocated in other ways
        with threads(draw.choice((1, 2))), contextlib.nullcontext() if meta else poisoned():
            got = run(problem, given, backend, training)
    except (TypeError, ValueError, BackendError) as error:
        words = str(error)
        if isinstance(error, BackendError) and backend != "auto":
            return "refused"  # the named backend does not take this
        said = [] if refused else [problem.said(n) for n in given]
        names = [option] if refused else [*problem.options, *said, *(re.split(r"[.\[]", n)[0] for n in said)]
        begins = problem.function or name.split("_")[0]
        assert "\n" not in words and words.startswith(begins), f"{story}: unclear words: {words}"
        assert any(n and n in words for n in names), f"{story}: names no argument: {words}"
        assert what != "nothing", f"{story}: refused: {words}"
        return "refused"
    if any(t is not None and t.is_meta for t in got.values()):
        assert len(there) == 1, f"{story}: taken"
        return "right"
    if refused or not option and what != "nothing" and not isinstance(given[where], torch.Tensor):
        raise AssertionError(f"{story}: taken")
    plain = {n: None if t is None else t.contiguous() for n, t in given.items()}
    result = dtype
    if what == "of another float type":  # that may be beside the others: float32 affines of bfloat16 weights
        result = next(iter(got.values())).dtype
        got = {n: t.to(result) for n, t in got.items()}
    try:
        assert_right(problem, plain, got, result, training, kinks=True)
    except (AssertionError, TypeError, ValueError) as error:
        raise AssertionError(f"{story}: {error}") from error
    return "right"


def inside(first: int, last: int) -> None:
    """Calls with these seeds; a line before and after each."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in range(first, last):
        print(f"> {seed}", flush=True)
        try:
            print(f"= {one_call(seed)}", flush=True)
        except Exception as error:
            print("! " + f"{type(error).__name__}: {error}".replace("\n", " | ")[:1000], flush=True)


def _lines(first: int, last: int):
    """The lines of a child, and a last one, "# " and how it ended."""
    command = [sys.executable, "-m", "tests.fuzz", "--inside", str(first), str(last)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    ran_out = threading.Event()

    def watch() -> threading.Timer:
        timer = threading.Timer(TIMEOUT, lambda: (ran_out.set(), child.kill()))
        timer.start()
        return timer

    late = watch()
    try:
        for line in child.stdout:
            late.cancel()
            late = watch()
            yield line.rstrip("\n")
    finally:
        late.cancel()
        child.kill()
        code = child.wait()
    yield f"# ran for {TIMEOUT} s without an end" if ran_out.is_set() else f"# crashed, status {code}"


def run_calls(calls: int, seed: int, first: int = 0, show=print) -> int:
    """Makes the calls; how many failed."""
    start, counts, failures = time.monotonic(), collections.Counter(), 0
    at, end = seed * _EACH + first, seed * _EACH + first + calls
    while at < end:
        running, ended = None, ""
        for line in _lines(at, end):
            kind, _, text = line.partition(" ")
            if kind == ">":
                running = int(text)
                continue
            if kind == "#":
                ended = text
                continue
            at, running = running + 1, None
            counts[text if kind == "=" else "failed"] += 1
            if kind == "!":
                failures += 1
                number = at - 1 - seed * _EACH
                show(f"{text}\n  python -m tests.fuzz --calls 1 --seed {seed} --first {number}")
        if at < end:
            if running is None:
                raise RuntimeError(f"the calls did not begin: {ended}")
            failures, at = failures + 1, running + 1
            counts["ended"] += 1
            number = running - seed * _EACH
            show(f"{ended}\n  python -m tests.fuzz --calls 1 --seed {seed} --first {number}")
    seconds = time.monotonic() - start
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    show(f"{calls} calls from seed {seed}: {told}; {seconds:.0f} s")
    return failures


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        inside(*map(int, sys.argv[2:]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000, metavar="N", help="how many (default 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="what is drawn (default 0)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="begin with call I of this seed")
    options = parser.parse_args()
    if options.calls < 1 or options.seed < 0 or not 0 <= options.first < _EACH:
        parser.error(f"--calls must be at least 1, --seed at least 0, --first in [0, {_EACH})")
    return 1 if run_calls(options.calls, options.seed, options.first) else 0


if __name__ == "__main__":
    sys.exit(main())
