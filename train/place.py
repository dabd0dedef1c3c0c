"""Where a run happens: device, precision, process, memory."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Device, precision and process of a run; ``run_place`` makes one."""

    device: torch.device = torch.device("cpu")
    precision: str = "float32"
    rank: int = 0
    world: int = 1

    def autocast(self):
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def gather(self, value: Any) -> list:
        """``value`` of every process, in order of rank, on every process."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any process."""
        if self.world == 1:
            return flag
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item())

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes, on every process."""
        if self.world == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value / self.world


def is_first() -> bool:
    """Whether this is the process that prints, under torchrun."""
    return int(os.environ.get("RANK", 0)) == 0


def tell(line: str) -> None:
    """A line from the process that prints."""
    if is_first():
        print(line)


@contextlib.contextmanager
def run_place(device: str = "auto", precision: str = "float32") -> Iterator[Place]:
    """Choose the device and, under torchrun, join the other processes (gloo on CPU, NCCL on GPU).

    Raises:
        ValueError: a device that is not here, more processes than GPUs, tf32 without a GPU.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device here (PyTorch sees none); use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "tf32" and device != "cuda":
        raise ValueError("--precision tf32 needs a CUDA device; on a CPU use float32 or bf16")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no GPU: it has {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
    _keep_freed_memory()
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    joined = world > 1 and not dist.is_initialized()
    if joined:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=datetime.timedelta(hours=2))
    try:
        yield Place(torch.device(device, local) if device == "cuda" else torch.device("cpu"), precision, rank, world)
    finally:
        products.fp32_precision = before
        if joined:
            dist.destroy_process_group()


def _keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 1 GiB that are freed, for the next step, in place of the system.

    A step frees the activations that the next one asks for again. Given back and fetched anew, every page is cleared
    by the system: a quarter of a step of PKD. Nothing where the library is not GNU's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def move(batch, device: torch.device):
    """``batch`` with every tensor inside its tuples, lists, dicts and dataclasses on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: move(v, device) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(v, device) for v in batch)
    if dataclasses.is_dataclass(batch):
        fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **{k: move(v, device) for k, v in fields.items() if isinstance(v, Tensor)})
    return batch
