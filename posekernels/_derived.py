"""What follows from parameters alone (packed weights, a symmetrised adjacency), kept until they are written to.

The value hangs on the first tensor it was made from, and is made anew when one of the tensors was written to in place
(``_version``) or points elsewhere (``data_ptr``). Writes through ``.data`` change neither and are not seen: after such
surgery call ``repack(module)``. Tensors made under ``torch.inference_mode`` keep no version, so nothing is kept for
them, nor for the stand-ins that tracing and ``torch.func`` put in a tensor's place.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor, nn

_ATTRIBUTE = "_posekernels_derived"
_KINDS = (Tensor, nn.Parameter)
Value = TypeVar("Value")


class _Kept(dict):
    """{key: (state of the tensors, the others, value)}, left behind when its tensor is saved or copied."""

    def __reduce_ex__(self, protocol):
        # A saved parameter carries its attributes along. Values stay behind: another machine packs otherwise. An
        # empty dict takes their place, of a type that torch.load(weights_only=True) accepts.
        return OrderedDict, ()


def _state(tensor: Tensor) -> tuple[int, int] | None:
    if type(tensor) not in _KINDS or tensor.is_inference():
        return None
    try:
        return tensor._version, tensor.data_ptr()
    except RuntimeError:  # a functorch wrapper has no memory of its own
        return None


def derived(key: Hashable, make: Callable[[], Value], *tensors: Tensor) -> Value:
    """``make()``, or what it returned before if none of ``tensors`` was written to since.

    Args:
        key: tells apart what is derived from the same first tensor.
        make: computes the value from ``tensors`` and constants alone; call it where no gradient is recorded.
    """
    # A dispatch mode (export's fake tensors, for one) would leave its own kind of tensor behind.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return make()
    state = tuple([_state(t) for t in tensors])
    if None in state:
        return make()
    kept = tensors[0].__dict__.get(_ATTRIBUTE)
    if type(kept) is not _Kept:
        kept = tensors[0].__dict__[_ATTRIBUTE] = _Kept()
    found = kept.get(key)
    # The others must be the very same objects: a new tensor may lie where a freed one lay, in the same version.
    if found is None or found[0] != state or any(r() is not t for r, t in zip(found[1], tensors[1:])):
        found = kept[key] = (state, [weakref.ref(t) for t in tensors[1:]], make())
    return found[2]


def repack(module: nn.Module) -> None:
    """Forget everything derived from ``module``'s parameters and buffers: needed after writing through ``.data``."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.__dict__.pop(_ATTRIBUTE, None)
