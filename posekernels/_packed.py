"""Keeps the packed form of weights for as long as the weights live unchanged, so that packing is paid once."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor


class PackedWeights:
    """A small cache: tensors -> what was made of them, the least recently used entry leaving first.

    An entry holds as long as every tensor is the same object with the same storage and version counter (in-place
    writes, ``load_state_dict`` and optimiser steps count; an edit through ``.data`` does not). Tensors made under
    ``torch.inference_mode`` keep no version, so nothing of them is kept.
    """

    def __init__(self, size: int = 8):
        self._size, self._entries = size, OrderedDict()

    def get(self, tensors: Sequence[Tensor], option, make: Callable[[], Tensor]) -> Tensor:
        """What ``make()`` gave for these tensors and this ``option`` (hashable), made again when they have changed."""
        key = (option, *map(id, tensors))
        if any(t.is_inference() for t in tensors):  # they keep no version: nothing would tell of a change
            return make()
        versions = [(t.data_ptr(), t._version) for t in tensors]
        entry = self._entries.get(key)
        if entry is not None and entry[1] == versions and all(r() is t for r, t in zip(entry[0], tensors)):
            self._entries.move_to_end(key)
            return entry[2]
        packed = make()
        self._entries[key] = ([weakref.ref(t) for t in tensors], versions, packed)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return packed
