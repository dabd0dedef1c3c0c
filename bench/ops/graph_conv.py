"""``graph_conv`` at the sizes of HTNet, GCNdiff, and at awkward ones."""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.models.graph import modulated_adjacency
from posekernels.ops import graph_conv
from posekernels.ops.graph_conv import cost

NAMES = ("x", "weight", "adjacency", "bias", "modulation")


def case(B: int, Cin: int, Cout: int, K: int, modulated: bool, activation: str, J: int = 17, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        if J == 17 and K == 2:  # a diagonal and the rest, as the modulated networks have it
            full = modulated_adjacency() + 0.1 * torch.randn(J, J, generator=g)
            diagonal = torch.diag(full.diagonal())
            adjacency = torch.stack((diagonal, full - diagonal))
        else:
            adjacency = torch.randn(K, J, J, generator=g) / J**0.5
        return {
            "x": torch.randn(B, J, Cin, generator=g),
            "weight": torch.randn(K, Cin, Cout, generator=g) / Cin**0.5,
            "adjacency": adjacency,
            "bias": torch.randn(Cout, generator=g),
            "modulation": 1 + 0.3 * torch.randn(J, Cout, generator=g) if modulated else None,
        }

    def call(i, backend):
        return graph_conv(
            i["x"],
            i["weight"],
            i["adjacency"],
            i["bias"],
            modulation=i["modulation"],
            activation=activation,
            backend=backend,
        )

    def products(i):
        """What the matrix products alone take in the vendor's library (cuBLAS, MKL): a floor, not an answer."""
        return torch.matmul(i["x"].flatten(0, 1), i["weight"])

    label = f"B={B} J={J} {Cin}->{Cout} K={K}{' M' if modulated else ''} {activation}"
    gradients = NAMES if modulated else NAMES[:-1]
    flops = cost.flops(B, J, Cin, Cout, K, diagonal=int(J == 17 and K == 2))
    moved = partial(cost.bytes_moved, B, J, Cin, Cout, K, modulated=modulated)
    peers = {"products": products}
    return OpCase("graph_conv", label, make, call, flops, moved, gradients, peers, ("products",), **extra)


CASES = [
    case(1, 80, 384, 2, True, "gelu", quick=True),
    case(400, 80, 384, 2, True, "gelu", quick=True, dtypes=(torch.bfloat16,)),
    case(400, 384, 80, 2, True, "none"),
    case(25600, 80, 384, 2, True, "gelu", dtypes=(torch.bfloat16,), gpu_only=True),
    case(243, 96, 96, 3, False, "relu"),
    case(33, 13, 29, 1, True, "relu", J=31),
]
