"""``graph_conv``: skeleton graph convolution. Start reading here; the definition is in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_choice, check_not_empty, check_tensor, check_tensors
from . import reference

MAX_JOINTS = 64


def _fake(x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep, backend):
    y = x.new_empty(*x.shape[:2], weight.shape[2])
    return y, torch.empty_like(y) if keep else x.new_empty(0)


def _fake_backward(grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs, backend):
    tensors = (x, weight, adjacency, bias, modulation, scale, shift)
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t, n in zip(tensors, needs) if n]


_forward = register(
    __name__,
    "graph_conv",
    "(Tensor x, Tensor weight, Tensor adjacency, Tensor? bias, Tensor? modulation, Tensor? scale, Tensor? shift, "
    "Tensor? residual, str activation, bool keep, str backend) -> (Tensor, Tensor)",
    _fake,
    needs={"cpu": ("graph_conv_forward",)},
)
_backward = register(
    __name__,
    "graph_conv_backward",
    "(Tensor grad, Tensor h, Tensor x, Tensor weight, Tensor adjacency, Tensor? bias, Tensor? modulation, "
    "Tensor? scale, Tensor? shift, str activation, bool[] needs, str backend) -> Tensor[]",
    _fake_backward,
)


class _GraphConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):
        *tensors, residual, activation, _keep, backend = args
        keep = activation != "none" or tensors[5] is not None  # the scale
        y, h = _forward.run(*tensors, residual, activation, keep, backend=backend)
        ctx.save_for_backward(h, *tensors)
        ctx.activation, ctx.backend = activation, backend
        return y

    @staticmethod
    def backward(ctx, grad):
        needs = list(ctx.needs_input_grad[:7])
        args = (grad.contiguous(), *ctx.saved_tensors, ctx.activation, needs)
        grads = iter(_backward(*args, backend=ctx.backend) if any(needs) else ())
        residual = grad if ctx.needs_input_grad[7] else None
        return *(next(grads) if need else None for need in needs), residual, None, None, None


_forward.gradient = lambda *args: (_GraphConv.apply(*args), None)


@accepts_arrays
def graph_conv(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None = None,
    *,
    modulation: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    backend: str | None = None,
) -> Tensor:
    """Graph convolution over the joints of a skeleton, with its epilogue.

    ``y = act(scale * (sum_k A_k (M * (x W_k)) + bias) + shift) + residual``

    Args:
        x: [..., J, Cin], J <= 64; float32, float64, float16 or bfloat16 (on the CPU the last two are computed in
            float32 and rounded). Any leading axes, any strides.
        weight: [K, Cin, Cout], input-major (x W, no transpose).
        adjacency: [K, J, J]; row i of A_k says what joint i gathers. Pass the diagonal as a matrix of its own where
            it has its own weight: the kernels see the zeros, through which the C++ ones pass no NaN on either.
        bias: [Cout], the same for all joints, added once after mixing.
        modulation: [J, Cout], applied to the *source* joint, between weight and mixing.
        scale, shift: [Cout], a folded batch norm.
        residual: the shape of the result; added after the activation.
        activation: "none", "relu" or "gelu" (erf form).
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., J, Cout], dtype of ``x``; accumulates in float32 (float64 for float64).
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor.
    Source: modulated convolution, Zou & Tang, ICCV 2021, eq. 5 (K = 2; K = 1 with the whole matrix); Chebyshev
        convolution, Defferrard et al., NeurIPS 2016, eq. 4 (K = 3).
    """
    check_tensor("graph_conv", "x", x, min_rank=2)
    J, Cin = x.shape[-2:]
    check_tensor("graph_conv", "weight", weight, like=x, rank=3)
    K, Cout = weight.shape[0], weight.shape[2]
    if not 1 <= J <= MAX_JOINTS:
        raise ValueError(f"graph_conv: x must have 1 to {MAX_JOINTS} joints (axis -2), got {J}: x is {list(x.shape)}")
    check_not_empty("graph_conv", "weight", weight)
    shapes = {
        "weight": (weight, (K, Cin, Cout)),
        "adjacency": (adjacency, (K, J, J)),
        "bias": (bias, (Cout,)),
        "modulation": (modulation, (J, Cout)),
        "scale": (scale, (Cout,)),
        "shift": (shift, (Cout,)),
        "residual": (residual, (*x.shape[:-1], Cout)),
    }
    optional = ("bias", "modulation", "scale", "shift", "residual")
    check_tensors("graph_conv", x, shapes, {"x": x, "weight": weight}, optional)
    check_choice("graph_conv", "activation", activation, reference.ACTIVATIONS)
    poses = x.reshape(-1, J, Cin)
    if residual is not None:
        residual = residual.reshape(-1, J, Cout)
    tensors = (poses, weight, adjacency, bias, modulation, scale, shift, residual)
    y, _ = _forward(*tensors, activation, False, backend=requested(backend))
    return y.view(*x.shape[:-1], Cout)
