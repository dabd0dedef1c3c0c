"""``hierarchy_block`` and ``hierarchy_network`` at HTNet's sizes, the network also at an awkward one.

For inference: their gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.models import create
from posekernels.models.htnet import GRAPH_HIDDEN, HEADS, LIMB_JOINTS, fused
from posekernels.ops import HierarchyNetwork, hierarchy_block, hierarchy_network
from posekernels.ops.hierarchy_block import ENDS, PARAMETERS
from posekernels.ops.hierarchy_block.reference import by_block

J, LIMBS = 17, len(LIMB_JOINTS) // 3


def multiply_adds(C: int, H: int) -> int:
    """Of a block, per pose; 12,633,152 at the published size (ws_anl section 16)."""
    graph = 4 * J * C * GRAPH_HIDDEN + 2 * J * J * (C + GRAPH_HIDDEN)
    limbs = LIMBS * ((3 + 2) * C * C + 4 * C * H)
    attention = 4 * J * C * C + 2 * J * J * C
    return graph + limbs + attention + 6 * J * C * H


def case(B: int, **extra) -> OpCase:
    def make():
        torch.manual_seed(0)
        block = create("htnet", depth=1).blocks[0]
        weights = [w.detach().clone() for w in block.weights()]
        return {"x": torch.randn(B, J, 240)} | dict(zip(PARAMETERS, weights))

    def call(i, backend):
        return hierarchy_block(i["x"], [i[n] for n in PARAMETERS], limbs=LIMB_JOINTS, heads=HEADS, backend=backend)

    values, flops = 2 * B * J * 240 + 1_014_162, 2.0 * B * multiply_adds(80, 1024)
    return OpCase("hierarchy_block", f"B={B}", make, call, flops, lambda size: values * size, **extra)


def network(B: int, depth: int = 3, channels: int = 240, hidden: int = 1024, **extra) -> OpCase:
    def tensors() -> list[torch.Tensor]:
        torch.manual_seed(0)
        whole = fused(create("htnet", depth=depth, channels=channels, hidden=hidden))
        return [w.detach().clone() for w in (*whole.ends, *whole.weights)]

    def make():
        weights = {f"w{n}": w for n, w in enumerate(tensors())}  # seeds the generator
        return {"x": torch.rand(B, J, 2)} | weights

    def call(i, backend):
        if "network" not in i:  # made once, as HTNet does
            weights = [w for n, w in i.items() if n != "x"]
            ends, blocks = weights[: len(ENDS)], by_block(weights[len(ENDS) :], depth)
            i["network"] = HierarchyNetwork(ends, blocks, limbs=LIMB_JOINTS, heads=HEADS)
        return hierarchy_network(i["x"], i["network"], backend=backend)

    def moved(size: int) -> float:
        return (B * J * (2 + 3) + sum(w.numel() for w in tensors())) * size

    flops = 2.0 * B * (depth * multiply_adds(channels // 3, hidden) + J * channels * (2 + 3))
    name = f"B={B} C={channels} H={hidden} blocks={depth}"
    return OpCase("hierarchy_network", name, make, call, flops, moved, **extra)


CASES = [
    case(1, quick=True),
    case(33),
    case(400, dtypes=(torch.bfloat16,)),
    network(1, quick=True),
    network(400, dtypes=(torch.bfloat16,)),
    network(15, depth=2, channels=72, hidden=301),
]
