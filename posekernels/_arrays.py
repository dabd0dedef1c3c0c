"""NumPy and CuPy arrays meet the ops here: wrapped without a copy on the way in, unwrapped on the way out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor


def _wrap(value):
    """``value`` as a tensor that shares its memory, when it is a NumPy or CuPy array."""
    module = type(value).__module__.partition(".")[0]
    if module == "numpy" and hasattr(value, "__dlpack__") and value.ndim:
        return torch.from_numpy(value) if value.flags.writeable else torch.from_numpy(value.copy())
    if module == "cupy" and hasattr(value, "__dlpack__"):
        return torch.from_dlpack(value)
    return value


def accepts_arrays(function: Callable) -> Callable:
    """Let a public op take NumPy or CuPy arrays where it takes tensors; results come back in the same kind.

    Tensors pass untouched. Which kind comes back is decided by the first argument.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Tensor) or not (args or kwargs):
            return function(*args, **kwargs)
        module = type(first).__module__.partition(".")[0]
        if module not in ("numpy", "cupy"):
            raise TypeError(
                f"{function.__name__}: the first argument must be a torch.Tensor, numpy.ndarray or "
                f"cupy.ndarray, got {type(first).__module__}.{type(first).__qualname__}"
            )
        result = function(*map(_wrap, args), **{k: _wrap(v) for k, v in kwargs.items()})

        def unwrap(tensor):
            if not isinstance(tensor, Tensor):
                return tensor
            tensor = tensor.detach()
            return tensor.numpy() if module == "numpy" else sys.modules["cupy"].from_dlpack(tensor)

        return tuple(map(unwrap, result)) if isinstance(result, tuple) else unwrap(result)

    return wrapped
