"""``temporal_mlp``: a stack of linear maps over time with norms and residuals; and the forecast around it.

Start reading here; the definition is in ``reference.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _cuda
from ..._dispatch import OPS, not_for_triton, requested, resolve
from ..._library import register
from ..._native import core
from ...arrays import accepts_arrays, follows_autocast
from ...checks import check_choice, check_number, check_shape, check_tensor, check_tensors
from . import reference

MIXES = ("temporal", "spatial")
PARAMETERS = ("weight", "bias", "scale", "shift", "pre_weight", "pre_bias", "pre_scale", "pre_shift")
_STACK = "Tensor x, Tensor weight, Tensor bias, Tensor? scale, Tensor? shift, Tensor? pre_weight, Tensor? pre_bias, "
_STACK += "Tensor? pre_scale, Tensor? pre_shift, str mix, str norm, float eps"


def _fake(x, *args):
    """What is kept for the backward pass is the kernel's own."""
    *tensors_and_options, keep, backend = args
    saved: tuple[int, ...] = (0,)
    if keep:
        kernel = resolve("temporal_mlp", backend, (x, *tensors_and_options, keep))
        (B, C, T), N = x.shape, args[0].shape[0]
        if kernel is OPS["temporal_mlp"]["cpu"]:
            lanes = core.temporal_mlp_lanes(1)
            saved = -(-B // lanes), N, C, T, lanes
        elif kernel is not OPS["temporal_mlp"]["reference"]:
            saved = N, B, C, T
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(saved, dtype=torch.float32)


def _fake_backward(grad, saved, *args):
    *tensors, _mix, _norm, _eps, needs, _backend = args
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t, n in zip(tensors, needs) if n]


def _fake_forecast(history, transform, inverse, *args):
    return history.new_empty(history.shape[0], inverse.shape[0], history.shape[2])


def kept_nothing(grad, saved, x, weight, *args) -> str | None:
    """Any kernel but the reference keeps every block's input; a stack of no blocks has none."""
    if saved.numel() == 0 and grad.numel() and len(weight):
        return "the forward pass ran on another backend and kept nothing for this one"
    return None


def _not_for_triton(*args) -> str | None:
    if max(args[0].shape[1:]) > 128:  # of the state, or of the history
        return f"takes at most 128 coordinates and 128 slots, got {list(args[0].shape[1:])}"
    return not_for_triton(*args)


def _not_for_triton_backward(grad, saved, *args) -> str | None:
    return kept_nothing(grad, saved, *args) or _not_for_triton(grad, *args)


def _cuda_limits(C: int, T: int) -> str | None:
    """One block of threads holds a sample: csrc/temporal_mlp/temporal_mlp_cuda.cu."""
    return f"takes at most 80 coordinates and 64 slots, got {C} and {T}" if C > 80 or T > 64 else None


def _not_for_cuda(*args) -> str | None:
    """The stack: x [B, C, T]."""
    return _cuda_limits(*args[0].shape[1:]) or _cuda.refuses(*args)


def _not_for_cuda_backward(grad, saved, *args) -> str | None:
    return kept_nothing(grad, saved, *args) or _not_for_cuda(grad, *args)


def _not_for_cuda_forecast(history, transform, inverse, *args) -> str | None:
    T, C = history.shape[1:]
    return _cuda_limits(C, max(T, inverse.shape[0])) or _cuda.refuses(history, transform, inverse, *args)


_ORDER = ("cpu", "cuda", "triton")
_forward = register(
    __name__,
    "temporal_mlp",
    f"({_STACK}, bool keep, str backend) -> (Tensor, Tensor)",
    _fake,
    order=_ORDER,
    refuses={"triton": _not_for_triton, "cuda": _not_for_cuda},
)
_backward = register(
    __name__,
    "temporal_mlp_backward",
    f"(Tensor grad, Tensor saved, {_STACK}, bool[] needs, str backend) -> Tensor[]",
    _fake_backward,
    order=_ORDER,
    refuses={"triton": _not_for_triton_backward, "cuda": _not_for_cuda_backward},
)
_forecast = register(
    __name__,
    "temporal_mlp_forecast",
    "(Tensor history, Tensor transform, Tensor inverse, Tensor weight_in, Tensor bias_in, Tensor?[] main, "
    "Tensor weight_out, Tensor bias_out, Tensor?[] side, Tensor? side_weight_out, Tensor? side_bias_out, "
    "str mix, str norm, float eps, str backend) -> Tensor",
    _fake_forecast,
    order=_ORDER,
    needs={"cuda": ("temporal_mlp_cuda",)},
    refuses={"triton": _not_for_triton, "cuda": _not_for_cuda_forecast},
)


