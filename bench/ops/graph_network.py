"""``graph_network`` as the networks of WS-ANL run it, one pose and many, and at an awkward size.

For inference: its gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.ops import GraphLayer, GraphNetwork, graph_network
from posekernels.ops.graph_conv import cost


def case(name: str, B: int, J: int, K: int, widths: list[int], **extra) -> OpCase:
    """``widths``: of the input and of each layer; every second inner layer adds the input of the pair it ends."""
    sizes = list(zip(widths, widths[1:]))

    def make():
        g = torch.Generator().manual_seed(0)
        made = {"x": torch.randn(B, J, widths[0], generator=g)}
        for i, (Cin, Cout) in enumerate(sizes):
            adjacency = torch.randn(K, J, J, generator=g) / J**0.5
            if K > 1:
                adjacency[0] *= torch.eye(J)
            made[f"weight{i}"] = torch.randn(K, Cin, Cout, generator=g) / Cin**0.5
            made[f"adjacency{i}"] = adjacency
            made[f"modulation{i}"] = torch.randn(J, Cout, generator=g)
            made[f"affine{i}"] = torch.randn(2, Cout, generator=g)
        return made

    def call(i, backend):
        if "network" not in i:  # made once, as networks do
            names = ("weight", "adjacency", "modulation", "affine")
            layers = []
            for l in range(len(sizes)):
                inner = 0 < l < len(sizes) - 1
                residual = l - 2 if inner and l % 2 == 0 else None
                activation = "relu" if l < len(sizes) - 1 else "none"
                layers.append(GraphLayer(*(i[f"{n}{l}"] for n in names), activation, residual))
            i["network"] = GraphNetwork(layers)
        return graph_network(i["x"], i["network"], backend=backend)

    def moved(element: int) -> int:
        """What lies between layers stays in the cache."""
        parameters = sum(K * Cin * Cout + K * J * J + J * Cout + 2 * Cout for Cin, Cout in sizes)
        return element * (B * J * (widths[0] + widths[-1]) + parameters)

    flops = sum(cost.flops(B, J, Cin, Cout, K, diagonal=K > 1) for Cin, Cout in sizes)
    return OpCase("graph_network", f"{name} B={B} J={J} K={K}", make, call, flops, moved, **extra)


VARIANCE, LIGHT = [2, *[256] * 9, 1], [2, *[128] * 9, 3]

CASES = [
    case("variance_gcn", 1, 17, 2, VARIANCE, quick=True),
    case("variance_gcn", 400, 17, 2, VARIANCE),
    case("mgcn_lw", 1, 17, 1, LIGHT),
    case("odd", 7, 31, 2, [13, 29, 5]),
]
