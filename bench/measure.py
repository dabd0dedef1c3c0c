"""Timing that can be believed: interleaved repeats, medians with spread, peaks measured in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Thread pools go on spinning for a while after their last task (ONNX Runtime's and OpenMP's do): left to themselves
# they slow whoever comes next down twofold. So every turn begins with a rest and calls that are not timed.
SETTLE = 0.05


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

    def graphed(self, call: Callable) -> Callable:
        """``call`` as a CUDA graph replay, so that a launch-bound row shows the device's time; itself on a CPU."""
        if not self.cuda:
            return call
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

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
    loops = {}
    for name, call in calls.items():
        call()
        seconds, _ = device.sample(call, 1)
        loops[name] = max(1, min(1000, int(2e-3 / max(seconds, 1e-7))))
    per_round = sum(device.sample(call, loops[name])[0] * loops[name] for name, call in calls.items())
    rounds = max(3, min(repeats, int(budget / max(per_round, 1e-6))))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(SETTLE)
            for _ in range(min(loops[name], 8)):
                call()
            samples[name].append(device.sample(call, loops[name]))
    timings = {}
    for name, pairs in samples.items():
        device_times = sorted(p[0] for p in pairs)
        tenth = max(0, round(0.1 * (len(pairs) - 1)))
        timings[name] = Timing(
            statistics.median(device_times),
            device_times[tenth],
            device_times[-1 - tenth],
            statistics.median(p[1] for p in pairs),
        )
    return timings


def peaks(device: Device, dtype: torch.dtype) -> tuple[float, float]:
    """(FLOP/s of a large matrix product in ``dtype``, bytes/s of a large copy): this machine's own, best of several."""
    n = 8192 if device.cuda else 1024
    a = torch.randn(n, n, device=device.name).to(dtype)
    size = 2**28  # far beyond any cache
    source, target = torch.empty(2, size, dtype=torch.uint8, device=device.name)

    def product():
        return a @ a

    def copy():
        target.copy_(source)

    best = []
    for call in (product, copy):
        call()
        best.append(min(device.sample(call, 3)[0] for _ in range(5)))
    return 2 * n**3 / best[0], 2 * size / best[1]
