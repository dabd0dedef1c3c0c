"""``encoder_layer``: a layer of the strided transformer, fused in inference. The definition: ``reference.py``."""

from __future__ import annotations

from torch import Tensor

from ... import _cuda
from ..._dispatch import not_for_triton, requested
from ..._dropout import Seed, check_rate, mask_seed
from ..._library import register
from ...arrays import follows_autocast
from ...checks import MOST_STRIDE, check_integer, check_not_empty, check_number, check_tensor, check_tensors
from ..strided_feed_forward import TAPS, frames_out
from ..temporal_attention import too_wide
from . import reference

PARAMETERS = (
    "norm1_scale",
    "norm1_shift",
    "query_weight",
    "query_bias",
    "key_weight",
    "key_bias",
    "value_weight",
    "value_bias",
    "output_weight",
    "output_bias",
    "norm2_scale",
    "norm2_shift",
    "hidden_weight",
    "hidden_bias",
    "conv_weight",
    "conv_bias",
)


def _fake(z, position, parameters, heads, stride, eps, backend):
    return z.new_empty(z.shape[0], frames_out(z.shape[1], stride), z.shape[2])


def _not_for_triton(z, position, parameters, heads, *_options) -> str | None:
    return too_wide(z.shape[-1] // heads) or not_for_triton(z, position, parameters)


def _not_for_cuda(z, position, parameters, heads, *_options) -> str | None:
    return too_wide(z.shape[-1] // heads) or _cuda.refuses(z, position, parameters)


_forward = register(
    __name__,
    "encoder_layer",
    "(Tensor z, Tensor? position, Tensor[] parameters, int heads, int stride, float eps, str backend) -> Tensor",
    _fake,
    needs={
        "cpu": ("encoder_layer", "encoder_layer_bf16"),
        "cuda": ("temporal_attention_cuda", "annotated_norm_cuda", "strided_feed_forward_cuda"),
    },
    refuses={"triton": _not_for_triton, "cuda": _not_for_cuda},
)


def _gradient(*args):
    *args, backend = args
    return reference.encoder_layer(*args, backend=backend)


_forward.gradient = _gradient  # the composition of the three ops


@follows_autocast
def encoder_layer(
    z: Tensor,
    position: Tensor | None,
    *parameters: Tensor,
    heads: int,
    stride: int = 1,
    eps: float = 1e-6,
    dropout: float = 0.0,
    seed: Seed = 0,
    backend: str | None = None,
) -> Tensor:
    """A pre-norm transformer layer over frames whose feed-forward block leaves every ``stride``-th one.

    ``z += position[:T]``; ``z += attention(norm1(z))``; ``z = z[::stride] + conv(relu(hidden(norm2(z))))``, with
    ``annotated_norm``, ``temporal_attention`` and ``strided_feed_forward``. Without gradients and dropout it runs as
    one kernel where there is one, and then computes no query, projection or hidden unit of a frame that nobody reads;
    otherwise it is the composition of the three ops.

    Args:
        z: [B, T, C]; float32, float64 or bfloat16 (and float16 on a GPU).
        position: [P, C], P >= T, or None.
        parameters: sixteen tensors in the order of ``PARAMETERS``: norm 1 [C] x 2; query, key, value and output
            projections [C, C] and [C]; norm 2 [C] x 2; hidden [N, C], [N]; convolution [C, N, 1 or 3], [C].
        heads: divides C.
        stride, eps: of the feed-forward block, of both norms.
        dropout: of attention weights, hidden units and both branches.
        seed: of the dropout masks; ``seed`` to ``seed + 2`` are used.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, (T - 1) // stride + 1, C], dtype of ``z``.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor.
    """
    op = "encoder_layer"
    check_tensor(op, "z", z, rank=3)
    B, T, C = z.shape
    if len(parameters) != len(PARAMETERS):
        raise ValueError(
            f"{op}: expected {len(PARAMETERS)} parameters ({', '.join(PARAMETERS)}), got {len(parameters)}"
        )
    named = dict(zip(PARAMETERS, parameters))
    for name, rank in (("hidden_weight", 2), ("conv_weight", 3)):
        check_tensor(op, name, named[name], like=z, rank=rank)
    N, taps = named["hidden_weight"].shape[0], named["conv_weight"].shape[-1]
    special = {"hidden_weight": (N, C), "hidden_bias": (N,), "conv_weight": (C, N, taps)}
    shapes = {n: (t, special.get(n) or ((C, C) if n.endswith("weight") else (C,))) for n, t in named.items()}
    check_tensors(op, z, shapes, {"z": z})
    check_not_empty(op, "hidden_weight", named["hidden_weight"])
    if T < 1 or C < 2:
        raise ValueError(f"{op}: z must have at least one frame and two channels, got {list(z.shape)}")
    if taps not in TAPS:
        raise ValueError(f"{op}: conv_weight must have 1 or 3 taps (axis 2), got {taps}")
    heads = check_integer(op, "heads", heads, 1)
    if C % heads:
        raise ValueError(f"{op}: heads must divide the {C} channels of z, got {heads}")
    stride = check_integer(op, "stride", stride, 1, MOST_STRIDE)
    eps, seed = check_number(op, "eps", eps, 0), mask_seed(op, seed, z)
    if position is not None:
        check_tensor(op, "position", position, like=z, rank=2)
        if position.shape[0] < T or position.shape[1] != C:
            raise ValueError(
                f"{op}: position must be [at least {T}, {C}] (z is {list(z.shape)}), got {list(position.shape)}"
            )
    check_rate(op, "dropout", dropout)
    backend = requested(backend)
    args = (z, position, list(parameters), heads, stride, eps)
    if dropout:
        return reference.encoder_layer(*args, dropout, seed, backend)
    return _forward(*args, backend=backend)