class _TemporalMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):
        *tensors, mix, norm, eps, _keep, backend = args
        y, saved = _forward.run(*tensors, mix, norm, eps, True, backend=backend)
        ctx.save_for_backward(saved, *tensors)
        ctx.options, ctx.backend = (mix, norm, eps), backend
        return y

    @staticmethod
    def backward(ctx, grad):
        saved, *tensors = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:9])
        grads = iter(_backward(grad.contiguous(), saved, *tensors, *ctx.options, needs, backend=ctx.backend))
        return *(next(grads) if need else None for need in needs), *(None,) * 5


_forward.gradient = lambda *args: (_TemporalMlp.apply(*args), None)


def _gradient(*args):
    *args, backend = args
    return reference.temporal_mlp_forecast(*args, run=lambda *stack: _forward(*stack, False, backend=backend)[0])


_forecast.gradient = _gradient  # the stacks one call each


def _check_stack(op: str, where: str, like: Tensor, C: int, T: int, stack: dict, mix: str, norm: str) -> None:
    """Refuse a stack whose tensors do not fit a state of C coordinates by T slots."""
    check_choice(op, "mix", mix, MIXES)
    check_choice(op, "norm", norm, reference.NORMS)
    check_tensor(op, f"{where}weight", stack["weight"], like=like, rank=3)
    N, M = stack["weight"].shape[0], T if mix == "temporal" else C
    affine = {"spatial": (N, C), "temporal": (N, T), "all": (N, C, T)}.get(norm)
    shapes = {"weight": (N, M, M), "bias": (N, M), "scale": affine, "shift": affine}
    has_pre = [stack[name] is not None for name in PARAMETERS[4:]]
    if any(has_pre) != all(has_pre):
        names = ", ".join(where + name for name in PARAMETERS[4:])
        raise ValueError(f"{op}: {names} come together or not at all")
    if all(has_pre):
        shapes |= {"pre_weight": (N, T, T), "pre_bias": (N, T), "pre_scale": (N, T), "pre_shift": (N, T)}
    for name in PARAMETERS:
        shape, tensor = shapes.get(name), stack[name]
        if shape is None and tensor is not None:
            raise ValueError(f"{op}: {where}{name} must be None with norm={norm!r}, got {list(tensor.shape)}")
        if shape is not None:
            check_tensor(op, where + name, tensor, like=like)
            check_shape(op, where + name, tensor, shape, f"{C} coordinates, {T} slots, mix={mix!r}, norm={norm!r}")


@accepts_arrays
def temporal_mlp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    pre_weight: Tensor | None = None,
    pre_bias: Tensor | None = None,
    pre_scale: Tensor | None = None,
    pre_shift: Tensor | None = None,
    mix: str = "temporal",
    norm: str = "spatial",
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """N residual blocks over a state of C coordinates by T time (or frequency) slots, all in one call.

    For n = 0..N-1: ``h = x + LN_time(x pre_weight_n^T + pre_bias_n)`` (``h = x`` without the ``pre_`` tensors), then
    ``x = x + LN(h weight_n^T + bias_n)``. Norms use the biased variance.

    Args:
        x: [B, C, T], float32, float64, float16 or bfloat16 (on the CPU the last two are computed in float32 and
            rounded). Any strides.
        weight: [N, T, T], out by in; [N, C, C] with ``mix="spatial"``, which maps over the coordinates instead.
        bias: [N, T] ([N, C]).
        scale, shift: of the last norm: [N, C], [N, T], [N, C, T] or None, for ``norm`` spatial, temporal, all, none.
        pre_weight, pre_bias, pre_scale, pre_shift: [N, T, T], [N, T], [N, T], [N, T]: the first map of a PKD motion
            block, always over time, its norm too. All four or none.
        mix: "temporal" or "spatial".
        norm: axis of the last norm: "spatial" (the C coordinates of a slot), "temporal", "all", or "none".
        eps: added to the variance, inside the root.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, C, T], dtype of ``x``; accumulates in float32 (float64 for float64).
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor.
    Source: siMLPe (Guo et al., WACV 2023), section 3.2; the ``pre_`` map: PKD (ICME 2025).
    """
    op = "temporal_mlp"
    check_tensor(op, "x", x, rank=3)
    stack = dict(zip(PARAMETERS, (weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift)))
    _check_stack(op, "", x, *x.shape[1:], stack, mix, norm)
    eps = check_number(op, "eps", eps, 0)
    return _forward(x, *stack.values(), mix, norm, eps, False, backend=requested(backend))[0]


