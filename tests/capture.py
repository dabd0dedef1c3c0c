"""A card that has no numbers: networks on the meta device, where neither values nor copies to it can hide.

A CUDA graph records what a network launches. It cannot record a value that the host reads, nor numbers that come from
ordinary host memory; both also stall a GPU. On the meta device the first raises by itself; ``no_crossing`` raises for
the second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from posekernels import _dispatch, _native
from posekernels._dispatch import tensors_in

CARD = torch.device("meta")
_FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, torch.from_numpy}
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}


class Crossing(AssertionError):
    """Numbers went between the host and the card."""


def _numbers_in(index) -> bool:
    """Whether a list of numbers is among the indices: PyTorch makes a tensor of it on the host."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (list, tuple, range)) for part in parts)


class _Watch(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = [t.device.type for t in tensors_in([*args, *(kwargs or {}).values()])]
        there = [t.device.type for t in tensors_in([made])]
        name = getattr(function, "__name__", str(function))
        if CARD.type in there and (function in _FROM_NUMBERS or "cpu" in given):
            raise Crossing(f"{name} takes numbers from the host to the card")
        if CARD.type in given and "cpu" in (*given, *there):
            raise Crossing(f"{name} mixes tensors of the host and of the card")
        if function in _INDEXING and CARD.type in given and _numbers_in(args[1]):
            raise Crossing(f"{name} takes a list of numbers from the host to the card")
        return made


def no_crossing() -> contextlib.AbstractContextManager:
    """``with no_crossing():`` a ``Crossing`` for what a CUDA graph would not record."""
    return _Watch()


class _Nothing:
    """In place of the compiled module: every kernel does nothing."""

    def __getattr__(self, name: str):
        return lambda *args: None


@contextlib.contextmanager
def on_card(backend: str, module: type = _Nothing) -> Iterator[None]:
    """Name ``backend``; our GPU kernels take tensors of any device, and their launches do nothing.

    Args:
        module: in place of the compiled module; with ``cuda_emulation.EmulatedModule`` CUDA kernels do their work, on
            tensors of the CPU.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext()))
        if backend == "triton":
            from triton.runtime.interpreter import GridExecutor

            stack.enter_context(mock.patch.object(GridExecutor, "__call__", lambda *args, **kwargs: None))
        elif backend == "cuda":
            stack.enter_context(mock.patch.object(_native, "cuda", module))
            stack.enter_context(mock.patch.object(_native, "no_cuda", lambda *names: None))
            for kernels in _dispatch.OPS.values():
                if "cuda" in kernels:
                    never = mock.patch.dict(kernels, cuda=_dispatch.Kernel(kernels["cuda"].run))
                    stack.enter_context(never)
        stack.enter_context(_dispatch.use_backend(backend))
        yield
