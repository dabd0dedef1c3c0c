"""``hierarchy_block``: a skeleton seen by joints, limbs and as a whole, then an MLP; ``hierarchy_network``: such blocks
between their first and their last layer. ``reference.py`` defines both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _cuda
from ..._dispatch import not_for_triton, requested
from ..._library import register
from ..._network import Network
from ...arrays import follows_autocast
from ...checks import check_integer, check_integers, check_not_empty, check_shape, check_tensor, check_tensors
from ..joint_attention import MAX_HEAD

MAX_JOINTS = 32
MAX_CHANNELS = 128  # of a level, in Triton, whose programs keep whole rows
_CONV = ("weight", "modulation", "offset", "bias")
_BRANCH = ("norm_weight", "norm_bias", "conv_weight", "conv_bias", "norm_mlp_weight", "norm_mlp_bias")
_MLP = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
PARAMETERS = (
    "adjacency",
    *("joint_norm_in_weight", "joint_norm_in_bias"),
    *(f"joint_conv1_{n}" for n in _CONV),
    *(f"joint_conv2_{n}" for n in _CONV),
    *("joint_norm_out_weight", "joint_norm_out_bias"),
    *(f"part_three_{n}" for n in (*_BRANCH, *_MLP)),
    *(f"part_two_{n}" for n in (*_BRANCH, *_MLP)),
    *("body_norm_weight", "body_norm_bias"),
    *("body_qkv_weight", "body_qkv_bias", "body_proj_weight", "body_proj_bias"),
    *("norm_weight", "norm_bias"),
    *_MLP,
)
ENDS = ("embed_weight", "embed_bias", "position", "norm_weight", "norm_bias", "head_weight", "head_bias")


def _not_for_triton(x, weights, *_rest) -> str | None:
    C = weights[1].shape[0]
    if C > MAX_CHANNELS:
        return f"takes levels of at most {MAX_CHANNELS} channels, got {C}"
    return not_for_triton(x, *weights)


def _not_for_cuda(x, weights, joints, heads, *_rest) -> str | None:
    width = weights[1].shape[0] // heads
    if width > MAX_HEAD:
        return f"takes heads of at most {MAX_HEAD} channels, got {width}"
    return _cuda.refuses(x, *weights)


_OPTIONS = {
    "needs": {"cpu": ("hierarchy_network",), "cuda": ("graph_conv_cuda", "joint_attention_cuda")},
    "refuses": {"triton": _not_for_triton, "cuda": _not_for_cuda},
}
_forward = register(
    __name__,
    "hierarchy_block",
    "(Tensor x, Tensor[] weights, int[] joints, int heads, str backend) -> Tensor",
    lambda x, *_rest: torch.empty_like(x, memory_format=torch.contiguous_format),
    **_OPTIONS,
)
_forward_network = register(
    __name__,
    "hierarchy_network",
    "(Tensor x, Tensor[] weights, int[] joints, int heads, Tensor[] ends, int blocks, str backend) -> Tensor",
    lambda x, weights, joints, heads, ends, *_rest: x.new_empty(*x.shape[:-1], ends[-1].shape[0]),
    **_OPTIONS,
    keeps=("cpu",),
)
_forward.gradient, _forward_network.gradient = _forward.recomputed, _forward_network.recomputed


def _shapes(J: int, C: int, G: int, H: int) -> list[tuple[int, ...]]:
    """Of ``PARAMETERS``."""
    mlp = [(H, C), (H,), (C, H), (C,)]
    branches = [[(C,), (C,), (C, C, taps), (C,), (C,), (C,), *mlp] for taps in (3, 2)]
    conv1, conv2 = [(2, C, G), (J, G), (J, J), (G,)], [(2, G, C), (J, C), (J, J), (C,)]
    body = [(C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,)]
    last = [(3 * C,), (3 * C,), (H, 3 * C), (H,), (3 * C, H), (3 * C,)]
    return [(J, J), (C,), (C,), *conv1, *conv2, (C,), (C,), *branches[0], *branches[1], *body, *last]


def _checked_limbs(op: str, limbs: Sequence[int], J: int) -> list[int]:
    limbs = check_integers(op, "limbs", limbs, "three joints for each limb")
    if not limbs or len(limbs) % 3 or len(set(limbs)) != len(limbs) or not all(0 <= j < J for j in limbs):
        raise ValueError(f"{op}: limbs must be different joints of {J}, three for each limb, got {limbs}")
    return limbs


def _check_block(op: str, parameters: Sequence[Tensor], like: Tensor, J: int, C: int, heads: int, given: dict) -> None:
    if C % heads:
        raise ValueError(f"{op}: heads must divide C = {C}, got {heads}")
    if len(parameters) != len(PARAMETERS):
        raise ValueError(f"{op}: parameters must be {len(PARAMETERS)} tensors, got {len(parameters)}")
    check_tensor(op, PARAMETERS[3], parameters[3], like=like, rank=3)
    check_tensor(op, PARAMETERS[-4], parameters[-4], like=like, rank=2)
    for i in (3, -4):  # which fix the hidden widths
        check_not_empty(op, PARAMETERS[i], parameters[i])
    G, H = parameters[3].shape[-1], parameters[-4].shape[0]
    if not torch.compiler.is_compiling():  # 45 checks: traced once is enough
        shapes = dict(zip(PARAMETERS, zip(parameters, _shapes(J, C, G, H))))
        check_tensors(op, like, shapes, given)


@follows_autocast
def hierarchy_block(
    x: Tensor, parameters: Sequence[Tensor], *, limbs: Sequence[int], heads: int, backend: str | None = None
) -> Tensor:
    """A block of HTNet in inference: three levels, each on a third of the channels and fed by the one before; an MLP.

    ``joint += norm(conv2(gelu(conv1(norm(joint)))))``; ``u = part + joint``; ``part = three(u) + two(u) + u``;
    ``t = body + part``; ``body = t + proj(attention(qkv(norm(t))))``; ``x = [joint | part | body]``;
    ``x += mlp(norm(x))``

    Args:
        x: [..., J, 3 C], J <= 32; float32, float64 or bfloat16, any strides.
        parameters: 45 tensors of the dtype of ``x`` in the order of ``PARAMETERS``; ``adjacency`` and each ``offset``
            are [J, J]: their sum, symmetrised, mixes the joints in a convolution, the diagonal with ``weight[0]``, the
            rest with ``weight[1]``. See ``reference.limb_branch`` for the part level.
        limbs: joints of the limbs, three each, from the body outwards, one limb after the other.
        heads: divides C.
        backend: see ``posekernels.use_backend``.
    Returns:
        The shape and dtype of ``x``, contiguous.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor, by running the reference again.
    Source: Cai et al., ICASSP 2023, section 2; norms have eps 1e-5, the MLP's 1e-6, GELU is the erf form.
    """
    op = "hierarchy_block"
    check_tensor(op, "x", x, min_rank=2)
    J, channels = x.shape[-2:]
    if not channels or channels % 3 or not 1 <= J <= MAX_JOINTS:
        raise ValueError(f"{op}: x must be [..., 1 <= J <= {MAX_JOINTS}, 3 C], got {list(x.shape)}")
    limbs = _checked_limbs(op, limbs, J)
    heads = check_integer(op, "heads", heads, 1)
    _check_block(op, parameters, x, J, channels // 3, heads, {"x": x})
    flat = x.reshape(-1, J, channels)
    return _forward(flat, list(parameters), limbs, heads, backend=requested(backend)).view(x.shape)


class HierarchyNetwork(Network):
    """A network that ``hierarchy_network`` runs, checked once.

    What the kernels make of the weights, and the network in autocast's dtype, are kept until one of the weights changes
    (``posekernels.prepared``): give the parameters themselves, not views of them.

    Args:
        ends: seven tensors in the order of ``ENDS``: [3 C, in], [3 C], [J, 3 C] or [1, J, 3 C]; [3 C], [3 C],
            [out, 3 C], [out].
        blocks: of each block its parameters, as for ``hierarchy_block``; at least one, all of the same widths.
        limbs, heads: as for ``hierarchy_block``.
    Raises:
        ValueError, TypeError: a tensor that does not fit the others, naming it.
    """

    def __init__(self, ends: Sequence[Tensor], blocks: Sequence[Sequence[Tensor]], *, limbs: Sequence[int], heads: int):
        op = "hierarchy_network"
        if len(ends) != len(ENDS):
            raise ValueError(f"{op}: ends must be {len(ENDS)} tensors, got {len(ends)}")
        if not blocks:
            raise ValueError(f"{op}: blocks must be at least one, got none")
        embed, position, head = ends[0], ends[2], ends[5]
        check_tensor(op, ENDS[0], embed, rank=2)
        for name, tensor, rank in zip(ENDS, ends, (2, 1, 2, 1, 1, 2, 1)):
            check_tensor(op, name, tensor, like=embed, min_rank=rank)
        (*one, J, channels), out = position.shape, head.shape[0]
        if not channels or channels % 3 or not 1 <= J <= MAX_JOINTS or one not in ([], [1]):
            raise ValueError(f"{op}: position must be [J <= {MAX_JOINTS}, 3 C], got {list(position.shape)}")
        wide = (channels,)
        shapes = ((channels, embed.shape[1]), wide, position.shape, wide, wide, (out, channels), (out,))
        for name, tensor, shape in zip(ENDS, ends, shapes):
            check_shape(op, name, tensor, shape, f"position is {list(position.shape)}")
        self.limbs, self.heads = _checked_limbs(op, limbs, J), check_integer(op, "heads", heads, 1)
        for name in ("embed_weight", "head_weight"):
            check_not_empty(op, name, ends[ENDS.index(name)])
        for i, parameters in enumerate(blocks):
            _check_block(f"{op}, block {i}", parameters, embed, J, channels // 3, self.heads, {"position": position})
            widths = [(p[3].shape[-1], p[-4].shape[0]) for p in (parameters, blocks[0])]
            if widths[0] != widths[1]:
                raise ValueError(
                    f"{op}: block {i} must have the first one's hidden widths {widths[1]}, got {widths[0]}"
                )
        self.blocks = len(blocks)
        self.takes = (J, embed.shape[1])
        super().__init__([*ends, *(w for block in blocks for w in block)])

    def _take(self, tensors) -> None:
        super()._take(tensors)
        self.ends, self.weights = self.tensors[: len(ENDS)], self.tensors[len(ENDS) :]


@follows_autocast
def hierarchy_network(x: Tensor, network: HierarchyNetwork, *, backend: str | None = None) -> Tensor:
    """HTNet in inference, one call: ``head(norm(blocks(embed(x) + position)))``, see ``hierarchy_block``.

    Args:
        x: [..., J, in]; float32, float64 or bfloat16 as the weights, any strides.
        network: make it once and keep it; weights may be written to.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., J, out], dtype of ``x``, contiguous. In bfloat16 the C++ kernel keeps the state between blocks in float32.
    Raises:
        ValueError, TypeError: a wrong shape, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to ``x`` and every weight, by running the reference again.
    Source: Cai et al., ICASSP 2023; the last norm has eps 1e-6.
    """
    op = "hierarchy_network"
    if not isinstance(network, HierarchyNetwork):
        raise TypeError(f"{op}: network must be a HierarchyNetwork, got {type(network).__qualname__}")
    check_tensor(op, "x", x, like=network.ends[0], min_rank=2)
    if x.shape[-2:] != network.takes:
        raise ValueError(f"{op}: x must be [..., {network.takes[0]}, {network.takes[1]}], got {list(x.shape)}")
    args = (x.reshape(-1, *network.takes), network.weights, network.limbs, network.heads, network.ends, network.blocks)
    y = _forward_network(*args, backend=requested(backend), network=network)
    return y.view(*x.shape[:-1], y.shape[-1])
