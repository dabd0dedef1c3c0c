"""``denoise``: reverse diffusion of poses by a graph network. Start reading here; definition in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import not_for_triton, requested
from ..._library import register
from ..._network import Network
from ...arrays import follows_autocast
from ...checks import MOST_POSES, check_flag, check_integer, check_shape, check_tensor, seed_of
from . import reference

MAX_JOINTS = 64


class GraphDenoiser(Network):
    """The weights of the network, as the kernels read them: input-major, layers stacked, everything derived derived.

    Args (L layers, K polynomials, J joints, C channels):
        polynomials: [K, J, J] of the Chebyshev convolutions.
        graph: [L, J, J] the learnt adjacency of every layer, normalised.
        in_weight, in_bias: [K, Cin, C], [C].
        norm1, norm2: [L, 2, C] gain and shift of the norms (unbiased std, eps 1e-6 outside the root).
        qkv_weight, qkv_bias: [L, C, 3C], [L, 3C]; columns are [q | k | v], each [head | channel].
        proj_weight, proj_bias: [L, C, C], [L, C].
        fc1_weight, fc1_bias, fc2_weight, fc2_bias: [L, C, 2C], [L, 2C], [L, 2C, C], [L, C].
        conv1_weight, conv1_bias, conv2_weight, conv2_bias: [L, K, C, C], [L, C].
        out_weight, out_bias: [K, C, Cout], [Cout].
        heads: of the attention.

    Everything has one dtype, or the matrices (``*_weight``) are bfloat16 or float16 and the rest float32.
    """

    def __init__(self, *, heads: int, **tensors: Tensor):
        if set(tensors) != set(reference.TENSORS):
            wrong = ", ".join(sorted(set(tensors) ^ set(reference.TENSORS)))
            raise TypeError(
                f"GraphDenoiser: missing or unknown: {wrong}; it takes {', '.join(reference.TENSORS)}, heads"
            )
        self.heads = check_integer("GraphDenoiser", "heads", heads, 1)
        super().__init__([tensors[name] for name in reference.TENSORS])

    def _take(self, tensors) -> None:
        super()._take(tensors)
        vars(self).update(zip(reference.TENSORS, self.tensors, strict=True))

    def map(self, function) -> GraphDenoiser:
        """``function`` applied to every tensor (``lambda t: t.to("cuda")``)."""
        return self.with_tensors([function(t) for t in self.tensors])

    def rounded(self, dtype: torch.dtype = torch.bfloat16) -> GraphDenoiser:
        """The same network with its matrices in ``dtype``: products of 16-bit numbers, summed in float32."""
        named = zip(reference.TENSORS, self.tensors)
        return self.with_tensors([t.to(dtype) if name.endswith("_weight") else t for name, t in named])


def _fake(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep, backend):
    steps = coefficients.shape[0] if keep and coefficients is not None else 0
    history = x.new_empty((steps, *x.shape) if steps else (0,))
    return x.new_empty(*x.shape[:2], weights[-1].shape[0]), history, torch.empty_like(history)


def _not_for_triton(x, weights, shifts, coefficients, noise, *options) -> str | None:
    tensors = [t for t in (x, shifts, coefficients, noise) if t is not None]
    reason = not_for_triton(*tensors) or not_for_triton(*weights)
    if reason is not None:
        return reason
    from .triton import refuses  # imports Triton

    return refuses(x, weights, shifts, coefficients, noise, *options)


def _not_for_cuda(*args) -> str | None:
    from .cuda import refuses

    return refuses(*args)


_forward = register(
    __name__,
    "denoise",
    "(Tensor x, Tensor[] weights, Tensor? shifts, Tensor? coefficients, Tensor? noise, int? seed, int first_pose, "
    "int heads, bool keep, str backend) -> (Tensor, Tensor, Tensor)",
    _fake,
    order=("cpu", "cuda", "triton"),
    needs={"cpu": ("denoise", "denoise_pack")},
    refuses={"triton": _not_for_triton, "cuda": _not_for_cuda},
    keeps=("cpu", "cuda"),
)
_forward.gradient = _forward.recomputed


def _check(op: str, x: Tensor, weights: GraphDenoiser) -> None:
    check_tensor(op, "x", x, rank=3)
    if not isinstance(weights, GraphDenoiser):
        raise TypeError(f"{op}: weights must be a GraphDenoiser, got {type(weights).__qualname__}")
    if weights.guarded and not torch.compiler.is_compiling():  # they do not change: once is enough
        weights.made(("checked", x.dtype, x.device), lambda: _check_weights(op, x, weights))
    else:
        _check_weights(op, x, weights)
    J, Cin = weights.graph.shape[1], weights.in_weight.shape[1]
    check_shape(op, "x", x, (x.shape[0], J, Cin), "by the network's joints and input channels")


def _check_weights(op: str, x: Tensor, weights: GraphDenoiser) -> bool:
    """True where every weight fits the others and ``x``'s dtype and device."""
    for name in ("in_weight", "graph", "out_weight"):  # which fix the sizes
        check_tensor(op, f"weights.{name}", getattr(weights, name), rank=3)
    K, Cin, C = weights.in_weight.shape
    L, J = weights.graph.shape[:2]
    if not 1 <= J <= MAX_JOINTS:
        raise ValueError(f"{op}: weights must be for 1 to {MAX_JOINTS} joints, got {J}")
    if C % weights.heads:
        raise ValueError(f"{op}: weights.heads must divide C={C}, got {weights.heads}")
    Cout = weights.out_weight.shape[-1]
    shapes = {
        "polynomials": (K, J, J),
        "graph": (L, J, J),
        "in_weight": (K, Cin, C),
        "in_bias": (C,),
        "norm1": (L, 2, C),
        "qkv_weight": (L, C, 3 * C),
        "qkv_bias": (L, 3 * C),
        "proj_weight": (L, C, C),
        "proj_bias": (L, C),
        "norm2": (L, 2, C),
        "fc1_weight": (L, C, 2 * C),
        "fc1_bias": (L, 2 * C),
        "fc2_weight": (L, 2 * C, C),
        "fc2_bias": (L, C),
        "conv1_weight": (L, K, C, C),
        "conv1_bias": (L, C),
        "conv2_weight": (L, K, C, C),
        "conv2_bias": (L, C),
        "out_weight": (K, C, Cout),
        "out_bias": (Cout,),
    }
    for name, shape in shapes.items():
        tensor = getattr(weights, name)
        # 16-bit matrices go with float32 poses: the state of the chain would lose its digits in 16 bits.
        rounded = name.endswith("_weight") and weights.in_weight.dtype in (torch.bfloat16, torch.float16)
        check_tensor(op, f"weights.{name}", tensor, like=weights.in_weight if rounded else x)
        check_shape(op, f"weights.{name}", tensor, shape, f"K, Cin, C = {K}, {Cin}, {C}; L, J = {L}, {J}")
    return True


