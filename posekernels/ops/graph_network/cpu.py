"""``graph_network`` in C++: one call for all layers; packed weights and the table of layers are made once.

16 bits are computed in float32, and rounded.
"""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from ..._adapters import addresses, table_of, wide
from ..._native import core
from ..._packing import pack
from ...prepared import derived
from .._cpu import not_narrow
from ..graph_conv.cpu import ACTIVATIONS, MAX_MATRICES
from .reference import NAMES, TENSORS

_NOWHERE, _INPUT = -1, -2  # a place: none (the network's own result, or no residual), the network's x


def refuses(x, tensors, *_rest) -> str | None:
    most = max(len(weight) for weight in tensors[::TENSORS])
    return f"takes up to {MAX_MATRICES} matrices, got {most}" if most > MAX_MATRICES else not_narrow(x, tensors[0])


def places(residuals: list[int]) -> list[int]:
    """Where each layer's result lies until its last use, as the number of a buffer; the last one's is the result."""
    last_use = {i: i + 1 for i in range(len(residuals))}
    for i, residual in enumerate(residuals):
        if residual >= 0:
            last_use[residual] = max(last_use[residual], i)
    found: list[int] = []
    for i in range(len(residuals) - 1):
        taken = {found[k] for k in range(i) if last_use[k] >= i}
        found.append(next(n for n in range(i + 1) if n not in taken))
    return [*found, _NOWHERE]


class _Prepared:
    """What the kernel takes beside x and y, for one state of the weights."""

    def __init__(self, tensors: list[Tensor], activations: list[int], residuals: list[int]):
        at = places(residuals)
        self.kept, self.table = [], array("q")
        for i, (activation, residual) in enumerate(zip(activations, residuals)):
            weight, *others = (t.detach() for t in tensors[TENSORS * i : TENSORS * (i + 1)])
            K, Cin, Cout = map(int, weight.shape)  # torch.jit.trace has tensors for sizes
            kept = pack(weight), *wide(*others)
            self.kept += kept  # while the table holds their addresses
            source = at[i - 1] if i else _INPUT
            added = _NOWHERE if residual < -1 else _INPUT if residual == -1 else at[residual]
            self.table.extend((*table_of(kept), Cin, Cout, K, ACTIVATIONS[NAMES[activation]], source, at[i], added))
        self.out_channels = Cout
        widest = max(tensors[TENSORS * i].shape[2] for i in range(len(activations)))
        self.arguments = (self.table.buffer_info()[0], len(activations), max(at) + 1, widest)

    def __call__(self, x: Tensor) -> Tensor:
        dtype, (x,) = x.dtype, wide(x)
        B, J, _ = map(int, x.shape)
        y = x.new_empty(B, J, self.out_channels)
        core.graph_network(torch.get_num_threads(), *addresses(x, y), B, J, *self.arguments)
        return y.to(dtype)


def graph_network(x, tensors, activations, residuals, derived=derived) -> Tensor:
    """As ``reference.graph_network``."""
    key = "graph_network", tuple(activations), tuple(residuals)
    return derived(key, lambda: _Prepared(tensors, activations, residuals), *tensors)(x)
