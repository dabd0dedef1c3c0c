"""``graph_network``: a whole chain of graph convolutions in one call. The definition is in ``reference.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ..._network import Network
from ...arrays import follows_autocast
from ...checks import check_choice, check_integer, check_not_empty, check_shape, check_tensor
from ..graph_conv import MAX_JOINTS
from . import reference

_OP = "graph_network"
INPUT = -1  # as a residual: the network's own input
_NONE = -2


class GraphLayer(NamedTuple):
    """``y = act(scale * sum_k A_k (M * (x W_k)) + shift) + residual``: ``graph_conv`` with everything folded.

    Args:
        weight: [K, Cin, Cout], input-major.
        adjacency: [K, J, J]; row i of A_k says what joint i gathers.
        modulation: [J, Cout], M, applied to the source joint.
        affine: [2, Cout], scale and shift: bias and batch norm.
        activation: "none", "relu" or "gelu".
        residual: index of the earlier layer whose result is added, -1 for the network's input, or None.
    """

    weight: Tensor
    adjacency: Tensor
    modulation: Tensor
    affine: Tensor
    activation: str = "none"
    residual: int | None = None


class GraphNetwork(Network):
    """A network that ``graph_network`` runs, checked once.

    What a backend makes of the weights is kept until one of them changes: give the parameters themselves, not views.

    Raises:
        ValueError, TypeError: a layer that does not fit the one before it, naming it.
    """

    def __init__(self, layers: Sequence[GraphLayer]):
        if not layers:
            raise ValueError(f"{_OP}: layers must be at least one, got none")
        first = layers[0].weight
        check_tensor(_OP, "weight of layer 0", first, rank=3)
        check_tensor(_OP, "adjacency of layer 0", layers[0].adjacency, like=first, rank=3)
        joints, widths = layers[0].adjacency.shape[-1], [first.shape[1]]  # of the input and of each result
        if not 1 <= joints <= MAX_JOINTS:
            raise ValueError(f"{_OP}: adjacency of layer 0 must have 1 to {MAX_JOINTS} joints, got {joints}")
        for i, layer in enumerate(layers):
            where = f"of layer {i}"
            check_tensor(_OP, f"weight {where}", layer.weight, like=first, rank=3)
            K, Cin, Cout = layer.weight.shape
            check_not_empty(_OP, f"weight {where}", layer.weight)
            if Cin != widths[-1]:
                raise ValueError(f"{_OP}: weight {where} must take {widths[-1]} channels, got {Cin}")
            for name, shape in (
                ("adjacency", (K, joints, joints)),
                ("modulation", (joints, Cout)),
                ("affine", (2, Cout)),
            ):
                check_tensor(_OP, f"{name} {where}", getattr(layer, name), like=first)
                check_shape(_OP, f"{name} {where}", getattr(layer, name), shape, f"weight is {[K, Cin, Cout]}")
            check_choice(_OP, f"activation {where}", layer.activation, reference.NAMES)
            if layer.residual is not None:
                check_integer(_OP, f"residual {where}", layer.residual, INPUT, i - 1)
            if layer.residual is not None and widths[layer.residual + 1] != Cout:
                raise ValueError(f"{_OP}: residual {where} must have {Cout} channels, got {widths[layer.residual + 1]}")
            widths.append(Cout)
        super().__init__([t for layer in layers for t in layer[: reference.TENSORS]])
        self.takes, self.out_channels = (joints, widths[0]), widths[-1]
        self.options = (
            tuple([reference.NAMES.index(layer.activation) for layer in layers]),
            tuple([_NONE if layer.residual is None else int(layer.residual) for layer in layers]),
        )


_forward = register(
    __name__,
    _OP,
    "(Tensor x, Tensor[] tensors, int[] activations, int[] residuals, str backend) -> Tensor",
    lambda x, tensors, *_rest: x.new_empty(*x.shape[:2], tensors[-1].shape[1]),
    needs={"cuda": ("graph_conv_cuda",)},
    keeps=("cpu",),
)
_forward.gradient = _forward.recomputed


@follows_autocast
def graph_network(x: Tensor, network: GraphNetwork, *, backend: str | None = None) -> Tensor:
    """A chain of graph convolutions, each with its epilogue, in one call: see ``GraphLayer``.

    Args:
        x: [..., J, Cin], any strides; float32, float64, float16 or bfloat16 as the weights (on the CPU the last two
            are computed in float32 and rounded).
        network: the layers; make it once and keep it while no weight changes.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., J, Cout] of the last layer, dtype of ``x``, contiguous.
    Raises:
        ValueError, TypeError: a wrong shape, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to ``x`` and every tensor of the layers, by running the reference again: for inference.
        Training runs layer by layer (``graph_conv``), as batch norms stand between.
    Source: equal to ``graph_conv`` called layer by layer; Modulated GCN, Zou & Tang, ICCV 2021.
    """
    if not isinstance(network, GraphNetwork):
        raise TypeError(f"{_OP}: network must be a GraphNetwork, got {type(network).__qualname__}")
    check_tensor(_OP, "x", x, like=network.tensors[0], min_rank=2)
    if x.shape[-2:] != network.takes:
        raise ValueError(f"{_OP}: x must be [..., {network.takes[0]}, {network.takes[1]}], got {list(x.shape)}")
    args = (x.reshape(-1, *network.takes), network.tensors, *network.options)
    y = _forward(*args, backend=requested(backend), network=network)
    return y.view(*x.shape[:-1], network.out_channels)
