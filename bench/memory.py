"""Peak memory of one call, beyond the network, its weights and inputs.

On a CPU: the high-water mark of resident memory in a fresh process, so that no earlier call's memory is used again, and
kernels' scratch, packed weights and autograd's saved tensors all count. The pages of libraries that the call touches
first do not. On a GPU: the caching allocator's own peak.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
from collections.abc import Callable

import torch

from bench.suite import Unit

# glibc gives large blocks back at once only while told so; otherwise freed memory counts as held.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def _status(field: str) -> float:
    """Megabytes (10^6 bytes) of a line of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:")) * 1024 / 1e6


def high_water(call: Callable) -> float:
    """Megabytes that ``call`` holds at most beyond what the process held before. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("RssAnon")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the mark starts anew
    call()
    return max(0.0, _status("VmHWM") - _status("RssFile") - _status("RssShmem") - before)


def _warm_up() -> None:
    """What any first call of PyTorch allocates once: thread pools, buffers of its libraries, the optimiser's code."""
    net = torch.nn.Sequential(torch.nn.Conv1d(8, 8, 3), torch.nn.Linear(6, 6))
    optimizer = torch.optim.Adam(net.parameters())
    torch.softmax(net(torch.randn(2, 8, 8)), -1).sum().backward()
    optimizer.step()


def _in_child(make: Callable, args: tuple, threads: int) -> float:
    torch.set_num_threads(threads)
    _warm_up()
    call = make(*args)
    return high_water(call)


def fresh(make: Callable, *args) -> float:
    """``high_water(make(*args))`` in a fresh process; ``make`` and ``args`` must be picklable."""
    kept = {name: os.environ.get(name) for name in MALLOC}
    os.environ.update(MALLOC)
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.plan", "torch._dynamo"])  # the optimisers import the latter
        with context.Pool(1) as pool:
            return pool.apply(_in_child, (make, args, torch.get_num_threads()))
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _call(group: tuple[str, ...], device: str, way: str) -> Callable:
    """The unit's call. A training iteration is done twice: Adam makes its moments in the first."""
    from bench import plan  # imports this module's users

    unit = plan.find(group, device)
    call = unit.build(way)
    return (lambda: (call(), call())) if unit.pass_ == "training" else call


def peak_mb(unit: Unit, way: str) -> float | None:
    """Megabytes of one call of ``unit``; None where they cannot be measured."""
    if unit.device.startswith("cuda"):
        call = _call(unit.group, unit.device, way)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    return fresh(_call, unit.group, unit.device, way) if os.path.exists("/proc/self/clear_refs") else None
