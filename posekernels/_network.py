"""What the ops that take a whole network share: its weights checked once, in any dtype, and what backends make of them.

``GraphNetwork``, ``HierarchyNetwork``, ``TemporalNetworks`` and ``GraphDenoiser`` are such networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor

from .prepared import derived, deriving, state_of

Made = TypeVar("Made")


class Network:
    """Weights that one op runs.

    Args:
        tensors: every weight, in the order in which the raw op has them.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self.guarded = deriving()  # what made this network watches the weights
        self._take(tensors)

    def _take(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self._made: dict[Hashable, object] = {}

    def made(self, key: Hashable, make: Callable[[], Made], *tensors: Tensor) -> Made:
        """As ``derived``: a backend's own form of the weights, kept until one of them is written to.

        Where a ``PreparedWeights`` made this network, it looks after that, and nothing is looked at here.
        """
        if not self.guarded:
            return derived(key, make, *tensors)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make()
        return found

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same network with other tensors, in the order of ``tensors``; they are not checked."""
        other = copy.copy(self)
        other._take(tensors)
        return other

    def _cast(self, dtype: torch.dtype) -> list[Tensor]:
        return [t.to(dtype) for t in self.tensors]

    def in_dtype(self, dtype: torch.dtype) -> Self:
        """Itself, or itself with its weights in ``dtype``: as autocast wants it. Float64 stays."""
        if self.tensors[0].dtype in (dtype, torch.float64):
            return self
        if torch.is_grad_enabled():
            return self.with_tensors(self._cast(dtype))
        found = self._made.get(dtype)
        if found is None or not (self.guarded or (found[0] is not None and found[0].same(self.tensors))):
            state = None if self.guarded else state_of(self.tensors)
            found = self._made[dtype] = state, self.with_tensors(self._cast(dtype))
        return found[1]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_made": {}}  # another machine packs otherwise
