"""Timing that can be believed: interleaved repeats, medians with spread, peaks measured in the same run."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from posekernels._native import core
from posekernels._packing import packed

# Thread pools go on spinning for a while after their last task (ONNX Runtime's and OpenMP's do): left to themselves
# they slow whoever comes next down twofold. So every turn begins with a rest and calls that are not timed. The turns'
# order and the rests' lengths are drawn: else what disturbs the machine at regular times disturbs always the same one.
SETTLE = 0.05  # to 0.075 seconds
TURN = 0.01  # seconds that a turn is timed for, at least one call; as long again is not timed
SLOW = 1.0  # seconds: beside a call this long, a rest is enough


@dataclass
class Timing:
    """Seconds per call: median, 10th and 90th percentile; host seconds until the call returned."""

    median: float
    low: float
    high: float
    host: float


class Device:
    """A device that calls are timed on: wall time on a CPU; events and graph replays on a GPU."""

    def __init__(self, name: str):
        self.name = name
        self.cuda = name.startswith("cuda")

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def lost(self) -> bool:
        """Whether a kernel has taken the card from this process: after a bad access nothing runs in it any more."""
        try:
            self.synchronize()
        except RuntimeError:
            return True
        return False

    def graphed(self, call: Callable) -> Callable:
        """``call`` as the replay of a CUDA graph: what the device takes when no launch waits for Python.

        Raises:
            RuntimeError: a call that cannot be captured.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()

        def replay():
            graph.replay()
            return result

        return replay

    def sample(self, call: Callable, loops: int) -> tuple[float, float]:
        """(seconds per call, host seconds per call) over ``loops`` calls."""
        self.synchronize()
        if self.cuda:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start = time.perf_counter()
            first.record()
            for _ in range(loops):
                call()
            last.record()
            host = time.perf_counter() - start
            last.synchronize()
            return first.elapsed_time(last) / 1e3 / loops, host / loops
        start = time.perf_counter()
        for _ in range(loops):
            call()
        seconds = (time.perf_counter() - start) / loops
        return seconds, seconds


def interleaved(calls: dict[str, Callable], device: Device, budget: float, repeats: int = 15) -> dict[str, Timing]:
    """Time several ways to do one thing, turn by turn, so that a drifting machine drifts under all of them.

    Args:
        calls: name -> call.
        budget: seconds for all of them together, roughly; at least 3 rounds are made.
        repeats: rounds, when the budget allows.
    """
    loops, warm_ups, per_round = {}, {}, 0.0
    for name, call in calls.items():
        seconds, _ = device.sample(call, 1)
        if seconds < SLOW:  # the first call may have been a slow one
            seconds, _ = device.sample(call, 1)
        loops[name] = max(1, min(1000, int(TURN / max(seconds, 1e-7))))
        warm_ups[name] = loops[name] if seconds < SLOW else 0
        per_round += SETTLE + seconds * (loops[name] + warm_ups[name])
    rounds = max(3, min(repeats, int(budget / per_round)))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(list(calls), len(calls)):
            time.sleep(SETTLE * draw.uniform(1, 1.5))
            for _ in range(warm_ups[name]):
                calls[name]()
            samples[name].append(device.sample(calls[name], loops[name]))
    return {name: spread(pairs) for name, pairs in samples.items()}


def spread(pairs: list[tuple[float, float]]) -> Timing:
    """Of (seconds, host seconds) of each turn."""
    times = sorted(p[0] for p in pairs)
    tenth = max(0, round(0.1 * (len(pairs) - 1)))
    host = statistics.median(p[1] for p in pairs)
    return Timing(statistics.median(times), times[tenth], times[-1 - tenth], host)


def peaks(device: Device, dtype: torch.dtype) -> tuple[float, float]:
    """(FLOP/s of a large matrix product in ``dtype``, bytes/s of a large copy): this machine's own, best of several.

    On a CPU the product is PyTorch's or this project's own, whichever is faster.
    """
    n = 8192 if device.cuda else 1024
    a = torch.randn(n, n, device=device.name).to(dtype)
    size = 2**28  # far beyond any cache
    source, target = torch.empty(2, size, dtype=torch.uint8, device=device.name)
    products = [lambda: a @ a]
    if core is not None and not device.cuda and dtype in (torch.float32, torch.bfloat16):
        w, x, y = packed(a, dtype=dtype), a.float(), torch.empty(n, n)
        out = (y.data_ptr(), n, n, n, n)
        first = (torch.get_num_threads(), x.data_ptr(), n, w.data_ptr())
        if dtype == torch.float32:
            products.append(lambda: core.gemm_forward(*first, None, None, *out, 0))
        else:
            products.append(lambda: core.gemm_forward_bf16(*first, *out))

    def best(call: Callable) -> float:
        call()
        return min(device.sample(call, 3)[0] for _ in range(5))

    return 2 * n**3 / min(map(best, products)), 2 * size / best(lambda: target.copy_(source))
