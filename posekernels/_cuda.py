"""What the adapters of CUDA kernels share: how they multiply, streams."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _native
from ._adapters import allows_tf32
from ._dispatch import not_on, tensors_in


def math_of(tensor: Tensor) -> int:
    """How the kernels multiply: exact float32, TF32 where PyTorch's own setting allows it, float16 or bfloat16."""
    if tensor.dtype == torch.float32:
        return int(allows_tf32())
    return {torch.float16: 2, torch.bfloat16: 3}[tensor.dtype]


def launch(kernel: str, tensor: Tensor, *arguments) -> None:
    """Call a kernel on the device and the current stream of ``tensor``, with its number type."""
    stream = torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None
    with torch.cuda.device_of(tensor):
        getattr(_native.cuda(), kernel)(1, stream, math_of(tensor), *arguments)


class Limits(NamedTuple):
    """What sizes of blocks and grids go by."""

    shared: int  # bytes of shared memory that a block may have
    processors: int


def limits(tensor: Tensor) -> Limits:
    """Those of a tensor's GPU; where kernels run on the CPU, in tests, an A100's memory and an H200's processors."""
    if not tensor.is_cuda:
        return Limits(163 * 1024, 132)
    found = torch.cuda.get_device_properties(tensor.device)
    return Limits(found.shared_memory_per_block_optin, found.multi_processor_count)


def refuses(*arguments) -> str | None:
    """Why the CUDA kernels cannot take these arguments of a raw op, or None."""
    if any(tensor.dtype == torch.float64 for tensor in tensors_in(arguments)):
        return "has no float64"
    return not_on("cuda", *tensors_in(arguments))
