"""``temporal_networks`` in C++: one call for all layers; packed weights and the table of layers are made once."""

from __future__ import annotations

import struct
from array import array

import torch
from torch import Tensor

from ..._adapters import address, addresses
from ..._native import core
from ...prepared import derived
from .._cpu import not_float32
from ..strided_temporal_conv.reference import width_of
from .reference import split

_NOWHERE = -1  # no place in the workspace: the network's x or y, or no residual
_INPUT = -2
_WORKSPACE = 1 << 24  # numbers: clips are taken in portions whose results between layers fit


class _Prepared:
    """Packed weights, the table of layers, and numbers of workspace per clip, for one state of the weights."""

    def __init__(self, weight, affine, frames, depths, slopes, residuals, taps, half: bool):
        self.affine = [a.detach().float().contiguous() for a in affine]
        sizes = []
        for w in weight:
            depth = w.shape[1] * width_of(w)
            size = core.gemm_packed_size_bf16 if half else core.gemm_packed_size
            sizes.append(size(1, depth, w.shape[0]))
        self.panels = self.affine[0].new_empty(sum(sizes), dtype=torch.bfloat16 if half else None)
        element = self.panels.element_size()
        place, places = address(self.panels), []
        core.advise_large_pages(1, place, self.panels.numel() * element)
        for w, size in zip(weight, sizes):
            matrix = w.detach().float()
            matrix = matrix.permute(0, 2, 1).flatten(1) if w.dim() == 3 else matrix
            matrix = matrix.contiguous()  # [Co, w * Ci]
            N, K = matrix.shape
            if half:
                core.gemm_pack_bf16(1, address(matrix), 1, K, K, N, place)
            else:
                core.gemm_pack(1, address(matrix), 1, 0, 1, K, K, N, place)
            places.append(place)
            place += size * element
        self.deepest = max(depths)
        self.ends = array("q")
        self.table = array("q")
        self.place = 0  # numbers of workspace per clip
        for n, part in enumerate(split(depths, weight, self.affine, places, slopes, residuals, taps)):
            self._add_network(frames[n], *part)
        self.chunk = max(1, _WORKSPACE // max(1, self.place))

    def _add_network(self, frames, weights, affines, panels, slopes, residuals, taps) -> None:
        last_use = [i + 1 for i in range(len(weights))]
        for i, residual in enumerate(residuals):
            if residual >= 0:
                last_use[residual] = max(last_use[residual], i)
        first_frames, rows = frames, []
        for w in weights:
            frames //= width_of(w)
            rows.append(frames)
        free: list[tuple[int, int]] = []  # (size, place) of results nobody needs any more
        lying: dict[int, tuple[int, int]] = {}  # layer -> (size, place)
        for i, (w, affine) in enumerate(zip(weights, affines)):
            K, N = w.shape[1] * width_of(w), w.shape[0]
            source = lying[i - 1][1] if i else _NOWHERE
            residual = residuals[i]
            if i == len(weights) - 1:
                place = _NOWHERE
            else:
                size = rows[i] * N
                fitting = [f for f in free if f[0] >= size]
                if fitting:
                    lying[i] = min(fitting)
                    free.remove(lying[i])
                else:
                    lying[i] = (size, self.place)
                    self.place += -(-size // 32) * 32
                place = lying[i][1]
            addresses = (panels[i], address(affine), address(affine) + 4 * N)
            before, stride = _NOWHERE, 1
            if residual >= 0:
                before, stride = lying[residual][1], rows[residual] // rows[i]
            elif residual == -1:
                before, stride = _INPUT, first_frames // rows[i]
            slope = struct.unpack("q", struct.pack("d", slopes[i]))[0]
            self.table.extend((*addresses, K, N, rows[i], source, place, before, stride, taps[i], slope))
            free += [lying.pop(k) for k in list(lying) if last_use[k] <= i]
        self.table.extend([0] * 12 * (self.deepest - len(weights)))
        self.ends.extend((0, first_frames * weights[0].shape[1], 0, rows[-1] * weights[-1].shape[0]))
        self.results = [*getattr(self, "results", ()), (rows[-1], weights[-1].shape[0])]


def refuses(x, weight, *_rest) -> str | None:
    return not_float32(x[0], weight[0], or_bfloat16=True)


def temporal_networks(x, weight, affine, *options, derived=derived) -> list[Tensor]:
    """As ``reference.temporal_networks``."""
    half = x[0].dtype is torch.bfloat16
    clips = x[0].shape[0]
    x = [a.contiguous() for a in x]
    frames = tuple([a.shape[1] for a in x])
    key = "temporal_networks", half, frames, *map(tuple, options)
    made = derived(key, lambda: _Prepared(weight, affine, frames, *options, half), *weight, *affine)
    results = [a.new_empty(clips, *shape) for a, shape in zip(x, made.results)]
    ends = array("q", made.ends)
    for i, (a, y) in enumerate(zip(x, results)):
        ends[4 * i], ends[4 * i + 2] = addresses(a, y)
    kernel = core.temporal_networks_bf16 if half else core.temporal_networks
    table, ends_at = made.table.buffer_info()[0], ends.buffer_info()[0]
    kernel(torch.get_num_threads(), table, ends_at, len(x), made.deepest, clips, made.chunk, made.place)
    return results
