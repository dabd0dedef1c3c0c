"""``temporal_networks``: whole chains of strided temporal convolutions, several side by side, in one call.

Start reading here; the definition is in ``reference.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ..._network import Network
from ...arrays import follows_autocast
from ...checks import check_integer, check_number, check_shape, check_tensor
from ..strided_temporal_conv.reference import width_of
from . import reference

_OP = "temporal_networks"
_MOST = 64
INPUT = -1  # as a residual: the network's own input
_NONE = -2


class Layer(NamedTuple):
    """``y = lrelu(scale * (W * window(x)) + shift) + residual``, where a window is ``w`` frames and never overlaps.

    Args:
        weight: [Co, Ci, w], or [Co, Ci] for one frame.
        affine: [2, Co], scale and shift: bias and batch norm folded. Float32 beside a half-precision weight, or as it.
        negative_slope: of the leaky ReLU; 1 for none, 0 for a ReLU.
        residual: index of the earlier layer of this network whose result is added, -1 for the network's input, or None.
            It has a multiple of this layer's frames, ``s`` times as many: its frame ``t * s + tap`` is added to ``t``.
        tap: see ``residual``.
    """

    weight: Tensor
    affine: Tensor
    negative_slope: float = 1.0
    residual: int | None = None
    tap: int = 0


class TemporalNetworks(Network):
    """Networks that ``temporal_networks`` runs side by side, checked once. Their depths and widths may differ.

    What a backend makes of the weights is kept until one of them changes: give the parameters themselves, not views.

    Raises:
        ValueError, TypeError: a layer that does not fit the one before it, naming network and layer.
    """

    def __init__(self, networks: Sequence[Sequence[Layer]]):
        if not networks or not all(networks) or len(networks) > _MOST:
            depths = [len(layers) for layers in networks]
            raise ValueError(f"{_OP}: 1 to {_MOST} networks of at least one layer each, got depths {depths}")
        first = networks[0][0].weight
        check_tensor(_OP, "weight of layer 0 of network 0", first, min_rank=2)
        self.in_channels, self.out_channels, self.windows = [], [], []
        for n, layers in enumerate(networks):
            frames = 1  # of the network's input, per frame of this layer's result
            check_tensor(_OP, f"weight of layer 0 of network {n}", layers[0].weight, like=first, min_rank=2)
            channels = layers[0].weight.shape[1]
            made = [(1, channels)]  # of the input and of each result
            for i, layer in enumerate(layers):
                where = f"layer {i} of network {n}"
                check_tensor(_OP, f"weight of {where}", layer.weight, like=first, min_rank=2)
                check_tensor(_OP, f"affine of {where}", layer.affine, rank=2)
                Co, Ci = layer.weight.shape[:2]
                if not layer.weight.numel() or layer.weight.dim() > 3:
                    raise ValueError(
                        f"{_OP}: weight of {where} must be [Co, Ci] or [Co, Ci, w], no axis empty, "
                        f"got {list(layer.weight.shape)}"
                    )
                check_shape(_OP, f"affine of {where}", layer.affine, (2, Co), f"weight is {list(layer.weight.shape)}")
                if layer.affine.dtype not in (torch.float32, first.dtype) or layer.affine.device != first.device:
                    raise TypeError(f"{_OP}: affine of {where} must be float32 or {first.dtype}, beside the weights")
                if Ci != channels:
                    raise ValueError(f"{_OP}: weight of {where} must take {channels} channels, got {Ci}")
                channels, frames = Co, frames * width_of(layer.weight)
                check_number(_OP, f"negative_slope of {where}", layer.negative_slope)
                check_integer(_OP, f"tap of {where}", layer.tap, 0)
                if layer.residual is not None:
                    check_integer(_OP, f"residual of {where}", layer.residual, INPUT, i - 1)
                    before, other = made[layer.residual + 1]
                    if other != Co or not 0 <= layer.tap < frames // before:
                        raise ValueError(
                            f"{_OP}: residual of {where} must have {Co} channels and a tap in [0, {frames // before}), "
                            f"got {other} and {layer.tap}"
                        )
                made.append((frames, Co))
            self.in_channels.append(layers[0].weight.shape[1])
            self.out_channels.append(channels)
            self.windows.append(frames)
        layers = [layer for network in networks for layer in network]
        super().__init__([layer.weight for layer in layers] + [layer.affine for layer in layers])
        self.options = (
            tuple([len(layers) for layers in networks]),
            tuple([float(layer.negative_slope) for layer in layers]),
            tuple([_NONE if layer.residual is None else int(layer.residual) for layer in layers]),
            tuple([int(layer.tap) for layer in layers]),
        )

    def _take(self, tensors) -> None:
        super()._take(tensors)
        layers = len(tensors) // 2
        self.weight, self.affine = self.tensors[:layers], self.tensors[layers:]

    def _cast(self, dtype: torch.dtype) -> list[Tensor]:
        return [w.to(dtype) for w in self.weight] + self.affine  # float32 beside a weight in half precision


def _fake(x, weight, affine, depths, slopes, residuals, taps, backend):
    results = []
    for a, (weights,) in zip(x, reference.split(depths, weight)):
        frames = a.shape[1]
        for w in weights:
            frames = frames // width_of(w)
        results.append(a.new_empty(a.shape[0], frames, weights[-1].shape[0]))
    return results


_forward = register(
    __name__,
    _OP,
    "(Tensor[] x, Tensor[] weight, Tensor[] affine, int[] depths, float[] slopes, int[] residuals, int[] taps, "
    "str backend) -> Tensor[]",
    _fake,
    order=("cpu", "cuda", "triton"),
    needs={"cpu": (_OP, f"{_OP}_bf16"), "cuda": ("strided_temporal_conv_cuda",)},
    keeps=("cpu",),
)
_forward.gradient = _forward.recomputed


@follows_autocast
def temporal_networks(
    x: Sequence[Tensor], networks: TemporalNetworks, *, backend: str | None = None
) -> tuple[Tensor, ...]:
    """N chains of strided temporal convolutions, network n on ``x[n]``; step s of all of them is one launch.

    Args:
        x: N tensors [B, T_n, C_n], one B for all; T_n is a multiple of the network's window (the product of its
            widths). Float32, float64, float16 or bfloat16, as the weights.
        networks: the layers; make it once and keep it while no weight changes.
        backend: see ``posekernels.use_backend``.
    Returns:
        N tensors [B, T_n // window, C] of the last layers.
    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument.
    Gradient: with respect to ``x``, weights and affines, through the reference: for inference. Training runs layer by
        layer (``strided_temporal_conv``), as batch norms stand between.
    Source: Shan et al., ACM MM 2021; equal to ``strided_temporal_conv`` called layer by layer.
    """
    x, count = list(x), len(networks.windows)
    if len(x) != count:
        raise ValueError(f"{_OP}: x must hold {count} tensors, one per network, got {len(x)}")
    for i, (a, channels, window) in enumerate(zip(x, networks.in_channels, networks.windows)):
        check_tensor(_OP, f"x[{i}]", a, like=x[0], rank=3)
        if a.shape[0] != x[0].shape[0] or a.shape[2] != channels or a.shape[1] % window:
            raise ValueError(
                f"{_OP}: x[{i}] must be [{x[0].shape[0]}, a multiple of {window}, {channels}], got {list(a.shape)}"
            )
    if networks.weight[0].dtype != x[0].dtype:
        raise TypeError(f"{_OP}: x[0] must have the weights' dtype {networks.weight[0].dtype}, got {x[0].dtype}")
    if networks.weight[0].device != x[0].device:
        raise ValueError(f"{_OP}: x[0] must be on the weights' device {networks.weight[0].device}, got {x[0].device}")
    args = (x, networks.weight, networks.affine, *networks.options)
    return tuple(_forward(*args, backend=requested(backend), network=networks))
