"""What follows from parameters alone (packed weights, a symmetrised adjacency), kept until they are written to.

The value hangs on the first tensor it was made from, and is made anew when one of the tensors was written to in place
(``_version``) or points elsewhere (``data_ptr``). Writes through ``.data`` change neither and are not seen: after such
surgery call ``repack(module)``. Tensors made under ``torch.inference_mode`` keep no version, so nothing is kept for
them, nor for the stand-ins that tracing and ``torch.func`` put in a tensor's place.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter, is_
from typing import TypeVar

import torch
from torch import Tensor, nn

_ATTRIBUTE = "_posekernels_derived"
_KINDS = {Tensor, nn.Parameter}
_version = attrgetter("_version")
Value = TypeVar("Value")


class _Kept(dict):
    """{key: (state of the tensors, the others, value)}, left behind when its tensor is saved or copied."""

    def __reduce_ex__(self, protocol):
        # A saved parameter carries its attributes along. Values stay behind: another machine packs otherwise. An
        # empty dict takes their place, of a type that torch.load(weights_only=True) accepts.
        return OrderedDict, ()


def state_of(tensors: Sequence[Tensor]) -> list[int] | None:
    """Equal to the one before when nothing was written to; None for tensors that cannot tell."""
    if not _KINDS.issuperset(map(type, tensors)):
        return None
    try:
        return [*map(_version, tensors), *map(Tensor.data_ptr, tensors)]
    except RuntimeError:  # an inference_mode tensor has no version, a functorch wrapper no memory of its own
        return None


def captured() -> bool:
    """Whether calls are being recorded or watched: by torch.compile, torch.jit.trace or a dispatch mode (export, a FLOP
    counter). Nothing made then may be kept, and nothing may go past the raw ops."""
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack())


def derived(key: Hashable, make: Callable[[], Value], *tensors: Tensor) -> Value:
    """``make()``, or what it returned before if none of ``tensors`` was written to since.

    Args:
        key: tells apart what is derived from the same first tensor.
        make: computes the value from ``tensors`` and constants alone; call it where no gradient is recorded.
    """
    if captured():  # export, for one, would leave its fake tensors behind
        return make()
    state = state_of(tensors)
    if state is None:
        return make()
    kept = tensors[0].__dict__.get(_ATTRIBUTE)
    if type(kept) is not _Kept:
        kept = tensors[0].__dict__[_ATTRIBUTE] = _Kept()
    found = kept.get(key)
    # The others must be the very same objects: a new tensor may lie where a freed one lay, in the same version.
    if found is None or found[0] != state or not all(map(is_, [r() for r in found[1]], tensors[1:])):
        found = kept[key] = (state, [weakref.ref(t) for t in tensors[1:]], make())
    return found[2]


_deriving = threading.local()


def deriving() -> bool:
    """Whether a ``PreparedWeights`` is making its value: it watches the weights that this is made of."""
    return getattr(_deriving, "now", False)


class PreparedWeights:
    """What is derived from all of a network's parameters and buffers at once, kept until one of them changes.

    A change is seen as by ``derived`` (optimiser steps and training passes are), but a look at hundreds of tensors
    costs less. While a graph is being captured it is derived anew.
    """

    def __init__(self, derive):
        # State and value, replaced together: threads may share a network.
        self._derive, self._made = derive, (None, None)
        self._containers: list[tuple[nn.Module, list[nn.Module | None]]] = []  # with what each contained
        self._parameters: list[dict[str, Tensor | None]] = []
        self._buffers: list[dict[str, Tensor | None]] = []

    def forget(self) -> None:
        self._made = None, None

    def _state(self, net: nn.Module) -> list[int]:
        """Equal to the one before when nothing has changed. The tree is walked again only when it is another."""
        known = self._containers
        if not known or known[0][0] is not net or any([[*m._modules.values()] != c for m, c in known]):
            modules = list(net.modules())
            self._containers = [(m, list(m._modules.values())) for m in modules if m is net or m._modules]
            self._parameters = [m._parameters for m in modules if m._parameters]
            self._buffers = [m._buffers for m in modules if m._buffers]
        parameters = [t for d in self._parameters for t in d.values() if t is not None]
        buffers = [t for d in self._buffers for t in d.values() if t is not None]
        versions = [t._version for t in parameters], [t._version for t in buffers]
        # Only a parameter is given other memory in place (``net.to()``, ``p.data = ...``); a buffer is replaced.
        return [*map(id, parameters), *map(id, buffers), *map(Tensor.data_ptr, parameters), *versions[0], *versions[1]]

    def __call__(self, net: nn.Module):
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._derive(net)
        try:
            state = self._state(net)
        except RuntimeError:  # made under inference_mode, they keep no version; a functorch stand-in has no memory
            return self._derive(net)
        known, value = self._made
        if state != known:
            _deriving.now = True
            try:
                with torch.no_grad():
                    value = self._derive(net)
            finally:
                _deriving.now = False
            self._made = state, value
        return value

    def __deepcopy__(self, memo):
        return PreparedWeights(self._derive)

    def __reduce__(self):
        return PreparedWeights, (self._derive,)


def repack(module: nn.Module) -> None:
    """Forget everything derived from ``module``'s parameters and buffers: needed after writing through ``.data``."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, PreparedWeights):
                value.forget()
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.__dict__.pop(_ATTRIBUTE, None)
