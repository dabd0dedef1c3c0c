"""``strided_temporal_conv``: temporal convolutions over non-overlapping windows, several networks side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register, wants_gradient
from ...arrays import follows_autocast
from ...checks import MOST_STRIDE, check_integer, check_not_empty, check_number, check_shape, check_tensor, fits
from . import reference

_OP = "strided_temporal_conv"
_SMALL = 1 << 20  # multiply-adds below which, with gradients, PyTorch's own graph costs less than ours


def _fake(x, weight, bias, scale, shift, residual, slope, stride, tap, backend):
    return [a.new_empty(a.shape[0], a.shape[1] // reference.width_of(w), w.shape[0]) for a, w in zip(x, weight)]


def _fake_backward(grads, x, weight, bias, needs, backend):
    kinds = (x, weight, bias) if bias else (x, weight)
    return [torch.empty_like(kind[i]) for i in range(len(x)) for kind, need in zip(kinds, needs) if need]


_ORDER = ("cpu", "cuda", "triton")
_forward = register(
    __name__,
    _OP,
    "(Tensor[] x, Tensor[] weight, Tensor[] bias, Tensor[] scale, Tensor[] shift, Tensor[] residual, float slope, "
    "int stride, int tap, str backend) -> Tensor[]",
    _fake,
    order=_ORDER,
    needs={"cpu": (_OP, f"{_OP}_bf16")},
)
_backward = register(
    __name__,
    f"{_OP}_backward",
    "(Tensor[] grads, Tensor[] x, Tensor[] weight, Tensor[] bias, bool[] needs, str backend) -> Tensor[]",
    _fake_backward,
    order=_ORDER,
    needs={"cpu": (_OP,), "cuda": (f"{_OP}_cuda",)},
)


class _StridedTemporalConv(torch.autograd.Function):
    """The bare convolution. With gradients the epilogue stays plain PyTorch: it follows a batch norm in training."""

    @staticmethod
    def forward(ctx, groups, has_bias, backend, *tensors):
        x, weight = tensors[:groups], tensors[groups : 2 * groups]
        bias = tensors[2 * groups :] if has_bias else ()
        ctx.save_for_backward(*tensors)
        ctx.options = groups, has_bias, backend
        return tuple(_forward.run(x, weight, bias, [], [], [], 1.0, 1, 0, backend=backend))

    @staticmethod
    def backward(ctx, *grads):
        groups, has_bias, backend = ctx.options
        kinds = 3 if has_bias else 2
        tensors = [ctx.saved_tensors[k * groups : (k + 1) * groups] for k in range(kinds)]
        asked = ctx.needs_input_grad[3:]
        needs = [any(asked[k * groups : (k + 1) * groups]) for k in range(kinds)]
        bias = tensors[2] if has_bias else ()
        args = ([g.contiguous() for g in grads], *tensors[:2], bias, needs)
        flat = iter(_backward(*args, backend=backend) if any(needs) else ())
        by_group = [[next(flat) if need else None for need in needs] for _ in range(groups)]
        return None, None, None, *(by_group[i][k] for k in range(kinds) for i in range(groups))


def _gradient(x, weight, bias, scale, shift, residual, slope, stride, tap, backend):
    bare = _StridedTemporalConv.apply(len(x), bool(bias), backend, *x, *weight, *bias)
    return [
        reference.epilogue(y, *(reference.at(v, i) for v in (scale, shift, residual)), slope, stride, tap)
        for i, y in enumerate(bare)
    ]


_forward.gradient = _gradient


@follows_autocast
def strided_temporal_conv(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    bias: Sequence[Tensor] = (),
    *,
    scale: Sequence[Tensor] = (),
    shift: Sequence[Tensor] = (),
    negative_slope: float = 1.0,
    residual: Sequence[Tensor] = (),
    residual_stride: int = 1,
    residual_tap: int = 0,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """G convolutions along time whose stride is their width, with their epilogue; on a GPU 16 groups a launch.

    ``y_g = lrelu(scale_g * (W_g * window(x_g) + bias_g) + shift_g) + residual_g[:, tap::stride]``; width 1 and T = 1
    make it a grouped fully connected layer.

    Args:
        x: G tensors [B, T, Ci]; Ci may differ between groups. Float32 or float64.
        weight: G tensors [Co, Ci, w], one w for all; T is a multiple of w. Or [Co, Ci], for width 1.
        bias: G tensors [Co], or none.
        scale, shift: G tensors [Co] each, or none: a folded batch norm.
        negative_slope: of the leaky ReLU; 1 for none, 0 for a ReLU.
        residual: G tensors [B, T // w * residual_stride, Co], or none; frame ``t * stride + tap`` is added to output t.
        backend: see ``posekernels.use_backend``.
    Returns:
        G tensors [B, T // w, Co].
    Raises:
        ValueError, TypeError: counts, shapes, dtypes or devices that do not fit, naming the argument.
    Gradient: with respect to every tensor.
    Source: the one-frame form of the temporal convolutions of Pavllo et al., CVPR 2019, used by Shan et al., ACM MM
        2021; equal to ``F.conv1d(x.mT, weight, bias, stride=w).mT`` and its epilogue.
    """
    x, weight, bias, scale, shift, residual = map(list, (x, weight, bias, scale, shift, residual))
    if not x or len(weight) != len(x):
        raise ValueError(
            f"{_OP}: x and weight must hold the same number of groups, at least 1; got {len(x)}, {len(weight)}"
        )
    check_tensor(_OP, "x[0]", x[0], rank=3)
    B, T, _ = x[0].shape
    check_tensor(_OP, "weight[0]", weight[0], like=x[0], min_rank=2)
    width = reference.width_of(weight[0])
    if width < 1 or T % width:
        raise ValueError(f"{_OP}: the frames of x must be a multiple of the weight's width {width}, got T={T}")
    residual_stride = check_integer(_OP, "residual_stride", residual_stride, 1, MOST_STRIDE)
    residual_tap = check_integer(_OP, "residual_tap", residual_tap, 0)
    negative_slope = check_number(_OP, "negative_slope", negative_slope)
    if not 0 <= residual_tap < residual_stride:
        raise ValueError(f"{_OP}: residual_tap must lie in [0, residual_stride={residual_stride}), got {residual_tap}")
    for i, (a, w) in enumerate(zip(x, weight)):
        check_tensor(_OP, f"x[{i}]", a, like=x[0], rank=3)
        check_shape(_OP, f"x[{i}]", a, (B, T, a.shape[2]), "x[0] fixes B and T")
        check_tensor(_OP, f"weight[{i}]", w, like=x[0], rank=weight[0].dim())
        check_shape(_OP, f"weight[{i}]", w, (w.shape[0], a.shape[2], width)[: w.dim()], f"x[{i}] is {list(a.shape)}")
        check_not_empty(_OP, f"weight[{i}]", w)
    for name, values in {"bias": bias, "scale": scale, "shift": shift, "residual": residual}.items():
        if values and len(values) != len(x):
            raise ValueError(f"{_OP}: {name} must hold {len(x)} groups or none, got {len(values)}")
        for i, value in enumerate(values):
            Co = weight[i].shape[0]
            shape = (B, T // width * residual_stride, Co) if name == "residual" else (Co,)
            if fits(value, shape, x[0].dtype, x[0].device):
                continue
            check_tensor(_OP, f"{name}[{i}]", value, like=x[0])
            check_shape(_OP, f"{name}[{i}]", value, shape, f"weight[{i}] is {list(weight[i].shape)}")
    backend = requested(backend)
    lists = (x, weight, bias, scale, shift, residual)
    if backend == "auto" and wants_gradient(lists) and sum(a.numel() * w.shape[0] for a, w in zip(x, weight)) < _SMALL:
        backend = "reference"
    return tuple(_forward(*lists, negative_slope, residual_stride, residual_tap, backend=backend))
