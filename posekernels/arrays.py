"""NumPy and CuPy arrays meet the ops here: wrapped without a copy on the way in, unwrapped on the way out."""

from __future__ import annotations

import contextlib
import functools
import inspect
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


def _stream_of(array, module: str):
    """The block inside which ops run where CuPy's own work does, on its current stream; of NumPy nothing to mind."""
    if module != "cupy":
        return contextlib.nullcontext()
    stream = sys.modules["cupy"].cuda.get_current_stream()
    return torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr, array.device.id))


def _cast(value, dtype: torch.dtype):
    """``value`` with the floating-point tensors in it (in containers too) in ``dtype``; float64 stays.

    What holds tensors in a class of its own says by a method ``in_dtype`` what it is in another dtype.
    """
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        inside = [_cast(v, dtype) for v in value]
        return type(value)(*inside) if hasattr(value, "_fields") else type(value)(inside)
    return value.in_dtype(dtype) if hasattr(value, "in_dtype") else value


def _autocasts(device: str) -> bool:
    """Whether autocast is on for a kind of device. Meta has none, and PyTorch raises when asked."""
    return device != "meta" and torch.is_autocast_enabled(device)


def in_autocast_dtype(x: Tensor) -> Tensor:
    """What autocast's first product would make of ``x``: for a network that begins inside an op."""
    device = x.device.type
    return _cast(x, torch.get_autocast_dtype(device)) if _autocasts(device) else x


_MISSING = object()


def _first_argument(function: Callable) -> Callable:
    """(args, kwargs) -> what was given for the first parameter of ``function``, by its place or by its name."""
    name = _first_name(function)
    return lambda args, kwargs: args[0] if args else kwargs.get(name, _MISSING)


def _first_name(function: Callable) -> str:
    return next(iter(inspect.signature(function).parameters))


def follows_autocast(function: Callable, widest: bool = False) -> Callable:
    """Let a public op run under ``torch.autocast``, where inputs may be bfloat16 and weights are float32.

    There all tensors follow the first one's dtype and the op itself is computed in it; elsewhere nothing is touched.
    Part of ``accepts_arrays``.

    Args:
        widest: they follow the widest of their dtypes instead.
    """
    first_argument = _first_argument(function)

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        first = first_argument(args, kwargs)
        if isinstance(first, (list, tuple)) and first:
            first = first[0]
        if isinstance(first, Tensor) and _autocasts(first.device.type):
            dtype = first.dtype
            if widest:
                found = [t.dtype for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.is_floating_point()]
                dtype = functools.reduce(torch.promote_types, found, dtype)
            args = tuple(_cast(value, dtype) for value in args)
            kwargs = {name: _cast(value, dtype) for name, value in kwargs.items()}
            with torch.autocast(first.device.type, enabled=False):
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def accepts_arrays(function: Callable, widest: bool = False) -> Callable:
    """Let a public op take NumPy or CuPy arrays where it takes tensors; results come back in the same kind.

    Tensors pass untouched, but see ``follows_autocast``. Which kind comes back is decided by the first argument. No
    array is copied; with CuPy's the op runs on CuPy's current stream.
    """
    function = follows_autocast(function, widest)
    first_argument, name = _first_argument(function), _first_name(function)

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        first = first_argument(args, kwargs)
        if isinstance(first, Tensor) or first is _MISSING:
            return function(*args, **kwargs)
        module = type(first).__module__.partition(".")[0]
        if module not in ("numpy", "cupy"):
            raise TypeError(
                f"{function.__name__}: {name} must be a torch.Tensor, numpy.ndarray or cupy.ndarray, "
                f"got {type(first).__module__}.{type(first).__qualname__}"
            )

        def unwrap(tensor):
            if not isinstance(tensor, Tensor):
                return tensor
            tensor = tensor.detach()
            return tensor.numpy() if module == "numpy" else sys.modules["cupy"].from_dlpack(tensor)

        with _stream_of(first, module):
            result = function(*map(_wrap, args), **{k: _wrap(v) for k, v in kwargs.items()})
            return tuple(map(unwrap, result)) if isinstance(result, tuple) else unwrap(result)

    return wrapped


def accepts_poses(function: Callable) -> Callable:
    """``accepts_arrays`` for errors and geometry, whose results autocast must not round to what a network gave."""
    return accepts_arrays(function, widest=True)
