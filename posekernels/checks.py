"""The checks every op makes of its arguments, and the words they are refused in."""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Container, Iterable, Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST = torch.finfo(torch.float32).max
MOST_STRIDE = 2**31 - 1  # kernels count frames in 32 bits
MOST_POSES = 2**62  # a number of a first pose: counting on from it stays in 64 bits


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the name in ``names`` closest to a misspelt one, or ``""``; for error messages."""
    lower = {str(n).lower(): str(n) for n in names}
    typed = str(name).lower()

    def closeness(known: str) -> tuple[float, bool]:
        """Also of the beginning of what was typed; what goes on as typed wins where that is the same."""
        parts = (typed, typed[: len(known)]) if len(known) > 3 else (typed,)
        return max(difflib.SequenceMatcher(None, known, part).ratio() for part in parts), known.startswith(typed)

    near = max(lower, key=closeness, default="")
    return f"; did you mean {lower[near]!r}?" if near and closeness(near)[0] >= 0.6 else ""


def check_tensor(
    op: str, name: str, tensor, *, like: Tensor | None = None, rank: int | None = None, min_rank: int | None = None
) -> None:
    """A dense floating-point tensor of ``rank`` axes (or at least ``min_rank``), of the dtype and device of ``like``.

    Raises:
        TypeError: not a tensor, a sparse one, or of another dtype.
        ValueError: wrong rank, or another device.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(tensor).__qualname__}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{op}: {name} must be dense, got {tensor.layout}")
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be float32, float64, float16 or bfloat16, got {tensor.dtype}")
    if rank is not None and tensor.dim() != rank:
        raise ValueError(f"{op}: {name} must have {rank} axes, got {list(tensor.shape)}")
    if min_rank is not None and tensor.dim() < min_rank:
        raise ValueError(f"{op}: {name} must have at least {min_rank} axes, got {list(tensor.shape)}")
    if like is not None:
        if tensor.dtype != like.dtype:
            raise TypeError(f"{op}: {name} must have the first argument's dtype {like.dtype}, got {tensor.dtype}")
        if tensor.device != like.device:
            raise ValueError(f"{op}: {name} must be on the first argument's device {like.device}, got {tensor.device}")


def check_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...], because: str) -> None:
    """Raises ValueError unless ``tensor`` has ``shape``; ``because`` says which argument fixes it."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} must be {list(shape)} ({because}), got {list(tensor.shape)}")


def fits(tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether ``check_tensor`` and ``check_shape`` would pass it: the usual case, without their words, which cost."""
    return (
        isinstance(tensor, Tensor)
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.layout is torch.strided
        and tensor.device == device
    )


def check_tensors(
    op: str,
    like: Tensor,
    shapes: dict[str, tuple[object, tuple[int, ...]]],
    given: dict[str, Tensor],
    optional: Container[str] = (),
) -> None:
    """Each tensor in ``shapes`` has its shape there, and the dtype and device of ``like``.

    Args:
        given: by name, the arguments that fix the shapes, for the message.
        optional: names of those that may be None. Any other None is refused: kernels take None for "left out".
    Raises:
        TypeError, ValueError: as ``check_tensor`` and ``check_shape``.
    """
    dtype, device = like.dtype, like.device
    for name, (tensor, shape) in shapes.items():
        if tensor is None:
            if name in optional:
                continue
        elif fits(tensor, shape, dtype, device):
            continue
        check_tensor(op, name, tensor, like=like)
        check_shape(op, name, tensor, shape, ", ".join(f"{n} is {list(t.shape)}" for n, t in given.items()))


def check_mask(op: str, name: str, mask, meaning: str) -> None:
    """Raises TypeError unless ``mask`` is a dense bool tensor."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.layout is not torch.strided:
        is_bool = isinstance(mask, Tensor) and mask.dtype == torch.bool
        got = mask.layout if is_bool else mask.dtype if isinstance(mask, Tensor) else type(mask).__qualname__
        raise TypeError(f"{op}: {name} must be a dense bool tensor, {meaning}, got {got}")


def check_not_empty(op: str, name: str, tensor: Tensor) -> None:
    """Raises ValueError for a tensor one of whose axes is empty: a weight that leads from or to no channel."""
    if tensor.numel() == 0:
        raise ValueError(f"{op}: {name} must have no empty axis, got {list(tensor.shape)}")


def check_sizes(what: str, least: int = 1, **sizes: int) -> None:
    """Raises ValueError for a size below ``least``."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{what}: {name} must be at least {least}, got {size}")


def _shown(value) -> str:
    """A wrong option in words that stay short whatever it is."""
    return repr(value)[:80] if isinstance(value, (bool, numbers.Number, str, type(None))) else type(value).__qualname__


def check_number(op: str, name: str, value, least: float = -_LARGEST, most: float = _LARGEST) -> float:
    """``value``, an option, as a float.

    A tensor is refused: its gradient would be dropped without a word.

    Raises:
        TypeError: not a real number.
        ValueError: NaN, infinite, beyond float32, or not in [``least``, ``most``].
    """
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{op}: {name} must be a number, got {_shown(value)}")
    if not least <= value <= most:
        bounds = f"of at least {least:g}" if most == _LARGEST != -least else f"in [{least:g}, {most:g}]"
        raise ValueError(f"{op}: {name} must be a finite number {bounds}, got {_shown(value)}")
    return float(value)


def check_integer(op: str, name: str, value, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """``value``, an option, as an int.

    Raises:
        TypeError: not an integer.
        ValueError: not in [``least``, ``most``].
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{op}: {name} must be an integer, got {_shown(value)}")
        value = operator.index(value)
    if not least <= value <= most:
        bounds = f"of at least {least}" if value < least else f"of at most {most}"
        raise ValueError(f"{op}: {name} must be an integer {bounds}, got {_shown(value)}")
    return value


def check_integers(op: str, name: str, values, because: str) -> list[int]:
    """``values`` as a list of ints; ``because`` says what they are. Raises TypeError."""
    if isinstance(values, str) or not isinstance(values, (Sequence, torch.Size)) and not hasattr(values, "tolist"):
        raise TypeError(f"{op}: {name} must be a list of integers, {because}, got {_shown(values)}")
    return [check_integer(op, f"every entry of {name}", value) for value in values]


def check_flag(op: str, name: str, value) -> bool:
    """``value`` as a bool. Raises TypeError unless it is True, False, 1 or 0."""
    if type(value) is bool:
        return value
    if not isinstance(value, numbers.Integral) and type(value).__name__ not in ("bool", "bool_") or value not in (0, 1):
        raise TypeError(f"{op}: {name} must be True or False, got {_shown(value)}")
    return bool(value)


def check_choice(op: str, name: str, value, choices: Sequence[str]) -> None:
    """Raises ValueError unless ``value`` is one of the texts ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {_shown(value)}")


def seed_of(op: str, seed: int) -> int:
    """64 bits, written with or without a sign, as the signed integer that an op takes.

    Raises:
        TypeError: not an integer.
        ValueError: more than 64 bits.
    """
    if type(seed) is not int:
        seed = check_integer(op, "seed", seed, most=2**64 - 1)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{op}: seed must fit 64 bits, got {seed}")
    return seed - 2**64 if seed >= 2**63 else seed