def _check_shift(op: str, name: str, shift: Tensor, x: Tensor, weights: GraphDenoiser, *steps: int) -> None:
    """[*steps, L, C] for all poses alike, or [*steps, B, L, C]."""
    L, C = weights.norm1.shape[0], weights.norm1.shape[2]
    check_tensor(op, name, shift, like=x)
    per_pose = shift.dim() == len(steps) + 3
    wanted = (*steps, len(x), L, C) if per_pose else (*steps, L, C)
    check_shape(op, name, shift, wanted, f"weights have L, C = {L}, {C}, x has {len(x)} poses")


def _call(x, weights, shifts, coefficients, noise, seed, first_pose, keep, backend):
    args = (x, weights.tensors, shifts, coefficients, noise, seed, first_pose, weights.heads, keep)
    return _forward(*args, backend=requested(backend), network=weights)


@follows_autocast
def graph_transformer(
    x: Tensor, weights: GraphDenoiser, shift: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """The network of ``denoise_step`` by itself: Chebyshev convolutions, joint attention and learnt graphs by turns.

    Args:
        x: [B, J, Cin], float32 or float64.
        weights: of the network.
        shift: [L, C], [B, L, C] or None, added after the first relu of every Chebyshev block: the timestep, projected;
            one for all poses or one for each.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, J, Cout]
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor, by running the reference again.
    Source: GraFormer, Zhao et al., CVPR 2022; GCNdiff, Gong et al., CVPR 2023.
    """
    _check("graph_transformer", x, weights)
    if shift is not None:
        _check_shift("graph_transformer", "shift", shift, x, weights)
        shift = shift[None]
    return _call(x, weights, shift, None, None, None, 0, False, backend)[0]


@follows_autocast
def denoise_loop(
    x: Tensor,
    weights: GraphDenoiser,
    shifts: Tensor,
    coefficients: Tensor,
    *,
    noise: Tensor | None = None,
    seed: int | None = None,
    first_pose: int = 0,
    trajectory: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """The whole reverse chain: for every step s, ``e = network(x, shifts[s])``, then

    ``clean = c0 x + c1 e``, ``x = c2 x + c3 e + c4 noise[s]`` with ``c = coefficients[s]``.

    Args:
        x: [B, J, C5], float32 or float64; as many channels in as out.
        weights: of the network.
        shifts: [S, L, C] the timestep of every step, projected for every layer; or [S, B, L, C], one for each pose. S
            may be 0.
        coefficients: [S, 5]. DDIM from timestep i to j: c0 = 1/sqrt(a_i), c1 = -sqrt((1-a_i)/a_i),
            c2 = sqrt(a_j) c0, c3 = sqrt(a_j) c1 + sqrt(1-a_j-c4^2), c4 the added noise.
        noise: [S, B, J, C5] unit noise. Without ``noise`` and ``seed`` every c4 counts as 0.
        seed: draws the noise instead, inside the kernel, from Philox: a function of (seed, step, pose) alone.
        first_pose: number of the batch's first pose, so that batches of one run draw different noise.
        trajectory: also return every state and every clean estimate.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, J, C5]; with ``trajectory`` (that, states [S, B, J, C5], clean estimates [S, B, J, C5]).
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor, by running the reference again.
    Source: DDIM, Song et al., ICLR 2021, eq. 12, with the network of DiffPose, Gong et al., CVPR 2023.
    """
    op = "denoise_loop"
    _check_chain(op, x, weights)
    check_tensor(op, "shifts", shifts, like=x)
    S = len(shifts) if shifts.dim() else 0
    _check_shift(op, "shifts", shifts, x, weights, S)
    check_tensor(op, "coefficients", coefficients, like=x)
    check_shape(op, "coefficients", coefficients, (S, 5), f"shifts are {list(shifts.shape)}")
    if noise is not None:
        check_tensor(op, "noise", noise, like=x)
        check_shape(op, "noise", noise, (S, *x.shape), f"S = {S}, x is {list(x.shape)}")
    options = _checked_noise(op, noise, seed, first_pose)
    trajectory = check_flag(op, "trajectory", trajectory)
    if S == 0:
        empty = x.new_empty(0, *x.shape)
        return (x.clone(), empty, empty.clone()) if trajectory else x.clone()
    result = _call(x, weights, shifts, coefficients, *options, trajectory, backend)
    return result if trajectory else result[0]


def _check_chain(op: str, x: Tensor, weights: GraphDenoiser) -> None:
    """Refuse a network that cannot take its result again."""
    _check(op, x, weights)
    channels = weights.in_weight.shape[1], weights.out_weight.shape[-1]
    if channels[0] != channels[1]:
        raise ValueError(
            f"{op}: weights must give as many channels as they take, got {channels[0]} in and {channels[1]} out"
        )


def _checked_noise(op: str, noise: Tensor | None, seed: int | None, first_pose: int) -> tuple:
    if noise is not None and seed is not None:
        raise ValueError(f"{op}: give noise or seed, not both")
    seed = None if seed is None else seed_of(op, seed)
    return noise, seed, check_integer(op, "first_pose", first_pose, 0, MOST_POSES)


@follows_autocast
def denoise_step(
    x: Tensor,
    weights: GraphDenoiser,
    shift: Tensor,
    coefficients: Tensor,
    *,
    noise: Tensor | None = None,
    seed: int | None = None,
    first_pose: int = 0,
    backend: str | None = None,
) -> Tensor:
    """One step of ``denoise_loop``: ``shift`` [(B,) L, C], ``coefficients`` [5], ``noise`` [B, J, C5] or None."""
    op = "denoise_step"
    _check_chain(op, x, weights)
    _check_shift(op, "shift", shift, x, weights)
    check_tensor(op, "coefficients", coefficients, like=x)
    check_shape(op, "coefficients", coefficients, (5,), "c0 to c4")
    if noise is not None:
        check_tensor(op, "noise", noise, like=x)
        check_shape(op, "noise", noise, tuple(x.shape), "the shape of x")
    noise, *options = _checked_noise(op, noise, seed, first_pose)
    noise = None if noise is None else noise[None]
    return _call(x, weights, shift[None], coefficients[None], noise, *options, False, backend)[0]
