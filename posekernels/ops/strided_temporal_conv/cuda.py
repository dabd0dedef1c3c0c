"""``strided_temporal_conv`` in CUDA C++ (csrc/strided_temporal_conv/strided_temporal_conv_cuda.cu): one launch."""

from __future__ import annotations

from array import array
from functools import partial

from torch import Tensor

from ..._adapters import strided_address, table_of
from ..._cuda import launch
from ...prepared import derived
from .groups import Group, groups_of, rows_of
from .products import strided_temporal_conv_backward as strided_temporal_conv_backward
from .reference import width_of

_MOST = 16  # groups of a launch


def _matrix(weight: Tensor) -> Tensor:
    """[Co, Ci, w] -> [Co, w * Ci], as windows lie in memory."""
    return (weight.permute(0, 2, 1).flatten(1) if weight.dim() == 3 else weight).detach().contiguous()


def run(groups: list[Group]) -> list[Tensor]:
    """The results [B, T // w, Co] of networks side by side; sizes may differ from one to the next."""
    results = []
    for first in range(0, len(groups), _MOST):
        table, slopes, alive = array("q"), array("d"), []
        for group in groups[first : first + _MOST]:
            width, Co = width_of(group.weight), group.weight.shape[0]
            x, pitch = rows_of(group.x, width)
            weight = derived("windows in rows", partial(_matrix, group.weight), group.weight)
            vectors = [v if v is None else v.contiguous() for v in group[2:6]]
            y = x.new_empty(x.shape[0], x.shape[1] // width, Co)
            tensors = (x, weight, *vectors, y)
            table.extend((strided_address(x), *table_of(tensors[1:])))
            table.extend((y.shape[0] * y.shape[1], pitch, width * x.shape[2], Co, group.stride, group.tap))
            slopes.append(group.slope)
            alive.append(tensors)
            results.append(y)
        if any(tensors[-1].numel() for tensors in alive):
            launch(
                "strided_temporal_conv_cuda",
                alive[0][0],
                table.buffer_info()[0],
                slopes.buffer_info()[0],
                len(alive),
            )
    return results


def strided_temporal_conv(*args) -> list[Tensor]:
    """As ``reference.strided_temporal_conv``."""
    return run(groups_of(*args))
