"""What is timed: one ``OpCase`` per op and size, one ``ModelCase`` per network.

``bench/ops/<op>.py`` and ``bench/models/<network>.py`` each hold a list ``CASES``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class OpCase:
    """One op at one size.

    Args:
        op: its name, as in ``posekernels.explain``.
        size: for the table ("B=400 J=17 80->384 K=2 M gelu").
        make: () -> the op's inputs, float32 on the CPU, by name; non-float ones are passed as they are.
        call: (inputs, backend) -> the output, or a tuple of outputs. The op's public function.
        flops: of the forward pass.
        bytes: read and written at least once by the forward pass, as a function of the element size in bytes.
        gradients: inputs whose gradients are checked and timed; empty for an op without a backward pass.
        peers: other ways to compute the same: name -> (inputs) -> output ("sdpa": PyTorch's own attention).
        unchecked: those of them that draw other random numbers, so that there is nothing to compare.
        dtypes: that it is timed in, beside float32.
        float32: inputs that stay so when ``bench.counts`` takes the op in 16 bits.
        counted_only: for ``bench.counts`` alone, and not timed.
        quick: part of ``--quick``.
        gpu_only: too large for a CPU.
        compiles: False where torch.compile takes minutes on the eager form: 50 steps unrolled, Philox in integers.
    """

    op: str
    size: str
    make: Callable[[], dict[str, Tensor]]
    call: Callable[[dict[str, Tensor], str], Tensor | tuple[Tensor, ...]]
    flops: float
    bytes: Callable[[int], float]
    gradients: tuple[str, ...] = ()
    peers: dict[str, Callable[[dict[str, Tensor]], Tensor]] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    float32: tuple[str, ...] = ()
    counted_only: bool = False
    quick: bool = False
    gpu_only: bool = False
    compiles: bool = True


def keypoints(frames: int) -> Callable[[int], tuple[Tensor, ...]]:
    """``inputs`` of a lifter: batch -> ([batch, frames, 17, 2] in [-1, 1],)."""

    def inputs(batch: int) -> tuple[Tensor, ...]:
        return (torch.rand(batch, frames, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)

    return inputs


def as_trained(net: nn.Module) -> nn.Module:
    """``net`` with every weight moved a little.

    Published starts hold ones, zeros and copies (the projections of an attention), which ONNX Runtime and OpenVINO
    leave out or compute once, as they could not of a checkpoint: OpenVINO's Strided Transformer was 1.2 times as fast.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net


@dataclass
class ModelCase:
    """One network in inference, and one training iteration of it.

    Args:
        model: its name, as in ``models.create``, or what is done with it ("rie video").
        make: () -> the network, float32 on the CPU; it is timed ``as_trained``.
        inputs: batch -> the positional inputs of ``forward``.
        batches: a latency size, a medium one, a large one.
        flops: batch -> multiply-adds times two of the forward pass.
        training_batch: batch of the timed training iteration, None when it has none.
        losses: of one iteration, each followed by a backward pass and a step of Adam: (net, inputs) -> scalar.
        unchecked_training: why no gradient is compared with float64 before the iteration is timed ("" when it is).
        run: (net, inputs) -> output, when it is not ``net(*inputs)``.
        plain: the same as a user of PyTorch alone would write it round calls of the network: what eager runs where
            ``run`` is something else, and what is run on the network that ``torch.compile`` has compiled.
        session: how ONNX Runtime and OpenVINO do it when not by one call of the network: (net, inputs, export) -> a
            call, where ``export(inputs)`` gives the network as a function, and ``export(inputs, part)`` a part of it.
            Needed beside ``run``; without it, they are left out.
        unit: of the table's size column; "B" for a batch.
        checked: compare this many entries of the batch, first and last ones, with float64; all when None.
        memory_only: batches whose memory is measured, with the kernels alone, and not their time.
        dtypes: that it is timed in, beside float32.
    """

    model: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    batches: tuple[int, ...]
    flops: Callable[[int], float]
    training_batch: int | None = None
    losses: tuple[Callable, ...] = (lambda net, inputs: net(*inputs).square().mean(),)
    unchecked_training: str = ""
    run: Callable | None = None
    plain: Callable | None = None
    session: Callable | None = None
    unit: str = "B"
    checked: int | None = None
    memory_only: tuple[int, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()


def _cases(package: str, missing: list[str] | None) -> list:
    found = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        try:
            found += importlib.import_module(f"{package}.{module.name}").CASES
        except ImportError as error:
            if missing is None:
                raise
            missing.append(str(error))
    return found


def op_cases(missing: list[str] | None = None) -> list[OpCase]:
    """Every case under ``bench/ops``. With ``missing``, why a file cannot be imported (beside an older engine, which
    lacks what it needs) goes there instead of being raised."""
    return _cases("bench.ops", missing)


def model_cases(missing: list[str] | None = None) -> list[ModelCase]:
    """Every case under ``bench/models``; ``missing`` as above."""
    return _cases("bench.models", missing)
