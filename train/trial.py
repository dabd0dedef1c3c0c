"""What a training will cost here, tried on a few samples before it begins: memory of a step, time of an epoch."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

FEW, SOME = 2, 16  # samples that are tried; the second number where an epoch seems to take long
LONG = 60.0  # seconds
SLACK = 1.25  # of what backward makes beside what it reads


@dataclass
class Cost:
    """Of ``samples`` in one step: bytes kept for backward, seconds; ``each``: seconds of one sample more."""

    samples: int
    kept: int
    seconds: float
    each: float = 0.0

    def of(self, samples: int) -> float:
        """Seconds of a step on so many samples."""
        return self.seconds + self.each * (samples - self.samples)


def some_of(batch, count: int, whole: int):
    """The first ``count`` samples of a batch of ``whole``: of every tensor and array in it that has as many rows."""
    if isinstance(batch, (Tensor, np.ndarray)):
        return batch[:count] if batch.ndim and len(batch) == whole else batch
    if isinstance(batch, dict):
        return {k: some_of(v, count, whole) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(some_of(v, count, whole) for v in batch)
    if dataclasses.is_dataclass(batch):
        fields = {f.name: some_of(getattr(batch, f.name), count, whole) for f in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **fields)
    return batch


def samples_of(batch) -> int:
    """Rows of the first tensor in a batch; 0 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    if isinstance(batch, dict):
        parts = list(batch.values())
    elif dataclasses.is_dataclass(batch):
        parts = [getattr(batch, f.name) for f in dataclasses.fields(batch)]
    else:
        parts = list(batch) if isinstance(batch, (tuple, list)) else []
    return next((n for part in parts if (n := samples_of(part))), 0)


def tried(step: nn.Module, losses: int, batch) -> Cost:
    """A training step on a batch, but for the optimiser's part; gradients are dropped."""
    stores: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            stores[storage.data_ptr()] = storage.nbytes()
        return tensor

    most, start = 0, time.perf_counter()
    for index in range(losses):
        stores.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step(index, batch)["loss"]
        most = max(most, sum(stores.values()))
        loss.backward()
        step.zero_grad(set_to_none=True)
    samples, seconds = samples_of(batch), time.perf_counter() - start
    return Cost(samples, most, seconds, seconds / samples)


def cost_of(step: nn.Module, losses: int, batch, batches: int) -> Cost | None:
    """``tried`` on a few samples of a batch; on some more where ``batches`` of them would take long.

    The caller puts back what a step changes: random states, running means.
    """
    whole = samples_of(batch)
    if whole < 1:
        return None
    cost = tried(step, losses, some_of(batch, FEW, whole))
    if cost.of(whole) * batches > LONG and whole >= SOME:  # now that everything has been called once
        few, cost = (tried(step, losses, some_of(batch, n, whole)) for n in (FEW, SOME))
        cost.each = max((cost.seconds - few.seconds) / (SOME - FEW), 0.1 * cost.each)
    return cost


def need(cost: Cost, samples: int, model: nn.Module) -> int:
    """About how many bytes a step on so many samples takes: weights, gradients, two means of Adam, what is kept."""
    weights = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return round(3 * weights + SLACK * cost.kept / cost.samples * samples)


def words(seconds: float) -> str:
    """``about 3 hours``."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} seconds"