@follows_autocast
def temporal_mlp_forecast(
    history: Tensor,
    transform: Tensor,
    inverse: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    main: dict[str, Tensor | None],
    weight_out: Tensor,
    bias_out: Tensor,
    side: dict[str, Tensor | None] | None = None,
    side_weight_out: Tensor | None = None,
    side_bias_out: Tensor | None = None,
    *,
    mix: str = "temporal",
    norm: str = "spatial",
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """A whole forecasting network in one call: transform, input layer, stacks, output layers, inverse, last frame.

    ``h = (transform history) weight_in^T + bias_in``; each stack takes h with its last two axes swapped to y, then
    ``inverse (y weight_out^T + bias_out)``; the results of the stacks and the last observed frame are added.

    Args:
        history: [B, T, C], the observed coordinates, any unit of length (kept); float32, float64, float16 or bfloat16
            (on the CPU the last two are computed in float32 and rounded). Any strides.
        transform: [T, T], row k = frequency; the orthonormal DCT in the published networks.
        inverse: [S, T], the rows of its inverse that are wanted: S future frames.
        weight_in, bias_in: [C, C], [C].
        main: the ``temporal_mlp`` parameters by name (``PARAMETERS``).
        weight_out, bias_out: [C, C], [C].
        side, side_weight_out, side_bias_out: a second stack on the same h, or None.
        mix, norm, eps, backend: as in ``temporal_mlp``; the same for both stacks.
    Returns:
        [B, S, C], dtype and unit of ``history``.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor; where one is asked for, the stacks run one call each.
    Source: siMLPe (Guo et al., WACV 2023), figure 2; with ``side``: PKD (ICME 2025).
    """
    op = "temporal_mlp_forecast"
    check_tensor(op, "history", history, rank=3)
    T, C = history.shape[1:]
    if (side is None) != (side_weight_out is None) or (side is None) != (side_bias_out is None):
        raise ValueError(f"{op}: side, side_weight_out and side_bias_out come together or not at all")
    check_tensor(op, "inverse", inverse, like=history, rank=2)
    shapes = {
        "transform": (transform, (T, T)),
        "inverse": (inverse, (inverse.shape[0], T)),
        "weight_in": (weight_in, (C, C)),
        "bias_in": (bias_in, (C,)),
        "weight_out": (weight_out, (C, C)),
        "bias_out": (bias_out, (C,)),
        "side_weight_out": (side_weight_out, (C, C)),
        "side_bias_out": (side_bias_out, (C,)),
    }
    optional = () if side is not None else ("side_weight_out", "side_bias_out")
    check_tensors(op, history, shapes, {"history": history}, optional)
    stacks = []
    for where, stack in (("main", main), ("side", side or {})):
        unknown = sorted(set(stack) - set(PARAMETERS))
        if unknown:
            raise ValueError(f"{op}: {where} has {', '.join(unknown)}; its tensors are {', '.join(PARAMETERS)}")
        full = {name: stack.get(name) for name in PARAMETERS}
        if where == "main" or side is not None:
            _check_stack(op, f"{where}.", history, C, T, full, mix, norm)
        stacks.append(list(full.values()) if where == "main" or side is not None else [])
    eps = check_number(op, "eps", eps, 0)
    outer = (weight_out, bias_out, stacks[1], side_weight_out, side_bias_out, mix, norm, eps)
    return _forecast(history, transform, inverse, weight_in, bias_in, stacks[0], *outer, backend=requested(backend))
