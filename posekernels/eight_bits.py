"""Products in FP8 (e4m3): ``fp8(net)`` gives a copy of a network whose blocks multiply eight-bit numbers.

A row of numbers is kept as float8_e4m3fn and one float32 scale, its largest magnitude / 448: weights by output
channel, once; activations by row (a token, or a convolution's window of tokens), at every call. ``reference`` defines
the values.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._dispatch import Kernel, no_triton, not_for_triton, requested, resolve, triton_interpreted
from .prepared import peculiar

_OP = "fp8"
_E4M3 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_E4M3).max  # 448
_MULTIPLE = 16  # of both sides of a weight: rows of weights and activations then begin at 16 bytes


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K] -> (float8_e4m3fn [..., K], float32 scales [...]); a row with NaN or infinity becomes NaN somewhere."""
    rows = rows.float()
    scale = (rows.abs().amax(-1) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return (rows / scale[..., None]).to(_E4M3), scale


def reference(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The definition: ``x`` quantised, both sides widened, a float32 product, the scales, the bias.

    Args:
        x: [rows, K] floating.
        weight, scale: [N, K] float8_e4m3fn and [N] float32, from ``quantise``.
        bias: [N] or None.
    Returns:
        [rows, N], dtype of ``x``.
    """
    rows, row_scale = quantise(x)
    y = rows.float() @ weight.float().T * row_scale[:, None] * scale
    return (y if bias is None else y + bias.float()).to(x.dtype)


def _refuses(x: Tensor, *rest: Tensor | None) -> str | None:
    reason = not_for_triton(x, *rest)
    if reason is None and not triton_interpreted() and torch.cuda.get_device_capability(x.device) < (9, 0):
        reason = "needs a GPU of compute capability 9.0 (H100) or later"
    return reason


_KERNELS = {
    "triton": Kernel("posekernels._eight_bits_triton:product", no_triton, _refuses),
    "reference": Kernel(reference),
}


class Fp8Layer(nn.Module):
    """A linear layer, or a 1D convolution over [B, C, T], in eight bits. From ``fp8``.

    It stands outside ``posekernels.models``: a block that holds one calls its modules one by one (``OneCall``).
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d):
        super().__init__()
        weight, scale = quantise(layer.weight.detach().flatten(1))
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        convolves = isinstance(layer, nn.Conv1d)
        self.window = (layer.kernel_size[0], layer.stride[0], layer.padding[0]) if convolves else None
        self.train(layer.training)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, window={self.window}"

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]; of a convolution [B, C, T] -> [B, N, T'].

        Raises:
            ValueError: in training, or where a gradient is wanted: there is none.
            TypeError: weights that ``.half()`` or its like has made another dtype of.
        """
        if self.training or (torch.is_grad_enabled() and x.requires_grad):
            raise ValueError("fp8: has no gradient; train the network itself, then call fp8(net.eval())")
        if (self.weight.dtype, self.scale.dtype) != (_E4M3, torch.float32):
            got = f"{self.weight.dtype} and {self.scale.dtype}"
            raise TypeError(f"fp8: weights must be {_E4M3} with torch.float32 scales, got {got}; change dtype before")
        if self.window is not None:
            size, stride, padding = self.window
            windows = F.pad(x, (padding, padding)).unfold(-1, size, stride)  # [B, C, T', size]
            x = windows.transpose(1, 2).flatten(2)
        arguments = x.reshape(-1, x.shape[-1]), self.weight, self.scale, self.bias
        kernel = resolve(_OP, requested(None), arguments, _KERNELS)
        y = kernel(*arguments).unflatten(0, x.shape[:-1])
        return y if self.window is None else y.mT


def _check(name: str, layer: nn.Module) -> None:
    reason = peculiar(layer, False)
    if reason is not None:
        raise ValueError(f"fp8: {name} is not an ordinary layer: {reason}")
    N, K = layer.weight.flatten(1).shape
    if N % _MULTIPLE or K % _MULTIPLE:
        raise ValueError(f"fp8: {name}: sizes must be multiples of {_MULTIPLE}, got {K} -> {N}")


def fp8(net: nn.Module) -> nn.Module:
    """A copy of ``net``, for inference, whose transformer blocks multiply in FP8 (e4m3, scales by row).

    Embedding, attention among tokens, norms and head stay as they are. The blocks run module by module. On a GPU of
    compute capability 9.0 the products are a Triton kernel, which ``auto`` holds against the reference at its first
    use; elsewhere they are plain PyTorch, which rounds alike and gains nothing.

    Args:
        net: in eval mode; MixSTE or Strided Transformer, or a network that holds one. Not changed.
    Raises:
        TypeError: a network without such blocks.
        ValueError: training mode; a layer with a size that is no multiple of 16, with hooks, or of another class.
    """
    if net.training:
        raise ValueError("fp8: the network is in training mode; call net.eval() first")
    names = [
        f"{outer}.{name}".lstrip(".")
        for outer, part in net.named_modules()
        for name in getattr(type(part), "EIGHT_BITS", ())
    ]
    if not names:
        raise TypeError(f"fp8: {type(net).__name__} has no block of MixSTE or Strided Transformer")
    for name in names:
        _check(name, net.get_submodule(name))
    net = copy.deepcopy(net).requires_grad_(False)
    for name in names:
        outer, _, last = name.rpartition(".")
        setattr(net.get_submodule(outer), last, Fp8Layer(net.get_submodule(name)))
    return net
